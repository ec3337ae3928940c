//! The three policies of a bundle, filled from reference values.

use std::collections::BTreeMap;

use cvm_base::Bytes32;
use serde_json::{Value, json};

use crate::error::PolicyError;
use cvm_evidence::{
    platform::{AzureReference, AzureTee, SnpReference, TdxReference, after_handoff},
    reference_set::ReferenceSet,
    rtmr::{self, Bytes48},
    td_handoff_digest,
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
/// The policies contain the values themselves, so that a policy's digest, which the parties sign,
/// covers them.
///
/// # Errors
/// [`PolicyError::Reference`] for a set without values of any CPU, and for one that states no least
/// TCB of an SEV-SNP platform.
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
    // With GPUs the boot-up policy is asked twice: by the boot for p3, and by the running system
    // for p5.
    let two_stages = purpose == Purpose::Boot && reference.nvidia.is_some();
    let template = Template { reference, purpose, two_stages };
    let parts = [
        template.head(),
        template.tpm(),
        template.snp(),
        template.tdx(),
        template.azure(),
        template.shared(),
        template.nvidia(),
    ];
    parts.concat().join("\n")
}

/// One policy: each method writes the parts of one kind of evidence, none if the image has no
/// values for it.
struct Template<'a> {
    reference: &'a ReferenceSet,
    purpose: Purpose,
    /// Whether the boot-up policy is asked by the boot and by the running system.
    two_stages: bool,
}

impl Template<'_> {
    fn head(&self) -> Vec<String> {
        let intro = match self.purpose {
            Purpose::Boot => BOOT,
            Purpose::Own => OWN,
            Purpose::Cross => CROSS,
        };
        let image = format!("image_id := \"{}\"\n", self.reference.image_id);
        let mut parts = vec![intro.to_owned(), COMMON.to_owned(), image];
        if self.purpose == Purpose::Boot {
            parts.push(RESOURCE.to_owned());
        }
        if self.two_stages {
            parts.push(LATE.to_owned());
        }
        parts
    }

    fn tpm(&self) -> Vec<String> {
        let Some(tpm) = &self.reference.tpm else { return vec![] };
        let roots = self.reference.ek_roots.iter().map(|root| json!(root));
        let firmware = self.reference.firmware.iter().map(|firmware| json!(firmware));
        vec![
            self.staged("tpm_pcrs", named(&tpm.pcrs), named(&after_handoff(&tpm.pcrs))),
            set("tpm_ek_roots", roots),
            set("tpm_firmware", firmware),
            TPM.to_owned(),
        ]
    }

    fn snp(&self) -> Vec<String> {
        if self.reference.snp.is_empty() {
            return vec![];
        }
        // The digest that a changed input would give serves explanations. No policy accepts it.
        let platform = |snp: &SnpReference| json!(SnpReference { variants: vec![], ..snp.clone() });
        let platforms = self.reference.snp.iter().map(platform).collect();
        vec![values("snp_platforms", &platforms), SNP.to_owned()]
    }

    fn tdx(&self) -> Vec<String> {
        let platforms = &self.reference.tdx;
        if platforms.is_empty() {
            return vec![];
        }
        let at_boot = |tdx: &TdxReference| tdx_platform(tdx, tdx.rtmr3);
        let handed_off =
            |tdx: &TdxReference| tdx_platform(tdx, rtmr::extend(&tdx.rtmr3, &td_handoff_digest()));
        let boot: Value = platforms.iter().map(at_boot).collect();
        let running = match self.two_stages {
            true => platforms.iter().map(handed_off).collect(),
            false => boot.clone(),
        };
        vec![self.staged("tdx_platforms", boot, running), TDX.to_owned()]
    }

    fn azure(&self) -> Vec<String> {
        let platforms = &self.reference.azure;
        if platforms.is_empty() {
            return vec![];
        }
        let boot = platforms.iter().map(|azure| azure_platform(azure, &azure.pcrs)).collect();
        let running = platforms
            .iter()
            .map(|azure| azure_platform(azure, &after_handoff(&azure.pcrs)))
            .collect();
        vec![self.staged("azure_platforms", boot, running), AZURE.to_owned()]
    }

    /// What native guests and those under Azure's paravisor share.
    fn shared(&self) -> Vec<String> {
        let azure = |tee| self.reference.azure.iter().any(|azure| azure.tee == tee);
        let (azure_snp, azure_tdx) = (azure(AzureTee::Snp), azure(AzureTee::Tdx));
        [
            (azure_snp, AZURE_SNP),
            (azure_snp || !self.reference.snp.is_empty(), SNP_COMMON),
            (azure_tdx || !self.reference.tdx.is_empty(), TDX_COMMON),
        ]
        .into_iter()
        .filter(|(needed, _)| *needed)
        .map(|(_, text)| text.to_owned())
        .collect()
    }

    fn nvidia(&self) -> Vec<String> {
        let Some(nvidia) = &self.reference.nvidia else { return vec![] };
        // The running system attests the GPU (two-stage release), and not the boot's initramfs.
        let required =
            if self.two_stages { "nvidia_required if late" } else { "nvidia_required := true" };
        vec![
            values("nvidia", &json!(nvidia)),
            format!("# Whether evidence without a GPU's is refused.\n{required}\n"),
            NVIDIA.to_owned(),
        ]
    }

    /// A rule whose value depends on the moment. After boot, the registers show the handoff: a
    /// machine that is still booting is not yet a node.
    fn staged(&self, name: &str, boot: Value, running: Value) -> String {
        match self.purpose {
            Purpose::Boot if self.two_stages => {
                format!("{name} := {boot:#} if not late\n\n{name} := {running:#} if late\n")
            }
            Purpose::Boot => values(name, &boot),
            Purpose::Own | Purpose::Cross => values(name, &running),
        }
    }
}

fn tdx_platform(tdx: &TdxReference, rtmr3: Bytes48) -> Value {
    json!({ "platform": tdx.platform, "registers": {
        "mr_td": tdx.mrtd, "rtmr_0": tdx.rtmr0, "rtmr_1": tdx.rtmr1, "rtmr_2": tdx.rtmr2,
        "rtmr_3": rtmr3,
    }})
}

fn azure_platform(azure: &AzureReference, pcrs: &BTreeMap<u8, Bytes32>) -> Value {
    let tee = match azure.tee {
        AzureTee::Snp => "az-snp-vtpm",
        AzureTee::Tdx => "az-tdx-vtpm",
    };
    json!({
        "platform": azure.platform, "tee": tee, "measurement": azure.measurement,
        "pcrs": named(pcrs), "tcb_floor": azure.tcb_floor,
    })
}

/// `pcr04`, as Trustee names registers.
fn named(pcrs: &BTreeMap<u8, Bytes32>) -> Value {
    pcrs.iter().map(|(pcr, value)| (format!("pcr{pcr:02}"), json!(value))).collect()
}

/// A rule with a JSON value, which is a Rego value too. Names that people chose stay inside its
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
const LATE: &str = "# Whether the running system asks, for what opens p5 once its GPUs have \
                    attested.\n\
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
