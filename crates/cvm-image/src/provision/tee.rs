//! What TEEs will measure when they start an image, for its reference values: predicted from files,
//! for each kind of host that the builder describes in one YAML file.
//!
//! ```yaml
//! version: 1
//! # -kernel with kernel-hashes=on: the bundle's UKI is the kernel
//! snp:
//!   - {platform: "EPYC-v4, 4 vCPUs", firmware: OVMF.amdsev.fd, vcpus: 4, vcpu_type: EPYC-v4,
//!      tcb_floor: {Milan-B1: {bootloader: 4, tee: 0, snp: 24, microcode: 219}}}   # docs/tcb.md
//! # -kernel; the digests are those of etc/table-loader, etc/acpi/rsdp and etc/acpi/tables
//! tdx:
//!   - {platform: "q35", firmware: OVMF.inteltdx.fd, memory_mib: 4096,
//!      acpi: {loader: 96 hex digits, rsdp: …, tables: …}}
//! # as reference.json has them, those over SEV-SNP with tcb_floor: Azure's paravisor cannot be
//! # predicted
//! azure: []
//! ```

use std::path::{Path, PathBuf};

use cvm_base::{Bytes, read_bounded, read_text};
use cvm_evidence::{
    platform::{AzureReference, AzureTee, SnpReference, TdxReference},
    reference::Platforms,
    rtmr::Bytes48,
    tcb::TcbFloor,
};
use cvm_predict::{
    snp::{self, Kernel, LaunchInputs, VcpuType, Vmm},
    tdx::{self, Acpi, Boot, PageOrder, TdxInputs},
};
use serde::Deserialize;

use super::ProvisionError;

/// The one version of the file that is read.
const VERSION: u32 = 1;
const MAX_FILE: u64 = 64 * 1024;
const MAX_FIRMWARE: u64 = 64 * 1024 * 1024;
const MAX_PLATFORMS: usize = 32;

