//! Invariant 1: no cleartext partition holds a secret. Searched in the finished bytes, not in the
//! sources, so that nothing on the way can add one unseen.

use std::path::PathBuf;

use cvm_ceremony::{Keys, split_key::Purpose};

use super::ProvisionError;
use crate::stage::{
    kit::SplitKit,
    secrets::{Needles, scan_file, scan_programs},
};

/// Fails on the first partition that holds the kit's private keys, one of the image's keys, or
/// anything that looks like a private key.
pub(super) fn search(
    partitions: &[(&'static str, PathBuf)],
    kit: &SplitKit,
    keys: &Keys,
) -> Result<(), ProvisionError> {
    let mut needles = Needles::default();
    for (name, pem) in &kit.private_keys {
        needles.add_pem(name, pem);
    }
    for purpose in Purpose::ALL {
        needles.add(&format!("the key `{}`", purpose.as_str()), keys.get(purpose).as_bytes());
    }
    for (partition, image) in partitions {
        let programs = matches!(*partition, "p1" | "p2");
        let findings = if programs { scan_programs(image, &needles) } else { scan_file(image, &needles) }?;
        if let Some(finding) = findings.first() {
            let found = format!("{} ({})", finding.what, finding.place);
            return Err(ProvisionError::Secret { partition, found });
        }
    }
    Ok(())
}
