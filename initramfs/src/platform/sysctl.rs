//! The kernel's settings, set from the first program on: systemd would set them only after a card
//! is up and a console answers.
//!
//! The list is the running system's own. systemd-sysctl sets it again, where a module has brought
//! more settings.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::codes::{Code, Coded, Failure};

/// Compiled in, so that the measured binary says what holds.
const LIST: &str =
    include_str!("../../../stages/nvidia_cc_base/rootfs/etc/sysctl.d/60-sealed.conf");
const FOLDER: &str = "/proc/sys";
/// Not set here: with it, a card without an address would drop the DHCP server's answer.
const LATER: &str = "rp_filter";
/// The name in which the kernel keeps what a card begins with.
const DEFAULT: &str = "default";

/// The settings hold; [`super::modules::load`] needs them first.
#[derive(Debug)]
pub struct Applied(());

/// Sets the list, before the network card's module is loaded.
pub fn apply() -> Result<Applied, Failure> {
    set(Path::new(FOLDER), settings().map(|(name, value)| (name.into(), value)))?;
    Ok(Applied(()))
}

/// Sets for one card what the list has for new ones: the kernel may have had it before.
pub fn of_card(name: &str) -> Result<(), Failure> {
    set(Path::new(FOLDER), card_settings(name))
}

/// Names as paths below `/proc/sys`, with their values.
fn settings() -> impl Iterator<Item = (String, &'static str)> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()));
    pairs
        .filter(|(name, _)| !name.ends_with(LATER))
        .map(|(name, value)| (name.replace('.', "/"), value))
}

fn card_settings(card: &str) -> impl Iterator<Item = (PathBuf, &'static str)> {
    settings().filter_map(move |(name, value)| {
        let (family, setting) = name.split_once(&format!("/conf/{DEFAULT}/"))?;
        Some((PathBuf::from_iter([family, "conf", card, setting]), value))
    })
}

/// A setting that this kernel lacks has nothing to switch off; one that it refuses ends the boot.
fn set(
    folder: &Path,
    settings: impl Iterator<Item = (PathBuf, &'static str)>,
) -> Result<(), Failure> {
    for (name, value) in settings {
        match fs::OpenOptions::new().write(true).open(folder.join(&name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            file => file
                .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
                .code_at(Code::Setting, format_args!("{} = {value}", name.display()))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_sysrq_and_router_advertisements_before_systemd_sets_anything() {
        let all: Vec<_> = settings().collect();
        for (name, value) in [
            ("kernel/sysrq", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            ("net/ipv6/conf/default/accept_redirects", "0"),
            ("net/ipv4/conf/default/accept_redirects", "0"),
        ] {
            assert!(all.contains(&(name.to_owned(), value)), "{name}");
        }
        assert!(
            !LIST
                .lines()
                .filter(|l| !l.starts_with('#') && !l.is_empty())
                .any(|line| !line.contains(" = "))
        );
        let card: Vec<_> = card_settings("eth0").collect();
        assert!(card.contains(&("net/ipv6/conf/eth0/accept_ra".into(), "0")), "{card:?}");
        assert!(card.iter().all(|(name, _)| name.iter().any(|part| part == "eth0")), "{card:?}");
    }

    #[test]
    fn what_the_kernel_lacks_is_passed_over_and_what_it_refuses_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("known"), "438").unwrap();
        set(folder.path(), [("known".into(), "0"), ("unknown".into(), "0")].into_iter()).unwrap();
        assert!(fs::read_to_string(folder.path().join("known")).unwrap().starts_with('0'));
        assert!(!folder.path().join("unknown").exists());
        fs::create_dir(folder.path().join("refused")).unwrap();
        let failure = set(folder.path(), [("refused".into(), "0")].into_iter()).unwrap_err();
        assert!(
            failure.code == Code::Setting && failure.detail.contains("refused = 0"),
            "{failure}"
        );
    }
}