/// Hosts whose measurements are to be predicted, their firmware read.
#[derive(Debug, Clone, Default)]
pub struct TeeHosts {
    snp: Vec<(SnpHost, Vec<u8>)>,
    tdx: Vec<(TdxHost, Vec<u8>)>,
    azure: Vec<AzureReference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostsFile {
    version: u32,
    #[serde(default)]
    snp: Vec<SnpHost>,
    #[serde(default)]
    tdx: Vec<TdxHost>,
    #[serde(default)]
    azure: Vec<AzureReference>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnpHost {
    platform: String,
    /// Beside the file, or absolute.
    firmware: PathBuf,
    vcpus: u32,
    vcpu_type: String,
    /// SEV_FEATURES; bit 0 is SNP itself.
    #[serde(default = "snp_alone")]
    guest_features: u64,
    /// The least firmware of the hosts, by product and stepping.
    #[serde(default)]
    tcb_floor: TcbFloor,
}

fn snp_alone() -> u64 {
    1
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TdxHost {
    platform: String,
    firmware: PathBuf,
    memory_mib: u64,
    /// Hosts before Linux 6.16 add a section's pages before they measure them.
    #[serde(default)]
    by_section: bool,
    acpi: AcpiDigests,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcpiDigests {
    loader: Bytes48,
    rsdp: Bytes48,
    tables: Bytes48,
}

impl TeeHosts {
    /// Reads the file and the firmware that it names.
    ///
    /// # Errors
    /// [`ProvisionError::Tee`] if the file has another form, [`ProvisionError::File`] if a file
    /// cannot be read.
    pub fn read(path: &Path) -> Result<Self, ProvisionError> {
        let fail =
            |problem: String| ProvisionError::Tee { platform: path.display().to_string(), problem };
        let file: HostsFile =
            serde_yaml::from_slice(&read_text(path, MAX_FILE)?).map_err(|e| fail(e.to_string()))?;
        if file.version != VERSION {
            return Err(fail(format!("version {}, this program reads {VERSION}", file.version)));
        }
        let many = file.snp.len().max(file.tdx.len()).max(file.azure.len());
        if many > MAX_PLATFORMS {
            return Err(fail(format!("{many} hosts of one kind, at most {MAX_PLATFORMS} allowed")));
        }
        let azure_snp = file.azure.iter().filter(|host| host.tee == AzureTee::Snp);
        let azure_snp = azure_snp.map(|host| (&host.platform, &host.tcb_floor));
        let mut hosts =
            file.snp.iter().map(|host| (&host.platform, &host.tcb_floor)).chain(azure_snp);
        if let Some((platform, _)) = hosts.find(|(_, floor)| floor.is_empty()) {
            return Err(fail(format!(
                "{platform:?} has no tcb_floor, such as {{Milan-B1: {{bootloader: 4, tee: 0, snp: \
                 24, microcode: 219}}}}: without it, firmware with known holes gets keys. \
                 docs/tcb.md says where to find the numbers"
            )));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let firmware = |name: &Path| read_bounded(&folder.join(name), MAX_FIRMWARE);
        let snp = file.snp.into_iter().map(|host| Ok((host.clone(), firmware(&host.firmware)?)));
        let tdx = file.tdx.into_iter().map(|host| Ok((host.clone(), firmware(&host.firmware)?)));
        Ok(Self {
            snp: snp.collect::<Result<_, ProvisionError>>()?,
            tdx: tdx.collect::<Result<_, ProvisionError>>()?,
            azure: file.azure,
        })
    }

    /// What each host's TEE will measure when it starts `uki`.
    pub(super) fn predict(&self, uki: &[u8]) -> Result<Platforms, ProvisionError> {
        Ok(Platforms {
            snp: self
                .snp
                .iter()
                .map(|(host, firmware)| host.predict(firmware, uki))
                .collect::<Result<_, _>>()?,
            tdx: self
                .tdx
                .iter()
                .map(|(host, firmware)| host.predict(firmware, uki))
                .collect::<Result<_, _>>()?,
            azure: self.azure.clone(),
        })
    }
}

impl SnpHost {
    fn predict(&self, firmware: &[u8], uki: &[u8]) -> Result<SnpReference, ProvisionError> {
        let fail =
            |problem: String| ProvisionError::Tee { platform: self.platform.clone(), problem };
        let vcpu_type = VcpuType::from_model(&self.vcpu_type)
            .ok_or_else(|| fail(format!("{:?} is not a known vCPU type", self.vcpu_type)))?;
        let inputs = LaunchInputs {
            firmware,
            kernel: Some(Kernel { image: uki, initrd: &[], command_line: "" }),
            vcpus: self.vcpus,
            vcpu_type,
            guest_features: self.guest_features,
            vmm: Vmm::Qemu,
        };
        let measurement = snp::launch(&inputs).map_err(|e| fail(e.to_string()))?.measurement;
        Ok(SnpReference {
            platform: self.platform.clone(),
            measurement,
            tcb_floor: self.tcb_floor.clone(),
            variants: vec![],
        })
    }
}

impl TdxHost {
    fn predict(&self, firmware: &[u8], uki: &[u8]) -> Result<TdxReference, ProvisionError> {
        let fail =
            |problem: String| ProvisionError::Tee { platform: self.platform.clone(), problem };
        let AcpiDigests { loader, rsdp, tables } = self.acpi;
        let prediction = tdx::tdx(&TdxInputs {
            firmware,
            pages: if self.by_section {
                PageOrder::SectionBySection
            } else {
                PageOrder::PageByPage
            },
            memory: Some(self.memory_mib.saturating_mul(1 << 20)),
            acpi: Some(Acpi { loader, rsdp, tables }),
            boot: Boot::Direct { kernel: uki, command_line: "", initrd: &[] },
        })
        .map_err(|e| fail(e.to_string()))?;
        let [Some(rtmr0), Some(rtmr1), Some(rtmr2), _] = prediction.rtmrs else {
            let reasons: Vec<_> = prediction
                .not_predicted
                .iter()
                .map(|n| format!("RTMR{}: {}", n.rtmr, n.reason))
                .collect();
            return Err(fail(reasons.join("; ")));
        };
        let (platform, mrtd) = (self.platform.clone(), prediction.mrtd);
        Ok(TdxReference {
            platform,
            mrtd,
            rtmr0,
            rtmr1,
            rtmr2,
            rtmr3: Bytes([0; 48]),
            events: vec![],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(text: &str) -> Result<TeeHosts, ProvisionError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("OVMF.fd"), [0; 64]).unwrap();
        fs::write(folder.path().join("hosts.yaml"), text).unwrap();
        TeeHosts::read(&folder.path().join("hosts.yaml"))
    }

    #[test]
    fn hosts_are_described_strictly() {
        let tcb = "tcb_floor: {Milan: {bootloader: 4, tee: 0, snp: 24, microcode: 219}}";
        let snp = format!(
            "snp: [{{platform: a, firmware: OVMF.fd, vcpus: 1, vcpu_type: EPYC-v4, {tcb}}}]"
        );
        assert_eq!(read(&format!("version: 1\n{snp}\n")).unwrap().snp.len(), 1);
        for (text, problem) in [
            (format!("version: 2\n{snp}\n"), "this program reads 1"),
            (format!("version: 1\n{snp}\nother: 1\n"), "other"),
            ("version: 1\ntdx: [{platform: a, firmware: OVMF.fd, memory_mib: 1}]\n".into(), "acpi"),
            // Any firmware would get keys; a floor without a product is of any product.
            (format!("version: 1\n{}\n", snp.replace(tcb, "")), "docs/tcb.md"),
            (format!("version: 1\n{}\n", snp.replace(tcb, "tcb_floor: {}")), "docs/tcb.md"),
            (
                format!("version: 1\n{}\n", snp.replace("{Milan: {", "{").replace("}}}]", "}}]")),
                "tcb_floor",
            ),
            (
                format!(
                    "version: 1\n\
                     azure: [{{platform: a, tee: snp, measurement: {0}{0}, pcrs: {{}}}}]\n",
                    "00".repeat(24)
                ),
                "docs/tcb.md",
            ),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        let gone = read(&format!("version: 1\n{}\n", snp.replace("OVMF.fd", "gone")));
        assert!(matches!(gone, Err(ProvisionError::File(_))));
    }

    #[test]
    fn firmware_that_would_not_measure_the_kernel_is_refused() {
        let host = |vcpu_type: &str| {
            read(&format!(
                "version: 1\n\
                 snp: [{{platform: here, firmware: OVMF.fd, vcpus: 1, vcpu_type: {vcpu_type}, \
                 tcb_floor: {{Milan: {{bootloader: 4, tee: 0, snp: 24, microcode: 219}}}}}}]\n"
            ))
        };
        let hosts = host("EPYC-v4");
        let error = hosts.unwrap().predict(b"a UKI").unwrap_err();
        assert!(
            matches!(&error, ProvisionError::Tee { platform, .. } if platform == "here"),
            "{error}"
        );
        assert!(host("VAX").unwrap().predict(b"a UKI").unwrap_err().to_string().contains("VAX"));
    }
}
