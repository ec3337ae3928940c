//! Links, addresses and routes through rtnetlink (rtnetlink(7)).

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{LinkFlags, LinkHeader},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;

/// The kernel's number for `lo`.
pub const LOOPBACK: u32 = 1;
/// An acknowledgement repeats the request after a header; requests here take less than 100 bytes.
const REPLY_BYTES: usize = 4096;

/// A conversation with the kernel; every request waits for its acknowledgement.
pub struct Kernel {
    socket: Socket,
}

impl Kernel {
    /// Opens an rtnetlink socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Sets a link up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.request(set_up(index), 0)
    }

    /// Gives a link an IPv4 address.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        if prefix > 32 {
            return Err(io::Error::other(format!("prefix length {prefix}, expected 0 to 32")));
        }
        self.request(new_address(index, address, prefix), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Sets the default route.
    pub fn add_default_route(&mut self, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
        self.request(default_route(index, gateway), NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn request<M: Emitable>(&mut self, request: NetlinkRequest<M>, flags: u16) -> io::Result<()> {
        self.socket.send(&encode(request, NLM_F_REQUEST | NLM_F_ACK | flags), 0)?;
        let mut reply = Vec::with_capacity(REPLY_BYTES);
        self.socket.recv(&mut reply, 0)?;
        let reply = NetlinkMessage::<Unread>::deserialize(&reply).map_err(io::Error::other)?;
        match reply.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            NetlinkPayload::Error(_) => Ok(()),
            _ => Err(io::Error::other(format!(
                "expected an acknowledgement, got {}",
                reply.header.message_type
            ))),
        }
    }
}

/// A request's number (rtnetlink(7)) and body.
///
/// The crate's own type for this can be any message, and brings what reads each of them into
/// PID 1: more code than TLS.
struct NetlinkRequest<M> {
    kind: u16,
    body: M,
}

impl<M: Emitable> NetlinkSerializable for NetlinkRequest<M> {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        self.body.emit(buffer);
    }
}

/// The body of a message that is no acknowledgement: not looked at.
struct Unread;

impl NetlinkDeserializable for Unread {
    type Error = Infallible;

    fn deserialize(_: &NetlinkHeader, _: &[u8]) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

fn set_up(index: u32) -> NetlinkRequest<LinkHeader> {
    let body = LinkHeader {
        index,
        flags: LinkFlags::Up,
        change_mask: LinkFlags::Up,
        ..LinkHeader::default()
    };
    NetlinkRequest { kind: libc::RTM_SETLINK, body }
}

fn new_address(index: u32, address: Ipv4Addr, prefix: u8) -> NetlinkRequest<AddressMessage> {
    let mut body = AddressMessage::default();
    body.header.family = AddressFamily::Inet;
    body.header.prefix_len = prefix;
    body.header.index = index;
    body.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
    ];
    NetlinkRequest { kind: libc::RTM_NEWADDR, body }
}

fn default_route(index: u32, gateway: Ipv4Addr) -> NetlinkRequest<RouteMessage> {
    let mut body = RouteMessage::default();
    body.header.address_family = AddressFamily::Inet;
    body.header.table = RouteHeader::RT_TABLE_MAIN;
    body.header.protocol = RouteProtocol::Boot;
    body.header.scope = RouteScope::Universe;
    body.header.kind = RouteType::Unicast;
    body.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
    NetlinkRequest { kind: libc::RTM_NEWROUTE, body }
}

fn encode(request: impl NetlinkSerializable, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};

    use super::*;

    #[test]
    fn requests_are_the_messages_that_the_crate_makes() {
        let mut link = LinkMessage::default();
        link.header = set_up(3).body;
        let address = || new_address(3, [10, 0, 2, 15].into(), 24);
        let route = || default_route(3, [10, 0, 2, 2].into());
        for (ours, theirs) in [
            (encode(set_up(3), 5), encode(RouteNetlinkMessage::SetLink(link), 5)),
            (encode(address(), 5), encode(RouteNetlinkMessage::NewAddress(address().body), 5)),
            (encode(route(), 5), encode(RouteNetlinkMessage::NewRoute(route().body), 5)),
        ] {
            assert_eq!(ours, theirs);
        }
    }
}
