//! The files that tell resolvers and the running system about the network.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use cvm_layout::{names::Name, site_conf::Network};

use super::lease::Lease;

/// `resolv.conf`. The options bound a lookup: two tries of two seconds at each server.
pub fn resolv_conf(lease: &Lease) -> String {
    let mut text = String::new();
    for server in &lease.dns {
        let _ = writeln!(text, "nameserver {server}"); // a String takes everything
    }
    text + "options timeout:2 attempts:2\n"
}

/// `hosts`: loopback, the site's own name, and the site's entries (whose names `SiteConf::parse`
/// has checked).
pub fn hosts(site: &Name, entries: &BTreeMap<String, IpAddr>) -> String {
    let mut text = format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {site}\n");
    for (name, address) in entries {
        let _ = writeln!(text, "{address} {name}");
    }
    text
}

/// systemd-networkd's settings for the card, so that the running system keeps or renews the
/// address.
pub fn networkd(card: &str, network: &Network, lease: &Lease) -> String {
    let mut text =
        format!("[Match]\nName={card}\n\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n");
    match network {
        Network::Dhcp {} => text += "DHCP=ipv4\n\n[DHCPv4]\nUseDNS=no\nUseHostname=no\n",
        Network::Static { .. } => {
            let _ = writeln!(text, "Address={}/{}", lease.address, lease.prefix);
            if let Some(gateway) = lease.gateway {
                let _ = writeln!(text, "Gateway={gateway}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        Lease {
            address: [10, 0, 2, 15].into(),
            prefix: 24,
            gateway: Some([10, 0, 2, 2].into()),
            dns: vec![IpAddr::from([10, 0, 2, 3])],
        }
    }

    #[test]
    fn files_say_what_the_lease_says() {
        assert_eq!(resolv_conf(&lease()), "nameserver 10.0.2.3\noptions timeout:2 attempts:2\n");
        let entries = BTreeMap::from([("owner.example".to_owned(), IpAddr::from([10, 0, 2, 2]))]);
        let hosts = hosts(&"server1".parse().unwrap(), &entries);
        assert_eq!(
            hosts,
            "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 server1\n10.0.2.2 owner.example\n"
        );
        assert!(networkd("eth0", &Network::default(), &lease()).contains("DHCP=ipv4\n"));
        let fixed = Network::Static {
            address: [10, 0, 2, 15].into(),
            prefix: 24,
            gateway: None,
            dns: vec![],
        };
        assert!(
            networkd("eth0", &fixed, &lease())
                .ends_with("Address=10.0.2.15/24\nGateway=10.0.2.2\n")
        );
    }
}
