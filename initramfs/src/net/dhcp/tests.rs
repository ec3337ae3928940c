use std::collections::VecDeque;

use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const CLIENT: Client = Client { mac: MAC, xid: 7 };

fn reply(kind: MessageType, change: impl Fn(&mut Message)) -> Vec<u8> {
    let mut message = Message::default();
    message
        .set_opcode(dhcproto::v4::Opcode::BootReply)
        .set_xid(7)
        .set_chaddr(&MAC)
        .set_yiaddr(ADDRESS);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(SERVER));
    options.insert(DhcpOption::SubnetMask([255, 255, 255, 0].into()));
    options.insert(DhcpOption::Router(vec![SERVER]));
    options.insert(DhcpOption::DomainNameServer(vec![[10, 0, 2, 3].into(); 5]));
    change(&mut message);
    message.to_vec().unwrap()
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
        let message = Message::decode(&mut Decoder::new(message)).unwrap();
        assert!(message.flags().broadcast());
        self.heard.push(message.opts().msg_type().unwrap());
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
    let foreign = reply(MessageType::Offer, |m| _ = m.set_xid(8));
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
    let changes: [fn(&mut Message); 6] = [
        |m| _ = m.set_xid(8),
        |m| _ = m.set_chaddr(&[1; 6]),
        |m| _ = m.set_chaddr(&[1; 16]),
        |m| _ = m.set_opcode(dhcproto::v4::Opcode::BootRequest),
        |m| _ = m.set_yiaddr([0, 0, 0, 0]),
        |m| _ = m.opts_mut().remove(OptionCode::ServerIdentifier),
    ];
    for change in changes {
        assert_eq!(CLIENT.offer(&reply(MessageType::Offer, change)), None);
    }
    let changes: [fn(&mut Message); 4] = [
        |m| _ = m.set_yiaddr([10, 0, 2, 16]),
        |m| _ = m.opts_mut().insert(DhcpOption::ServerIdentifier([10, 0, 2, 9].into())),
        |m| _ = m.opts_mut().insert(DhcpOption::SubnetMask([255, 0, 255, 0].into())),
        |m| _ = m.opts_mut().remove(OptionCode::SubnetMask),
    ];
    for change in changes {
        assert_eq!(CLIENT.answer(&offer, &reply(MessageType::Ack, change)), None);
    }
    assert_eq!(CLIENT.answer(&offer, &reply(MessageType::Nak, |_| ())), Some(Answer::Refused));
}

#[test]
fn options_that_are_not_read_never_reach_the_decoder() {
    let mut hostile = reply(MessageType::Offer, |_| ());
    hostile.truncate(FIXED_BYTES);
    // 152 with length 0 underflows in dhcproto 0.15; 81 and 119 parse domain names.
    for option in
        [&[152, 0][..], &[81, 0], &[119, 2, 0xc0, 0x00], &[53, 1, 2], &[54, 4, 10, 0, 2, 2], &[255]]
    {
        hostile.extend(option);
    }
    assert!(CLIENT.offer(&hostile).is_some());
    let doubled = [&hostile[..hostile.len() - 1], &[53, 1, 5, 255]].concat();
    assert_eq!(CLIENT.offer(&doubled), None);
    let cut = [&hostile[..hostile.len() - 1], &[53, 9, 5]].concat();
    assert_eq!(CLIENT.offer(&cut), None);
    assert_eq!(CLIENT.offer(&[0; MAX_BYTES + 1]), None);
}

#[test]
fn fuzz_seeds_and_their_mutations() {
    crate::seeds::make("dhcp", "offer.bin", || reply(MessageType::Offer, |_| ()));
    crate::seeds::make("dhcp", "ack.bin", || reply(MessageType::Ack, |_| ()));
    crate::seeds::run("dhcp", fuzz);
}
