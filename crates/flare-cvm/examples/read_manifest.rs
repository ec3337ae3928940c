//! Reads an image's manifest: only after the builder's signature, with the key that an agreement
//! names.
//!
//! ```text
//! cargo run --release -p flare-cvm --example read_manifest -- AGREEMENT MANIFEST
//! ```
//!
//! AGREEMENT is the ceremony's `agreement.txt`. MANIFEST is a bundle's `manifest.json`, with
//! `manifest.sig` beside it.

use std::{env, path::Path};

use anyhow::{Context, Result};
use cvm_base::read_bounded;
use cvm_ceremony::Agreement;
use cvm_layout::{
    manifest::{MAX_BYTES, Manifest},
    signed::{self, Kind},
};
use ed25519_dalek::VerifyingKey;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    print!("{}", run(&arguments)?);
    Ok(())
}

/// Which image it is, and who holds its halves.
pub fn run(arguments: &[String]) -> Result<String> {
    let [agreement, manifest] = arguments else {
        anyhow::bail!("usage: read_manifest AGREEMENT MANIFEST");
    };

    // `Agreement::parse` checks every party's signature. Compare its fingerprint with the one that
    // the parties read to each other.
    let agreement = read_bounded(agreement.as_ref(), cvm_ceremony::MAX_BYTES)?;
    let agreement = Agreement::parse(&agreement)?;
    let mut text = format!("agreement: {}\n", agreement.fingerprint());

    // Signature first: nothing of an unsigned document is parsed.
    let path = Path::new(manifest);
    let bytes = read_bounded(path, MAX_BYTES)?;
    let signature: [u8; 64] = read_bounded(&path.with_extension("sig"), 64)?
        .try_into()
        .map_err(|_| anyhow::anyhow!("manifest.sig has not 64 bytes"))?;
    let builder = VerifyingKey::from_bytes(&agreement.builder().identity.0)?;
    signed::verify(&builder, Kind::Manifest, &bytes, &signature)
        .with_context(|| format!("{manifest} is not signed by {}", agreement.builder().name))?;

    let manifest: Manifest = serde_json::from_slice(&bytes)?;
    manifest.check_version().map_err(anyhow::Error::msg)?;
    text += &format!("image: {} ({}, {})\n", manifest.image_id, manifest.site, manifest.role);
    for party in &manifest.split_key.parties {
        text += &format!("half of: {} at {}\n", party.name, party.keyholder.url);
    }
    Ok(text)
}
