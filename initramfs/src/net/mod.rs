//! The network, just enough of it to reach the key holders: one card, one IPv4 address.

pub mod card;
pub mod dhcp;
pub mod files;
pub mod link;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use cvm_layout::site_conf::Network;

use crate::codes::{Code, Coded, Failure};
use crate::platform::{sysctl, wait};
use card::Card;

/// An address in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The card's IPv4 address.
    pub address: Ipv4Addr,
    /// Length of its network's prefix, 0 to 32.
    pub prefix: u8,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)?;
        self.gateway.iter().try_for_each(|gateway| write!(f, ", gateway {gateway}"))?;
        self.dns.iter().try_for_each(|server| write!(f, ", DNS {server}"))
    }
}

/// Brings the first card up with an address by the site's settings.
pub fn up(network: &Network) -> Result<(Card, Lease), Failure> {
    let card = Card::find()?;
    let mut kernel = link::Kernel::open().code(Code::NetworkSetup)?;
    kernel.set_up(link::LOOPBACK).code_at(Code::NetworkSetup, "lo")?;
    sysctl::of_card(&card.name)?;
    kernel.set_up(card.index).code_at(Code::NetworkSetup, &card.name)?;
    card.wait_for_link();
    let lease = match network {
        Network::Dhcp {} => dhcp::lease(&card)?,
        Network::Static { address, prefix, gateway, dns } => {
            Lease { address: *address, prefix: *prefix, gateway: *gateway, dns: dns.clone() }
        }
    };
    kernel
        .add_address(card.index, lease.address, lease.prefix)
        .code_at(Code::NetworkSetup, lease.address)?;
    if let Some(gateway) = lease.gateway {
        kernel
            .add_default_route(card.index, gateway)
            .code_at(Code::NetworkSetup, format_args!("route via {gateway}"))?;
    }
    Ok((card, lease))
}
