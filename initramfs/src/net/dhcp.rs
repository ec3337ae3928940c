//! A DHCPv4 client (RFC 2131) for one lease: discover, offer, request, acknowledge.
//!
//! The host answers, so an answer is hostile. It can misdirect the VM, which pinned certificates
//! make harmless, and it must not get further: only the options that are used are read, each once
//! and of the length that it must have. The running system renews the lease; this client only
//! begins it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOpCode, DhcpPacket, DhcpRepr,
    EthernetAddress,
};

use super::{card::Card, lease::Lease};
use crate::{
    codes::{Code, Coded, Failure},
    platform::wait,
};

/// A DHCP message fits one Ethernet frame; longer ones are cut, and then refused.
const MAX_BYTES: usize = 1500;
/// Bytes before the options: the fixed fields, and the magic number.
const FIXED_BYTES: usize = 240;
/// More name servers than the resolver reads (`MAXNS` in resolv.h) are of no use.
const MAX_DNS: usize = 3;
/// The first wait for an answer; each further one is twice as long, to the last.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(4);
/// What the bytes before the options end in.
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// The options that are read (RFC 2132). No others are.
const SUBNET_MASK: u8 = 1;
const ROUTERS: u8 = 3;
const NAME_SERVERS: u8 = 6;
const MESSAGE_TYPE: u8 = 53;
const SERVER_IDENTIFIER: u8 = 54;
const OPTIONS: [u8; 5] = [SUBNET_MASK, ROUTERS, NAME_SERVERS, MESSAGE_TYPE, SERVER_IDENTIFIER];

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
    RandomState::new().hash_one(DHCP_CLIENT_PORT) as u32
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

/// What is read of a server's message.
struct Reply {
    kind: DhcpMessageType,
    address: Ipv4Addr,
    server: Ipv4Addr,
    mask: Option<Ipv4Addr>,
    routers: Vec<Ipv4Addr>,
    name_servers: Vec<Ipv4Addr>,
}

impl Client {
    fn discover(&self) -> Vec<u8> {
        encode(&self.message(DhcpMessageType::Discover))
    }

    fn request(&self, offer: &Offer) -> Vec<u8> {
        encode(&DhcpRepr {
            requested_ip: Some(offer.address),
            server_identifier: Some(offer.server),
            ..self.message(DhcpMessageType::Request)
        })
    }

    fn message(&self, kind: DhcpMessageType) -> DhcpRepr<'static> {
        DhcpRepr {
            message_type: kind,
            transaction_id: self.xid,
            secs: 0,
            client_hardware_address: EthernetAddress(self.mac),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            // Answers are broadcast, because a card without an address hears nothing else.
            broadcast: true,
            parameter_request_list: Some(&[SUBNET_MASK, ROUTERS, NAME_SERVERS]),
            router: None,
            subnet_mask: None,
            requested_ip: None,
            client_identifier: None,
            server_identifier: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        }
    }

    /// An offer to us, if the bytes are one.
    pub fn offer(&self, bytes: &[u8]) -> Option<Offer> {
        let reply = self.decode(bytes)?;
        let address = usable(reply.address)?;
        (reply.kind == DhcpMessageType::Offer).then_some(Offer { address, server: reply.server })
    }

    /// The server's answer to our request, if the bytes are one.
    pub fn answer(&self, offer: &Offer, bytes: &[u8]) -> Option<Answer> {
        let reply = self.decode(bytes)?;
        (reply.server == offer.server).then_some(())?;
        match reply.kind {
            DhcpMessageType::Nak => Some(Answer::Refused),
            DhcpMessageType::Ack => {
                Some(Answer::Held(reply.lease().filter(|lease| lease.address == offer.address)?))
            }
            _ => None,
        }
    }

    fn decode(&self, bytes: &[u8]) -> Option<Reply> {
        well_formed(bytes)?;
        let message = DhcpPacket::new_checked(bytes).ok()?;
        let ours = message.opcode() == DhcpOpCode::Reply
            && message.transaction_id() == self.xid
            && message.hardware_len() == 6
            && message.client_hardware_address() == EthernetAddress(self.mac);
        ours.then_some(())?;
        let option = |code| message.options().find(|option| option.kind == code);
        let [kind] = option(MESSAGE_TYPE)?.data else { return None };
        let addresses = |code| option(code).map_or(Some(vec![]), |option| addresses(option.data));
        let one = |code| match addresses(code)?.as_slice() {
            [] => Some(None),
            [address] => Some(Some(*address)),
            _ => None,
        };
        Some(Reply {
            kind: DhcpMessageType::from(*kind),
            address: message.your_ip(),
            server: one(SERVER_IDENTIFIER)?.and_then(usable)?,
            mask: one(SUBNET_MASK)?,
            routers: addresses(ROUTERS)?,
            name_servers: addresses(NAME_SERVERS)?,
        })
    }
}

impl Reply {
    fn lease(&self) -> Option<Lease> {
        let name_servers = self.name_servers.iter().copied().filter_map(usable);
        Some(Lease {
            address: usable(self.address)?,
            prefix: prefix(self.mask?)?,
            gateway: self.routers.first().copied().and_then(usable),
            dns: name_servers.map(IpAddr::V4).take(MAX_DNS).collect(),
        })
    }
}

fn encode(message: &DhcpRepr) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    // It fails only for a buffer that is too short, and this one has the length that it asks for.
    let _ = message.emit(&mut DhcpPacket::new_unchecked(bytes.as_mut_slice()));
    bytes
}

/// An option's addresses, if it holds nothing else.
fn addresses(option: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let (addresses, rest) = option.as_chunks::<4>();
    rest.is_empty().then(|| addresses.iter().copied().map(Ipv4Addr::from).collect())
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

/// Whether the options can be read without doubt. The decoder ends at an option that is cut, and
/// takes the first of two.
///
/// Bounds: [`MAX_BYTES`]; an option ends within the message; a doubled option that is read is
/// refused.
fn well_formed(bytes: &[u8]) -> Option<()> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let (fixed, mut options) = bytes.split_at_checked(FIXED_BYTES)?;
    fixed.ends_with(&MAGIC).then_some(())?;
    let mut seen = [false; 256];
    loop {
        options = match options {
            [0, rest @ ..] => rest,
            [] | [255, ..] => return Some(()),
            [code, length, rest @ ..] => {
                let (_, rest) = rest.split_at_checked(usize::from(*length))?;
                let seen = seen.get_mut(usize::from(*code))?;
                (!std::mem::replace(seen, true) || !OPTIONS.contains(code)).then_some(())?;
                rest
            }
            [_] => return None,
        };
    }
}

/// UDP over one card, before it has an address.
struct Broadcast(UdpSocket);

impl Broadcast {
    fn open(card: &str) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DHCP_CLIENT_PORT))?;
        socket.set_broadcast(true)?;
        setsockopt(&socket, sockopt::BindToDevice, &card.into())?;
        Ok(Self(socket))
    }
}

impl Wire for Broadcast {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.send_to(message, (Ipv4Addr::BROADCAST, DHCP_SERVER_PORT)).map(drop)
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
