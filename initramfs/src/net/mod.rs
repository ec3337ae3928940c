//! The network, just enough of it to reach the key holders: one card, one IPv4 address.

pub mod card;
pub mod dhcp;
pub mod files;
pub mod lease;
pub mod link;

use cvm_layout::site_conf::Network;

use self::{card::Card, lease::Lease};
use crate::{
    codes::{Code, Coded, Failure},
    console::step,
    platform::sysctl,
};

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
    step("network", format_args!("{}: {lease}", card.name));
    Ok((card, lease))
}
