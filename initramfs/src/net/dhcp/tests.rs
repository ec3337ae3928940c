use std::collections::VecDeque;

use smoltcp::wire::DhcpOption;

use super::{DhcpMessageType as MessageType, *};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const CLIENT: Client = Client { mac: MAC, xid: 7 };
const FIVE_NAME_SERVERS: [u8; 20] =
    [10, 0, 2, 3, 10, 0, 2, 3, 10, 0, 2, 3, 10, 0, 2, 3, 10, 0, 2, 3];

fn reply(kind: MessageType, change: impl Fn(&mut DhcpRepr)) -> Vec<u8> {
    let mut message = DhcpRepr {
        your_ip: ADDRESS,
        broadcast: false,
        parameter_request_list: None,
        server_identifier: Some(SERVER),
        subnet_mask: Some([255, 255, 255, 0].into()),
        router: Some(SERVER),
        additional_options: &[DhcpOption { kind: NAME_SERVERS, data: &FIVE_NAME_SERVERS }],
        ..CLIENT.message(kind)
    };
    change(&mut message);
    encode(&message)
}

/// A server that answers each message with the next of a list; an empty answer is silence.
struct Server {
    answers: VecDeque<Vec<Vec<u8>>>,
    waiting: VecDeque<Vec<u8>>,
    heard: Vec<MessageType>,
}

impl Server {
    fn new<const N: usize>(answers: [Vec<Vec<u8>>; N]) -> Self {
        Self { answers: answers.into(), waiting: VecDeque::new(), heard: vec![] }
    }
}

impl Wire for Server {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let message = DhcpPacket::new_checked(message).unwrap();
        let message = DhcpRepr::parse(&message).unwrap();
        assert!(message.broadcast);
        self.heard.push(message.message_type);
        self.waiting = self.answers.pop_front().unwrap_or_default().into();
        Ok(())
    }

    fn receive(&mut self, limit: Duration) -> io::Result<Option<Vec<u8>>> {
        if self.waiting.is_empty() {
            std::thread::sleep(limit.min(Duration::from_millis(20)));
        }
        Ok(self.waiting.pop_front())
    }
}

#[test]
fn a_lease_is_held_after_silence_noise_and_a_refusal() {
    let offer = || reply(MessageType::Offer, |_| ());
    let foreign = reply(MessageType::Offer, |m| m.transaction_id = 8);
    let mut server = Server::new([
        vec![],                                    // discover: silence
        vec![b"noise".to_vec(), foreign, offer()], // discover
        vec![reply(MessageType::Nak, |_| ())],     // request: refused
        vec![offer()],                             // discover
        vec![reply(MessageType::Ack, |_| ())],     // request
    ]);
    let lease = obtain(&mut server, CLIENT, Duration::from_secs(20)).unwrap().unwrap();
    let dns = vec![IpAddr::from([10, 0, 2, 3]); MAX_DNS];
    assert_eq!(lease, Lease { address: ADDRESS, prefix: 24, gateway: Some(SERVER), dns });
    use MessageType::{Discover, Request};
    assert_eq!(server.heard, [Discover, Discover, Request, Discover, Request]);
}

#[test]
fn silence_ends_at_the_limit() {
    assert_eq!(obtain(&mut Server::new([]), CLIENT, Duration::from_millis(100)).unwrap(), None);
}

#[test]
fn answers_that_are_not_for_us_or_name_unusable_addresses_are_ignored() {
    let offer = CLIENT.offer(&reply(MessageType::Offer, |_| ())).unwrap();
    assert_eq!(offer, Offer { address: ADDRESS, server: SERVER });
    let changes: [fn(&mut DhcpRepr); 4] = [
        |m| m.transaction_id = 8,
        |m| m.client_hardware_address = EthernetAddress([1; 6]),
        |m| m.your_ip = [0, 0, 0, 0].into(),
        |m| m.server_identifier = None,
    ];
    for change in changes {
        assert_eq!(CLIENT.offer(&reply(MessageType::Offer, change)), None);
    }
    // A request and not a reply; a hardware address of 16 bytes; another magic number.
    for (at, value) in [(0, 1), (2, 16), (239, 0)] {
        let mut bytes = reply(MessageType::Offer, |_| ());
        bytes[at] = value;
        assert_eq!(CLIENT.offer(&bytes), None);
    }
    let changes: [fn(&mut DhcpRepr); 4] = [
        |m| m.your_ip = [10, 0, 2, 16].into(),
        |m| m.server_identifier = Some([10, 0, 2, 9].into()),
        |m| m.subnet_mask = Some([255, 0, 255, 0].into()),
        |m| m.subnet_mask = None,
    ];
    for change in changes {
        assert_eq!(CLIENT.answer(&offer, &reply(MessageType::Ack, change)), None);
    }
    assert_eq!(CLIENT.answer(&offer, &reply(MessageType::Nak, |_| ())), Some(Answer::Refused));
}

#[test]
fn only_the_options_that_are_read_must_be_whole_and_single() {
    let mut hostile = reply(MessageType::Offer, |_| ());
    hostile.truncate(FIXED_BYTES);
    // Options of lengths that they must not have, and one of them twice: nothing reads them.
    for option in [
        &[152, 0][..],
        &[81, 0],
        &[81, 0],
        &[119, 2, 0xc0, 0],
        &[53, 1, 2],
        &[54, 4, 10, 0, 2, 2],
        &[255],
    ] {
        hostile.extend(option);
    }
    assert!(CLIENT.offer(&hostile).is_some());
    let doubled = [&hostile[..hostile.len() - 1], &[53, 1, 5, 255]].concat();
    assert_eq!(CLIENT.offer(&doubled), None);
    let cut = [&hostile[..hostile.len() - 1], &[53, 9, 5]].concat();
    assert_eq!(CLIENT.offer(&cut), None);
    for odd in [&[1, 3, 255, 255, 255][..], &[1, 8, 255, 255, 255, 0, 0, 0, 0, 0], &[3, 1, 10]] {
        let odd = [&hostile[..hostile.len() - 1], odd, &[255]].concat();
        assert_eq!(CLIENT.offer(&odd), None);
    }
    assert_eq!(CLIENT.offer(&[0; MAX_BYTES + 1]), None);
}

#[test]
fn fuzz_seeds_and_their_mutations() {
    crate::seeds::make("dhcp", "offer.bin", || reply(MessageType::Offer, |_| ()));
    crate::seeds::make("dhcp", "ack.bin", || reply(MessageType::Ack, |_| ()));
    crate::seeds::run("dhcp", fuzz);
}
