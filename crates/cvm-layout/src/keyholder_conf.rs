//! `keyholder.yaml` on p4: this server CVM runs a key holder for the clients' CVMs.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{site_conf::ConfError, yaml};

/// The one schema version this program reads and writes.
pub const VERSION: u32 = 1;
/// More than the file needs; longer input is refused unread.
pub const MAX_BYTES: u64 = 4096;
/// The file's name on p4.
pub const FILE: &str = "keyholder.yaml";
/// The party's folder in the `site` volume.
pub const FOLDER: &str = "keyholder";

/// A delegated key holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyHolderConf {
    /// [`VERSION`].
    pub version: u32,
    /// Where it listens, as `0.0.0.0:8443`.
    pub listen: SocketAddr,
}

impl KeyHolderConf {
    /// One that listens on every address of the CVM.
    pub fn on_port(port: u16) -> Self {
        Self { version: VERSION, listen: ([0, 0, 0, 0], port).into() }
    }

    /// Reads and checks the file.
    pub fn parse(text: &[u8]) -> Result<Self, ConfError> {
        let conf: Self = yaml::parse(text).map_err(ConfError::Yaml)?;
        match (conf.version, conf.listen.port()) {
            (VERSION, 1..) => Ok(conf),
            (VERSION, 0) => Err(ConfError::Value {
                key: "listen",
                expected: "a port, 1 to 65535",
                found: conf.listen.to_string(),
            }),
            (other, _) => Err(ConfError::Version(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_provisioning_writes_is_read_strictly() {
        let conf = KeyHolderConf::on_port(8443);
        let yaml = serde_yaml::to_string(&conf).unwrap();
        assert_eq!(yaml, "version: 1\nlisten: 0.0.0.0:8443\n");
        assert_eq!(KeyHolderConf::parse(yaml.as_bytes()).unwrap(), conf);
        for (from, to) in [
            (": 1\n", ": 2\n"),
            ("8443", "0"),
            ("8443", "x"),
            ("listen", "port"),
            ("8443\n", "8443\nmore: 1\n"),
        ] {
            assert!(
                KeyHolderConf::parse(yaml.replacen(from, to, 1).as_bytes()).is_err(),
                "{from:?} to {to:?}"
            );
        }
    }
}
