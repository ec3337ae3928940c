//! `flare-cvm predict`: what a machine will measure, from the bundle alone.

mod args;
mod files;
mod snp;
mod tdx;
mod tpm;

use anyhow::Result;
use serde_json::Value;

use super::progress::line;
use args::Platform;

pub use args::Predict;

/// Predicts and prints.
pub fn run(args: Predict) -> Result<()> {
    let prediction = match args.platform {
        Platform::Tpm => tpm::tpm(&args)?,
        Platform::Snp => snp::snp(&args)?,
        Platform::Tdx => tdx::tdx(&args)?,
    };
    if args.json {
        line(&serde_json::to_string_pretty(&prediction)?);
        return Ok(());
    }
    for (name, value) in prediction.as_object().into_iter().flatten() {
        match value {
            Value::Object(members) => members
                .iter()
                .for_each(|(member, value)| line(&format!("{name} {member}: {}", text(value)))),
            Value::Array(items) => {
                items.iter().for_each(|item| line(&format!("{name}: {}", text(item))))
            }
            value => line(&format!("{name}: {}", text(value))),
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
