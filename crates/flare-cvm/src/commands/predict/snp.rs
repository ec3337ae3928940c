//! What SEV-SNP measures: the launch digest.

use std::path::Path;

use anyhow::{Context, Result};
use cvm_base::{Bytes, read_bounded};
use cvm_evidence::{
    ReferenceSet,
    platform::{SnpReference, SnpVariant},
    tcb::TcbFloor,
};
use cvm_image::boot::UKI_PATH;
use cvm_predict::snp::{self, Kernel, LaunchInput, LaunchInputs, VcpuType, Vmm};
use serde_json::{Value, json};

use super::{
    args::{Launcher, Predict},
    files::{MAX_FILE, add_to_set, firmware, from_partition},
};
use crate::problem::Problem;

/// Predicts the launch digest, and explains one that was observed.
pub(super) fn snp(args: &Predict) -> Result<Value> {
    let firmware = firmware(args)?;
    if firmware.starts_with(b"IGVM") {
        return snp_igvm(args, &firmware);
    }
    let uki = if args.direct { Some(from_partition(args, 2, UKI_PATH)?) } else { None };
    let inputs = inputs(args, &firmware, uki.as_deref())?;
    let prediction = snp::launch(&inputs)?;
    let changes = changes(args, &inputs)?;
    add_to_set(args, |set| {
        let variants = snp::variants(&inputs)?
            .into_iter()
            .map(|(change, measurement)| SnpVariant { change: change.to_string(), measurement });
        let (measurement, tcb_floor) = (prediction.measurement, floor(args)?);
        let variants = variants.chain(changes.iter().cloned()).collect();
        let platform = platform(args, inputs.guest_features);
        add_snp(set, SnpReference { platform, measurement, tcb_floor, variants });
        Ok(())
    })?;
    let mut found =
        json!({ "measurement": prediction.measurement, "input": named(&prediction.inputs) });
    if let Some(observed) = observed(args)? {
        let known = changes.iter().find(|variant| variant.measurement == observed);
        found["explained"] = match known {
            Some(variant) => json!(variant.change),
            None => json!(snp::explain(&inputs, &observed)?.to_string()),
        };
    }
    Ok(found)
}

fn inputs<'a>(
    args: &Predict,
    firmware: &'a [u8],
    uki: Option<&'a [u8]>,
) -> Result<LaunchInputs<'a>> {
    let Some(vcpu_type) = VcpuType::from_model(&args.vcpu_type) else {
        let known: Vec<_> = VcpuType::models().map(|model| model.to_string()).collect();
        return Problem::result(
            "CLI-023",
            format!("{:?} is not a known vCPU type", args.vcpu_type),
            format!("one of {}", known.join(", ")),
        );
    };
    let features = u64::from_str_radix(args.guest_features.trim_start_matches("0x"), 16)
        .with_context(|| format!("{:?} is not a number in hex", args.guest_features))?;
    Ok(LaunchInputs {
        firmware,
        kernel: uki.map(|image| Kernel { image, initrd: &[], command_line: "" }),
        vcpus: args.vcpus,
        vcpu_type,
        guest_features: features,
        vmm: match args.vmm {
            Launcher::Qemu => Vmm::Qemu,
            Launcher::Ec2 => Vmm::Ec2,
            Launcher::Gce => Vmm::Gce,
        },
    })
}

/// The changes that the command line names, each with the digest that it alone leads to.
fn changes(args: &Predict, inputs: &LaunchInputs) -> Result<Vec<SnpVariant>> {
    let mut changes = Vec::new();
    for path in &args.also_firmware {
        let firmware = read_bounded(path, MAX_FILE)?;
        let measurement =
            snp::launch(&LaunchInputs { firmware: &firmware, ..*inputs })?.measurement;
        changes.push(SnpVariant { change: other_firmware(path), measurement });
    }
    for command_line in &args.also_command_line {
        let Some(kernel) = inputs.kernel else { continue };
        let kernel = Some(Kernel { command_line, ..kernel });
        let change = format!("the command line changed: the host gave {command_line:?}");
        let measurement = snp::launch(&LaunchInputs { kernel, ..*inputs })?.measurement;
        changes.push(SnpVariant { change, measurement });
    }
    Ok(changes)
}

fn other_firmware(path: &Path) -> String {
    format!(
        "the host started the firmware {}, newer or older than the one predicted",
        path.display()
    )
}

/// What the reference set calls a host that is started like this.
fn platform(args: &Predict, features: u64) -> String {
    let started = if args.direct { "direct" } else { "disk" };
    format!(
        "{:?}, {}, {} vCPUs, features {features:#x}, {started}",
        args.vmm, args.vcpu_type, args.vcpus
    )
}

/// Every input with its value.
fn named(inputs: &[LaunchInput]) -> Vec<String> {
    inputs.iter().map(|input| format!("{} = {}", input.name, input.value)).collect()
}

/// Predicts for firmware in an IGVM file, which states everything itself.
fn snp_igvm(args: &Predict, firmware: &[u8]) -> Result<Value> {
    if args.direct || args.vcpus != 1 || args.vmm != Launcher::Qemu {
        return Problem::result(
            "CLI-028",
            "an IGVM file states itself what a guest starts with: no other kernel, one vCPU, under \
             QEMU",
            "leave --direct, --vcpus and --vmm out, or give OVMF",
        );
    }
    let prediction = snp::launch_igvm(firmware)?;
    let mut variants = Vec::new();
    for path in &args.also_firmware {
        let measurement = snp::launch_igvm(&read_bounded(path, MAX_FILE)?)?.measurement;
        variants.push(SnpVariant { change: other_firmware(path), measurement });
    }
    let mut found =
        json!({ "measurement": prediction.measurement, "input": named(&prediction.inputs) });
    if let Some(observed) = observed(args)? {
        let known = variants.iter().find(|variant| variant.measurement == observed);
        found["explained"] = match known {
            _ if observed == prediction.measurement => {
                json!("the launch digest is the predicted one")
            }
            Some(variant) => json!(variant.change),
            None => json!("another IGVM file: nothing else goes into this launch digest"),
        };
    }
    add_to_set(args, |set| {
        let (measurement, tcb_floor) = (prediction.measurement, floor(args)?);
        add_snp(
            set,
            SnpReference { platform: "Qemu, IGVM".into(), measurement, tcb_floor, variants },
        );
        Ok(())
    })?;
    Ok(found)
}

/// The least firmware that is accepted: a launch digest says nothing about the firmware of the host
/// that made it.
fn floor(args: &Predict) -> Result<TcbFloor> {
    if args.min_tcb.is_empty() {
        return Problem::result(
            "CLI-032",
            "no least firmware was stated for the SEV-SNP machines of this reference set",
            "give --min-tcb once per product and stepping, such as milan-b1=4.0.24.219: \
             docs/tcb.md says where to find the numbers",
        );
    }
    TcbFloor::merge(args.min_tcb.iter().cloned()).context("--min-tcb")
}

/// Replaces an earlier prediction for the same platform.
fn add_snp(set: &mut ReferenceSet, reference: SnpReference) {
    set.snp.retain(|known| known.platform != reference.platform);
    set.snp.push(reference);
}

fn observed(args: &Predict) -> Result<Option<Bytes<48>>> {
    let parsed = args.observed.as_deref().map(str::parse).transpose();
    parsed.context("--observed is not an SNP measurement: 96 hex digits")
}
