//! The network card, found in sysfs.

use std::{fs, path::PathBuf};

use crate::{
    codes::{Code, Failure},
    platform::wait,
};

const FOLDER: &str = "/sys/class/net";
/// `<linux/if_arp.h>`: ARPHRD_ETHER.
const ETHERNET: &str = "1";

/// The one network card of the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
}

impl Card {
    /// Waits for the first Ethernet card, in the order of the kernel's numbers.
    pub fn find() -> Result<Self, Failure> {
        wait::until(wait::NETWORK_DEVICE, || {
            let names =
                fs::read_dir(FOLDER).into_iter().flatten().flatten().map(|entry| entry.file_name());
            let cards = names.filter_map(|name| Self::read(name.into_string().ok()?));
            cards.min_by_key(|card| card.index).ok_or("no Ethernet card in /sys/class/net")
        })
        .map_err(|e| Failure::new(Code::NoNetworkDevice, e))
    }

    fn read(name: String) -> Option<Self> {
        let attribute =
            |file: &str| Some(fs::read_to_string(path(&name, file)).ok()?.trim_ascii().to_owned());
        (attribute("type")? == ETHERNET).then_some(())?;
        let index = attribute("ifindex")?.parse().ok()?;
        let mac = parse_mac(&attribute("address")?)?;
        Some(Self { name, index, mac })
    }

    /// Waits until the link is up, a while: a card that cannot tell is used all the same.
    pub fn wait_for_link(&self) {
        let carrier = || {
            fs::read_to_string(path(&self.name, "carrier"))
                .ok()
                .filter(|text| text.trim_ascii() == "1")
                .ok_or(())
        };
        // The outcome does not matter: without a link DHCP or the key holders' deadline will tell.
        let _ = wait::until(wait::LINK, carrier);
    }
}

fn path(name: &str, file: &str) -> PathBuf {
    PathBuf::from_iter([FOLDER, name, file])
}

/// `52:54:00:12:34:56`.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = parts
            .next()
            .filter(|part| part.len() == 2)
            .and_then(|part| u8::from_str_radix(part, 16).ok())?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_has_six_bytes() {
        assert_eq!(parse_mac("52:54:00:12:34:ff"), Some([0x52, 0x54, 0, 0x12, 0x34, 0xff]));
        for bad in
            ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "5:4:0:1:3:5", "+5:54:00:12:34:zz"]
        {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
