//! A DHCPv4 client (RFC 2131) for one lease: discover, offer, request, acknowledge.
//!
//! The host answers, so an answer is hostile. It can misdirect the VM, which pinned certificates
//! make harmless, and it must not get further: only the options that are used reach the decoder, of
//! bounded number and length. The running system renews the lease; this client only begins it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use dhcproto::{
    Decodable, Decoder, Encodable,
    v4::{DhcpOption, DhcpOptions, Flags, MAGIC, Message, MessageType, OptionCode},
};
use nix::sys::socket::{setsockopt, sockopt};

use super::{card::Card, lease::Lease};
use crate::{
    codes::{Code, Coded, Failure},
    platform::wait,
};

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// A DHCP message fits one Ethernet frame; longer ones are cut, and then refused.
const MAX_BYTES: usize = 1500;
/// Bytes before the options: the fixed fields, and the magic number.
const FIXED_BYTES: usize = 240;
/// More name servers than the resolver reads (`MAXNS` in resolv.h) are of no use.
const MAX_DNS: usize = 3;
/// The first wait for an answer; each further one is twice as long, to the last.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(4);
/// The options that are read: subnet mask, routers, name servers, message type, server identifier.
const OPTIONS: [u8; 5] = [1, 3, 6, 53, 54];

/// How messages travel: a socket, or a test's server.
pub trait Wire {
    /// Broadcasts a message.
    fn send(&mut self, message: &[u8]) -> io::Result<()>;
    /// The next message within `limit`; `None` when it has passed.
    fn receive(&mut self, limit: Duration) -> io::Result<Option<Vec<u8>>>;
}

/// Holds a lease for the card within [`wait::DHCP`].
pub fn lease(card: &Card) -> Result<Lease, Failure> {
    let mut wire = Broadcast::open(&card.name).code_at(Code::Dhcp, &card.name)?;
    obtain(&mut wire, Client { mac: card.mac, xid: transaction() }, wait::DHCP)
        .code(Code::Dhcp)?
        .ok_or_else(|| {
            Failure::new(
                Code::Dhcp,
                format_args!("{}: no usable answer within {} s", card.name, wait::DHCP.as_secs()),
            )
        })
}

/// A number that tells our answers from others'; it protects against confusion, not attack.
fn transaction() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(CLIENT_PORT) as u32
}

/// Talks until a lease is held or `limit` has passed.
pub fn obtain(wire: &mut dyn Wire, client: Client, limit: Duration) -> io::Result<Option<Lease>> {
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_WAIT;
    while Instant::now() < deadline {
        wire.send(&client.discover())?;
        let offered =
            await_answer(wire, deadline.min(Instant::now() + pause), |bytes| client.offer(bytes))?;
        if let Some(offer) = offered {
            wire.send(&client.request(&offer))?;
            let answer = await_answer(wire, deadline.min(Instant::now() + pause), |bytes| {
                client.answer(&offer, bytes)
            })?;
            if let Some(Answer::Held(lease)) = answer {
                return Ok(Some(lease));
            }
        }
        pause = LAST_WAIT.min(pause * 2);
    }
    Ok(None)
}

fn await_answer<T>(
    wire: &mut dyn Wire,
    until: Instant,
    read: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let Some(bytes) = wire.receive(left)? else { return Ok(None) };
        if let Some(answer) = read(&bytes) {
            return Ok(Some(answer));
        }
    }
}

/// The client's side of the messages: pure.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The card's hardware address.
    pub mac: [u8; 6],
    /// The transaction's number.
    pub xid: u32,
}

/// A server's offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    address: Ipv4Addr,
    server: Ipv4Addr,
}

/// A server's last word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The address is ours.
    Held(Lease),
    /// It is not.
    Refused,
}

impl Client {
    fn discover(&self) -> Vec<u8> {
        self.message(MessageType::Discover, [])
    }

    fn request(&self, offer: &Offer) -> Vec<u8> {
        let options = [
            DhcpOption::RequestedIpAddress(offer.address),
            DhcpOption::ServerIdentifier(offer.server),
        ];
        self.message(MessageType::Request, options)
    }

    fn message<const N: usize>(&self, kind: MessageType, options: [DhcpOption; N]) -> Vec<u8> {
        let mut message = Message::default();
        // Answers are broadcast, because a card without an address hears nothing else.
        message.set_xid(self.xid).set_chaddr(&self.mac).set_flags(Flags::default().set_broadcast());
        message.set_opts(DhcpOptions::from_iter(options));
        let wanted = vec![OptionCode::SubnetMask, OptionCode::Router, OptionCode::DomainNameServer];
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message.opts_mut().insert(DhcpOption::ParameterRequestList(wanted));
        // Encoding to memory fails only for options longer than 255 bytes, and these are constants.
        message.to_vec().unwrap_or_default()
    }

    /// An offer to us, if the bytes are one.
    pub fn offer(&self, bytes: &[u8]) -> Option<Offer> {
        let message = self.decode(bytes)?;
        let server = server(&message)?;
        let address = usable(message.yiaddr())?;
        message.opts().has_msg_type(MessageType::Offer).then_some(Offer { address, server })
    }

