//! Invariant 1: no cleartext partition holds a secret. The search is in the finished bytes and not
//! in the sources, so that no step can add a secret unseen.

use std::path::{Path, PathBuf};

use cvm_ceremony::{Keys, split_key::Purpose};

use super::{Delegate, ProvisionError};
use crate::WorkError;
use crate::stage::{
    kit::SplitKit,
    secrets::{Finding, Needles, scan_file, scan_program_bytes, scan_programs},
};

/// Fails on the first partition that holds one of the kit's private keys, a delegate's secrets or
/// the image's keys, or anything that looks like a private key. `initramfs` is p2's archive, which
/// is searched unpacked because compression would hide a secret.
pub(super) fn search(
    partitions: &[(&'static str, PathBuf)],
    initramfs: &[u8],
    kit: &SplitKit,
    delegate: Option<&Delegate>,
    keys: &Keys,
) -> Result<(), ProvisionError> {
    let mut needles = Needles::default();
    for (name, pem) in &kit.private_keys {
        needles.add_pem(name, pem);
    }
    for (name, secret) in delegate.into_iter().flat_map(Delegate::secrets) {
        needles.add_pem(&name, &secret);
    }
    for purpose in Purpose::ALL {
        needles.add(&format!("the key `{}`", purpose.as_str()), keys.get(purpose).as_bytes());
    }
    search_for(&needles, partitions, initramfs)
}

pub(super) fn search_for(
    needles: &Needles,
    partitions: &[(&'static str, PathBuf)],
    initramfs: &[u8],
) -> Result<(), ProvisionError> {
    for (partition, image) in partitions {
        let programs = matches!(*partition, "p1" | "p2");
        let findings =
            if programs { scan_programs(image, needles) } else { scan_file(image, needles) }?;
        none(partition, &findings)?;
    }
    let unpacked =
        zstd::decode_all(initramfs).map_err(WorkError::io("unpack", Path::new("the initramfs")))?;
    none("p2", &scan_program_bytes("initramfs", &unpacked, needles))
}

fn none(partition: &'static str, findings: &[Finding]) -> Result<(), ProvisionError> {
    match findings.first() {
        Some(finding) => Err(ProvisionError::Secret {
            partition,
            found: format!("{} ({})", finding.what, finding.place),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cvm_base::Explain;

    use super::*;

    #[test]
    fn attack_a_key_hidden_by_the_initramfs_compression() {
        let line = "MC4CAQAwBQYDK2VwBCIEIFiDq2f0PJ0x3T9NVvCbM8yQJc1vJbWd0i0V5dYt0hXk";
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{line}\n-----END PRIVATE KEY-----\n");
        let key: [u8; 32] = std::array::from_fn(|i| (i as u8).wrapping_mul(37));
        let mut needles = Needles::default();
        needles.add_pem("server.key", pem.as_bytes());
        needles.add("the key `jobs`", &key);
        let archive = |content: &[u8]| zstd::bulk::compress(content, 12).unwrap();
        search_for(&needles, &[], &archive(b"no secret")).unwrap();
        for secret in [pem.as_bytes(), line.as_bytes(), &key] {
            let hidden = archive(&[b"lead ".as_slice(), secret, &[b' '; 4096]].concat());
            let error = search_for(&needles, &[], &hidden).unwrap_err();
            assert_eq!(error.code(), "PRO-006", "{error}");
            assert!(
                error.to_string().starts_with("p2 would")
                    && error.to_string().contains("initramfs"),
                "{error}"
            );
        }
    }
}
