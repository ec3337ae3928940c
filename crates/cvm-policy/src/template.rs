//! The three policies of a bundle, filled from reference values.

use std::collections::BTreeMap;

use cvm_base::Bytes32;
use serde_json::{Value, json};

use super::PolicyError;
use cvm_evidence::{
    platform::{AzureTee, SnpReference, after_handoff},
    reference_set::ReferenceSet,
    rtmr::{self, Bytes48},
};

/// When a policy is asked, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Boot,
    Own,
    Cross,
}

/// Writes the policies for an image: `boot.rego` (a key holder: may this machine have its half?),
/// `self.rego` (the machine: am I still what was built?) and `cross.rego` (a peer, or an auditor:
/// is the other one what was built?).
///
/// Values stand in the policies themselves, so that a policy's digest, which the parties sign,
/// covers them.
///
/// # Errors
/// [`PolicyError::Reference`] for a set without values of any CPU, and with SEV-SNP platforms of
/// which it states no least TCB.
pub fn new_policies(reference: &ReferenceSet) -> Result<[(&'static str, String); 3], PolicyError> {
    if reference.tpm.is_none()
        && reference.snp.is_empty()
        && reference.tdx.is_empty()
        && reference.azure.is_empty()
    {
        let problem =
            "they name no tpm, snp, tdx or azure: such a policy would refuse every machine".into();
        return Err(PolicyError::Reference { problem });
    }
    if let Some(platform) = reference.without_floor() {
        let problem = format!(
            "they state no tcb_floor of {platform:?}: such a policy would refuse its machines"
        );
        return Err(PolicyError::Reference { problem });
    }
    let write = |purpose| text(reference, purpose);
    Ok([
        ("boot.rego", write(Purpose::Boot)),
        ("self.rego", write(Purpose::Own)),
        ("cross.rego", write(Purpose::Cross)),
    ])
}

fn text(reference: &ReferenceSet, purpose: Purpose) -> String {
    let intro = match purpose {
        Purpose::Boot => BOOT,
        Purpose::Own => OWN,
        Purpose::Cross => CROSS,
    };
    // With GPUs the boot-up policy is asked twice: by the boot for p3, and by the running system
    // for p5.
    let two_stages = purpose == Purpose::Boot && reference.nvidia.is_some();
    // Past boot, the registers show the handoff: a machine that is still booting is not yet a node.
    let staged = |name: &str, boot: Value, running: Value| match purpose {
        Purpose::Boot if two_stages => {
            format!("{name} := {boot:#} if not late\n\n{name} := {running:#} if late\n")
        }
        Purpose::Boot => values(name, &boot),
        Purpose::Own | Purpose::Cross => values(name, &running),
    };
    let mut parts = vec![
        intro.to_owned(),
        COMMON.to_owned(),
        format!("image_id := \"{}\"\n", reference.image_id),
    ];
    if purpose == Purpose::Boot {
        parts.push(RESOURCE.to_owned());
    }
    if two_stages {
        parts.push(LATE.to_owned());
    }
    if let Some(tpm) = &reference.tpm {
        parts.push(staged("tpm_pcrs", named(&tpm.pcrs), named(&after_handoff(&tpm.pcrs))));
        parts.push(set("tpm_ek_roots", reference.ek_roots.iter().map(|root| json!(root))));
        parts.push(set("tpm_firmware", reference.firmware.iter().map(|firmware| json!(firmware))));
        parts.push(TPM.to_owned());
    }
    if !reference.snp.is_empty() {
        // What a changed input would lead to explains a digest, and is nobody's to accept.
        let platform = |snp: &SnpReference| json!(SnpReference { variants: vec![], ..snp.clone() });
        parts.push(values("snp_platforms", &reference.snp.iter().map(platform).collect()));
        parts.push(SNP.to_owned());
    }
    if !reference.tdx.is_empty() {
        let platform = |tdx: &cvm_evidence::platform::TdxReference, rtmr3: Bytes48| {
            json!({ "platform": tdx.platform, "registers": {
                "mr_td": tdx.mrtd, "rtmr_0": tdx.rtmr0, "rtmr_1": tdx.rtmr1, "rtmr_2": tdx.rtmr2, "rtmr_3": rtmr3,
            }})
        };
        let boot = || reference.tdx.iter().map(|tdx| platform(tdx, tdx.rtmr3)).collect();
        let handed_off =
            |tdx| platform(tdx, rtmr::extend(&tdx.rtmr3, &cvm_evidence::td_handoff_digest()));
        let running =
            if two_stages { reference.tdx.iter().map(handed_off).collect() } else { boot() };
        parts.push(staged("tdx_platforms", boot(), running));
        parts.push(TDX.to_owned());
    }
    if !reference.azure.is_empty() {
        let platform = |azure: &cvm_evidence::platform::AzureReference,
                        pcrs: &BTreeMap<u8, Bytes32>| {
            let tee = match azure.tee {
                AzureTee::Snp => "az-snp-vtpm",
                AzureTee::Tdx => "az-tdx-vtpm",
            };
            json!({
                "platform": azure.platform, "tee": tee, "measurement": azure.measurement, "pcrs": named(pcrs),
                "tcb_floor": azure.tcb_floor,
            })
        };
        let boot = reference.azure.iter().map(|azure| platform(azure, &azure.pcrs)).collect();
        let running = reference
            .azure
            .iter()
            .map(|azure| platform(azure, &after_handoff(&azure.pcrs)))
            .collect();
        parts.push(staged("azure_platforms", boot, running));
        parts.push(AZURE.to_owned());
    }
    let azure_snp = reference.azure.iter().any(|azure| azure.tee == AzureTee::Snp);
    if azure_snp {
        parts.push(AZURE_SNP.to_owned());
    }
    if !reference.snp.is_empty() || azure_snp {
        parts.push(SNP_COMMON.to_owned());
    }
    if !reference.tdx.is_empty() || reference.azure.iter().any(|azure| azure.tee == AzureTee::Tdx) {
        parts.push(TDX_COMMON.to_owned());
    }
    if let Some(nvidia) = &reference.nvidia {
        parts.push(values("nvidia", &json!(nvidia)));
        // The GPU is attested by the running system (two-stage release), not by the boot loader's
        // initramfs.
        let required =
            if two_stages { "nvidia_required if late" } else { "nvidia_required := true" };
        parts.push(format!("# Whether evidence without a GPU's is refused.\n{required}\n"));
        parts.push(NVIDIA.to_owned());
    }
    parts.join("\n")
}

/// `pcr04`, as Trustee names registers.
fn named(pcrs: &BTreeMap<u8, Bytes32>) -> Value {
    pcrs.iter().map(|(pcr, value)| (format!("pcr{pcr:02}"), json!(value))).collect()
}

/// A rule with a JSON value, which is a Rego value too; names that people chose stay inside its
/// strings.
fn values(name: &str, value: &Value) -> String {
    format!("{name} := {value:#}\n")
}

fn set(name: &str, items: impl Iterator<Item = Value>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    match items.as_slice() {
        [] => format!("{name} := set()\n"),
        items => format!("{name} := {{{}}}\n", items.join(", ")),
    }
}

const BOOT: &str = include_str!("templates/boot.rego");
const OWN: &str = include_str!("templates/self.rego");
const CROSS: &str = include_str!("templates/cross.rego");
const COMMON: &str = include_str!("templates/common.rego");
const LATE: &str = "# Whether the running system asks, for what opens p5 once its GPUs have attested.\n\
                    late if data[\"resource-path\"][1] == \"running-half\"\n";
const RESOURCE: &str = include_str!("templates/resource.rego");
const TPM: &str = include_str!("templates/tpm.rego");
const SNP: &str = include_str!("templates/snp.rego");
const SNP_COMMON: &str = include_str!("templates/snp_common.rego");
const TDX: &str = include_str!("templates/tdx.rego");
const TDX_COMMON: &str = include_str!("templates/tdx_common.rego");
const AZURE: &str = include_str!("templates/azure.rego");
const AZURE_SNP: &str = include_str!("templates/azure_snp.rego");
const NVIDIA: &str = include_str!("templates/nvidia.rego");
