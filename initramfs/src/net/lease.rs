//! What a network card is given to work with.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

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
