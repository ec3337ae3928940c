//! What TDX measures: MRTD and the RTMRs.

use std::path::Path;

use anyhow::Result;
use cvm_base::read_bounded;
use cvm_evidence::{ReferenceSet, platform::TdxReference, rtmr::sha384};
use cvm_predict::tdx::{self, Acpi, Boot, PageOrder, Prediction, TdxInputs};
use serde_json::{Value, json};

use super::{
    args::{Pages, Predict},
    files::{BundleFiles, MAX_FILE, add_to_set, firmware},
};
use crate::problem::Problem;

/// The digests of the ACPI tables that QEMU gives to the firmware.
fn acpi(folder: &Path) -> Result<Acpi> {
    let digest =
        |name: &str| Ok::<_, anyhow::Error>(sha384(&read_bounded(&folder.join(name), MAX_FILE)?));
    Ok(Acpi { loader: digest("table-loader")?, rsdp: digest("rsdp")?, tables: digest("tables")? })
}

/// Predicts MRTD and the RTMRs, and says why a register cannot be predicted.
pub(super) fn tdx(args: &Predict) -> Result<Value> {
    let (firmware, files) = (firmware(args)?, BundleFiles::read(args)?);
    let inputs = files.inputs();
    let boot = match args.direct {
        true => Boot::Direct { kernel: &files.uki, command_line: "", initrd: &[] },
        false => Boot::Disk { inputs: &inputs, gpt: Some(&files.gpt) },
    };
    let mut prediction = tdx::tdx(&TdxInputs {
        firmware: &firmware,
        pages: match args.pages {
            Pages::Page => PageOrder::PageByPage,
            Pages::Section => PageOrder::SectionBySection,
        },
        memory: args.memory.map(|mib| mib << 20),
        acpi: args.acpi.as_deref().map(acpi).transpose()?,
        boot,
    })?;
    take_registers(args, &mut prediction)?;
    add_to_set(args, |set| add_tdx(args, set, &prediction))?;
    let rtmrs = (0..)
        .zip(&prediction.rtmrs)
        .filter_map(|(n, value)| Some((format!("{n}"), json!(value.as_ref()?))));
    let events =
        prediction.explain.iter().map(|e| format!("RTMR{} {} {}", e.rtmr, e.digest, e.event));
    let mut named = files.named();
    named.push(format!("firmware = sha256 {}", cvm_base::sha256(&firmware)));
    Ok(json!({
        "mrtd": prediction.mrtd,
        "rtmr": Value::Object(rtmrs.collect()),
        "event": events.collect::<Vec<_>>(),
        "not_predicted": missing(&prediction),
        "input": named,
    }))
}

/// Takes the registers of `--rtmr`: only the owner of the host knows what its devices lead to.
fn take_registers(args: &Predict, prediction: &mut Prediction) -> Result<()> {
    for text in &args.rtmr {
        let named = text
            .split_once('=')
            .and_then(|(n, value)| Some((n.parse::<u8>().ok()?, value.parse().ok()?)));
        let slot = named
            .and_then(|(n, value)| Some((n, prediction.rtmrs.get_mut(usize::from(n))?, value)));
        let Some((n, slot, value)) = slot else {
            return Problem::result(
                "CLI-026",
                format!("{text:?} is not a register"),
                "write --rtmr 0=HEX, with 96 digits",
            );
        };
        *slot = Some(value);
        prediction.not_predicted.retain(|missing| missing.rtmr != n);
    }
    Ok(())
}

/// The registers that are not predicted, each with the reason.
fn missing(prediction: &Prediction) -> Vec<String> {
    prediction.not_predicted.iter().map(|n| format!("RTMR{}: {}", n.rtmr, n.reason)).collect()
}

/// Replaces an earlier prediction for the same platform.
fn add_tdx(args: &Predict, set: &mut ReferenceSet, prediction: &Prediction) -> Result<()> {
    let [Some(rtmr0), Some(rtmr1), Some(rtmr2), Some(rtmr3)] = prediction.rtmrs else {
        return Problem::result(
            "CLI-025",
            format!("no reference without all registers: {}", missing(prediction).join("; ")),
            "give the value that this host's configuration leads to with --rtmr N=HEX",
        );
    };
    let platform = format!(
        "{}, {} MiB",
        if args.direct { "direct" } else { "disk" },
        args.memory.unwrap_or_default()
    );
    set.tdx.retain(|known| known.platform != platform);
    set.tdx.push(TdxReference {
        platform,
        mrtd: prediction.mrtd,
        rtmr0,
        rtmr1,
        rtmr2,
        rtmr3,
        events: prediction.explain.clone(),
    });
    Ok(())
}
