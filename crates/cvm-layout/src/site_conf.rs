//! `site_conf.yaml` on p4 (verity-protected) and `endpoints.yaml` on p1 (host-writable).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use cvm_base::Explain;
use serde::{Deserialize, Serialize};

use crate::{
    names::{Name, Role},
    yaml,
};

/// The one schema version this program reads and writes, of both files.
pub const VERSION: u32 = 1;
/// More bytes than either file needs; longer input is refused unread.
pub const MAX_BYTES: u64 = 64 * 1024;

/// Why a `site_conf.yaml` is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// Not YAML, or not of this shape; the text names the key.
    #[error("the site configuration is not readable: {0}")]
    Yaml(String),
    /// Another schema.
    #[error("version: expected {VERSION}, found {0}")]
    Version(u32),
    /// A value breaks a rule.
    #[error("{key}: expected {expected}, found {found:?}")]
    Value {
        /// The key.
        key: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What is there.
        found: String,
    },
}

impl Explain for ConfError {
    fn code(&self) -> &'static str {
        match self {
            Self::Yaml(_) => "CONF-001",
            Self::Version(_) => "CONF-002",
            Self::Value { .. } => "CONF-003",
        }
    }

    fn help(&self) -> String {
        "the keys are version, site, role, network, hosts_entries, allowed_ports, \
         allowed_out_ports, allowed_out_udp_ports, proxy; the documentation of \
         cvm_layout::site_conf::SiteConf says what each takes"
            .into()
    }
}

/// How the site's CVM behaves; read from p4 after its verity tree is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteConf {
    /// [`VERSION`].
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
    /// UDP ports that the CVM may send to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_out_udp_ports: Vec<u16>,
    /// `http://HOST:PORT` of a proxy for the key holders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

impl SiteConf {
    /// Reads and checks `site_conf.yaml`.
    pub fn parse(yaml: &[u8]) -> Result<Self, ConfError> {
        let conf: Self = yaml::parse(yaml).map_err(ConfError::Yaml)?;
        conf.check()?;
        Ok(conf)
    }

    /// Checks what the types alone do not.
    pub fn check(&self) -> Result<(), ConfError> {
        let bad = |key, expected, found: &dyn ToString| {
            Err(ConfError::Value { key, expected, found: found.to_string() })
        };
        if self.version != VERSION {
            return Err(ConfError::Version(self.version));
        }
        if let Some(name) = self.hosts_entries.keys().find(|name| !is_host_name(name)) {
            return bad("hosts_entries", "host names: letters, digits, '-' and '.'", name);
        }
        match &self.network {
            Network::Static { prefix, .. } if *prefix > 32 => {
                bad("network.prefix", "0 to 32", prefix)
            }
            _ if self.allowed_ports.contains(&0) => bad("allowed_ports", "1 to 65535", &0),
            _ if self.allowed_out_ports.contains(&0) => bad("allowed_out_ports", "1 to 65535", &0),
            _ if self.allowed_out_udp_ports.contains(&0) => {
                bad("allowed_out_udp_ports", "1 to 65535", &0)
            }
            _ => Ok(()),
        }
    }
}

/// Whether `name` may be in a hosts file (RFC 952, RFC 1123; with underscores, which names of
/// Docker's have).
pub fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && !label.starts_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// How the CVM's one interface gets its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "mode", rename_all = "snake_case")]
pub enum Network {
    /// DHCPv4. Not a unit variant: beside the tag of one, serde lets unknown keys pass.
    Dhcp {},
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

impl Default for Network {
    fn default() -> Self {
        Self::Dhcp {}
    }
}

/// Where key holders are today. Anybody with the disk may change it. That can send the CVM to a
/// wrong address, but nobody can pose as a key holder: the manifest pins each one's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoints {
    /// [`VERSION`].
    pub version: u32,
    /// Party → `https://HOST:PORT`.
    #[serde(default)]
    pub keyholders: BTreeMap<Name, String>,
    /// Overrides [`SiteConf::proxy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_strictly() {
        let good = "version: 1\nsite: server1\nrole: server\nallowed_ports: [8002]\n";
        assert_eq!(SiteConf::parse(good.as_bytes()).unwrap().network, Network::Dhcp {});
        for (extra, problem) in [
            ("alowed_ports: [1]\n", "alowed_ports"),
            ("hosts_entries: {'a b': 10.0.0.1}\n", "a b"),
            ("network: {mode: static, address: 10.0.0.2, prefix: 33}\n", "network.prefix"),
            ("network: {mode: dhcp, address: 10.0.0.2}\n", "address"),
            ("network: {mode: static, address: 10.0.0.2, prefix: 24, typo: 1}\n", "typo"),
            ("network: {mode: other}\n", "other"),
            ("allowed_out_ports: [0]\n", "allowed_out_ports"),
        ] {
            let error = SiteConf::parse(format!("{good}{extra}").as_bytes()).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
        assert_eq!(
            SiteConf::parse(format!("{good}network: {{mode: dhcp}}\n").as_bytes()).unwrap().network,
            Network::default()
        );
        assert!(SiteConf::parse(good.replace("version: 1", "version: 2").as_bytes()).is_err());
    }
}