    /// The server's answer to our request, if the bytes are one.
    pub fn answer(&self, offer: &Offer, bytes: &[u8]) -> Option<Answer> {
        let message = self.decode(bytes)?;
        (server(&message)? == offer.server).then_some(())?;
        match message.opts().msg_type()? {
            MessageType::Nak => Some(Answer::Refused),
            MessageType::Ack => Some(Answer::Held(
                lease_of(&message).filter(|lease| lease.address == offer.address)?,
            )),
            _ => None,
        }
    }

    fn decode(&self, bytes: &[u8]) -> Option<Message> {
        let known = keep_known_options(bytes)?;
        let message = Message::decode(&mut Decoder::new(&known)).ok()?;
        let ours = message.xid() == self.xid && message.hlen() == 6 && message.chaddr() == self.mac;
        (ours && message.opcode() == dhcproto::v4::Opcode::BootReply).then_some(message)
    }
}

fn server(message: &Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::ServerIdentifier)? {
        DhcpOption::ServerIdentifier(address) => usable(*address),
        _ => None,
    }
}

fn lease_of(message: &Message) -> Option<Lease> {
    let prefix = match message.opts().get(OptionCode::SubnetMask)? {
        DhcpOption::SubnetMask(mask) => prefix(*mask)?,
        _ => return None,
    };
    let gateway = match message.opts().get(OptionCode::Router) {
        Some(DhcpOption::Router(routers)) => routers.first().copied().and_then(usable),
        _ => None,
    };
    let dns = match message.opts().get(OptionCode::DomainNameServer) {
        Some(DhcpOption::DomainNameServer(servers)) => {
            servers.iter().copied().filter_map(usable).map(IpAddr::V4).take(MAX_DNS).collect()
        }
        _ => vec![],
    };
    Some(Lease { address: usable(message.yiaddr())?, prefix, gateway, dns })
}

/// An address that a host may have.
fn usable(address: Ipv4Addr) -> Option<Ipv4Addr> {
    let bad = address.is_unspecified()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_loopback();
    (!bad).then_some(address)
}

/// The length of a mask's prefix, if its ones come first.
fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    (bits.leading_ones() + bits.trailing_zeros() >= 32).then_some(bits.leading_ones() as u8)
}

/// The message with only the options that are read, each once, so that the decoder's other
/// parsers (domain names, relay information, …) never run on hostile bytes.
///
/// Bounds: [`MAX_BYTES`]; an option ends within the message; a doubled option is refused.
fn keep_known_options(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let (fixed, mut options) = bytes.split_at_checked(FIXED_BYTES)?;
    fixed.ends_with(&MAGIC).then_some(())?;
    let mut kept = fixed.to_vec();
    let mut seen = [false; 256];
    loop {
        options = match options {
            [0, rest @ ..] => rest,
            [] | [255, ..] => break,
            [code, length, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                if OPTIONS.contains(code) {
                    let seen = seen.get_mut(usize::from(*code))?;
                    (!std::mem::replace(seen, true)).then_some(())?;
                    kept.extend([*code, *length]);
                    kept.extend(value);
                }
                rest
            }
            [_] => return None,
        };
    }
    kept.push(255);
    Some(kept)
}

/// UDP over one card, before it has an address.
struct Broadcast(UdpSocket);

impl Broadcast {
    fn open(card: &str) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT))?;
        socket.set_broadcast(true)?;
        setsockopt(&socket, sockopt::BindToDevice, &card.into())?;
        Ok(Self(socket))
    }
}

impl Wire for Broadcast {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.send_to(message, (Ipv4Addr::BROADCAST, SERVER_PORT)).map(drop)
    }

    fn receive(&mut self, limit: Duration) -> io::Result<Option<Vec<u8>>> {
        self.0.set_read_timeout(Some(limit))?;
        let mut bytes = vec![0; MAX_BYTES + 1];
        match self.0.recv(&mut bytes) {
            Ok(count) => {
                bytes.truncate(count);
                Ok(Some(bytes))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

/// What the fuzz target runs: no answer may panic or take long.
pub fn fuzz(bytes: &[u8]) {
    let mac = bytes.get(28..34).and_then(|mac| mac.try_into().ok()).unwrap_or_default();
    let xid = bytes.get(4..8).and_then(|xid| xid.try_into().ok()).map_or(0, u32::from_be_bytes);
    let client = Client { mac, xid };
    if let Some(offer) = client.offer(bytes) {
        assert!(!offer.address.is_unspecified());
    }
    let offer = Offer { address: [10, 0, 2, 15].into(), server: [10, 0, 2, 2].into() };
    if let Some(Answer::Held(lease)) = client.answer(&offer, bytes) {
        assert!(lease.prefix <= 32 && lease.dns.len() <= MAX_DNS);
    }
}

#[cfg(test)]
mod tests;
