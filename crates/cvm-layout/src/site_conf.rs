//! `site_conf.yaml` on p4 (verity-protected) and `endpoints.yaml` on p1 (host-writable).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};

use crate::names::{Name, Role};

/// How the site's CVM behaves; read from p4 after its verity tree is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteConf {
    /// 1.
    pub version: u32,
    /// The site's name.
    pub site: Name,
    /// What it does.
    pub role: Role,
    /// Its network.
    #[serde(default)]
    pub network: Network,
    /// Names that the CVM resolves without DNS.
    #[serde(default)]
    pub hosts_entries: BTreeMap<String, IpAddr>,
    /// TCP ports that others may open.
    #[serde(default)]
    pub allowed_ports: Vec<u16>,
    /// TCP ports that the CVM may open elsewhere.
    #[serde(default)]
    pub allowed_out_ports: Vec<u16>,
    /// `http://HOST:PORT` of a proxy for the key holders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// How the CVM's one interface gets its address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "mode", rename_all = "snake_case")]
pub enum Network {
    /// DHCPv4.
    #[default]
    Dhcp,
    /// Fixed.
    Static {
        /// IPv4 address.
        address: Ipv4Addr,
        /// Length of the network's prefix, 0 to 32.
        prefix: u8,
        /// Default gateway.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gateway: Option<Ipv4Addr>,
        /// Name servers.
        #[serde(default)]
        dns: Vec<IpAddr>,
    },
}

/// Where key holders are today. Anybody with the disk may change it: it can misdirect, never
/// impersonate, because the manifest pins each key holder's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoints {
    /// 1.
    pub version: u32,
    /// Party → `https://HOST:PORT`.
    #[serde(default)]
    pub keyholders: BTreeMap<Name, String>,
    /// Overrides [`SiteConf::proxy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}
