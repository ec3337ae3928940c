//! Predicts the PCRs of an image from its files alone, and says which events lead to them.
//!
//! ```text
//! cargo run --release -p flare-cvm --example predict_pcr -- LOADER UKI OVMF_VARS
//! ```
//!
//! LOADER is p1's signed boot loader, UKI is p2's signed kernel image, and OVMF_VARS is the bundle's
//! `OVMF_VARS.fd`, whose Secure Boot databases PCR 7 measures. `flare-cvm predict BUNDLE --platform
//! tpm` reads all three from a bundle.

use std::env;

use anyhow::Result;
use cvm_base::read_bounded;
use cvm_image::boot::secure_boot::Databases;
use cvm_predict::{Inputs, tpm};

const MAX_BYTES: u64 = 256 << 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    print!("{}", run(&arguments)?);
    Ok(())
}

/// Each register with its events.
pub fn run(arguments: &[String]) -> Result<String> {
    let [loader, uki, variables] = arguments else {
        anyhow::bail!("usage: predict_pcr LOADER UKI OVMF_VARS");
    };
    let read = |path: &String| read_bounded(path.as_ref(), MAX_BYTES);

    let databases = Databases::read(&read(variables)?)?;
    let prediction = tpm(&Inputs {
        loader: &read(loader)?,
        uki: &read(uki)?,
        pk: &databases.pk,
        kek: &databases.kek,
        db: &databases.db,
        dbx: &databases.dbx,
        authority: &databases.db_authority,
    })?;

    let mut text = String::new();
    for (pcr, value) in &prediction.pcrs {
        text += &format!("PCR {pcr}: {value}\n");
        for event in prediction.explain.iter().filter(|event| event.pcr == *pcr) {
            text += &format!("    {}: {}\n", event.event, event.digest);
        }
    }
    Ok(text)
}
