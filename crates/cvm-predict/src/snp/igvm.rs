//! Launch digests of IGVM files: firmware that says itself which pages a guest starts with.
//!
//! The rules are those of COCONUT-SVSM's `igvmmeasure --check-kvm --native-zero`, which QEMU with
//! KVM follows: directives in their order, pages without data as zero pages, and one VMSA, at the
//! end.

use std::collections::BTreeMap;

use cvm_base::{Bytes, sha256};
use igvm::{IgvmDirectiveHeader as Directive, IgvmFile, IsolationType, snp_defs::SevVmsa};
use igvm_defs::{IgvmPageDataFlags, IgvmPageDataType};
use zerocopy::IntoBytes as _;

use super::{
    digest::{LaunchDigest, sha384},
    error::LaunchError,
    inputs::{LaunchInput, LaunchPrediction},
};

const MAX_IGVM_BYTES: usize = 256 * 1024 * 1024;
/// One page is usual.
const MAX_PARAMETER_BYTES: u64 = 16 * 1024 * 1024;
const VMSA_GPA: u64 = 0xffff_ffff_f000;

/// Predicts the launch digest of an IGVM file under QEMU with KVM, with one vCPU: the file states
/// the registers of the first only. If the file holds an ID block, its digest must be the same.
///
/// # Errors
/// [`LaunchError::Igvm`] for a file that is damaged, not for SEV-SNP, or not launched as it says.
pub fn launch_igvm(file: &[u8]) -> Result<LaunchPrediction, LaunchError> {
    if file.len() > MAX_IGVM_BYTES {
        return Err(LaunchError::igvm(format!("{} bytes, at most 256 MiB allowed", file.len())));
    }
    let parsed = IgvmFile::new_from_binary(file, Some(IsolationType::Snp))
        .map_err(|e| LaunchError::igvm(e.to_string()))?;
    let measurement = Measured::of(parsed.directives())?;
    let input = |name: &str, value: String| LaunchInput { name: name.into(), value };
    Ok(LaunchPrediction {
        measurement: Bytes(measurement),
        inputs: vec![
            input("firmware", format!("sha256:{}", sha256(file))),
            input("vcpus", "1".into()),
            input("vmm", "qemu".into()),
        ],
    })
}

#[derive(Default)]
struct Measured {
    digest: LaunchDigest,
    parameters: BTreeMap<u32, u64>,
    vmsa: bool,
}

impl Measured {
    fn of(directives: &[Directive]) -> Result<[u8; 48], LaunchError> {
        let mut measured = Self::default();
        let mut expected = None;
        for directive in directives {
            match directive {
                Directive::PageData { gpa, flags, data_type, data, .. } => {
                    measured.page(*gpa, *flags, *data_type, data)?;
                }
                Directive::ParameterArea { number_of_bytes, parameter_area_index, .. } => {
                    measured.parameters.insert(*parameter_area_index, *number_of_bytes);
                }
                Directive::ParameterInsert(insert) => {
                    measured.parameter(insert.gpa, insert.parameter_area_index)?
                }
                Directive::SnpVpContext { gpa, vmsa, .. } => measured.context(*gpa, vmsa)?,
                Directive::SnpIdBlock { ld, .. } => expected = Some(*ld),
                _ => {}
            }
        }
        let found = measured.digest.finish();
        match expected {
            _ if !measured.vmsa => Err(LaunchError::igvm("it states no vCPU's registers")),
            Some(expected) if expected != found => Err(LaunchError::igvm(format!(
                "its ID block says {}, but its pages give {}",
                Bytes(expected),
                Bytes(found)
            ))),
            _ => Ok(found),
        }
    }

    fn page(
        &mut self,
        gpa: u64,
        flags: IgvmPageDataFlags,
        kind: IgvmPageDataType,
        data: &[u8],
    ) -> Result<(), LaunchError> {
        self.before_vmsa()?;
        if flags.is_2mb_page() || flags.shared() {
            return Err(LaunchError::igvm(
                "it has pages of 2 MiB or shared ones, which QEMU does not load",
            ));
        }
        let mut page = [0; 4096];
        match page.get_mut(..data.len()) {
            Some(target) => target.copy_from_slice(data),
            None => return Err(LaunchError::igvm(format!("a page of {} bytes", data.len()))),
        }
        let digest = self.digest;
        self.digest = match kind {
            IgvmPageDataType::NORMAL if flags.unmeasured() => digest.unmeasured(gpa, 4096),
            IgvmPageDataType::NORMAL if data.is_empty() => digest.zero(gpa, 4096),
            IgvmPageDataType::NORMAL => digest.normal(gpa, &page),
            IgvmPageDataType::SECRETS => digest.secrets(gpa),
            IgvmPageDataType::CPUID_DATA | IgvmPageDataType::CPUID_XF => digest.cpuid(gpa),
            _ => return Err(LaunchError::igvm("it has a page of an unknown type")),
        };
        Ok(())
    }

    /// A parameter area's content, which the VMM chooses, is not measured; its place is.
    fn parameter(&mut self, gpa: u64, index: u32) -> Result<(), LaunchError> {
        self.before_vmsa()?;
        match self.parameters.get(&index) {
            Some(size) if *size <= MAX_PARAMETER_BYTES => {
                self.digest = self.digest.unmeasured(gpa, size.next_multiple_of(4096));
                Ok(())
            }
            _ => Err(LaunchError::igvm(format!(
                "parameter area {index} is missing or larger than 16 MiB"
            ))),
        }
    }

    fn context(&mut self, gpa: u64, vmsa: &SevVmsa) -> Result<(), LaunchError> {
        self.before_vmsa()?;
        // KVM places the VMSA there, and sets CR0.NE and CR0.ET, whatever the file says.
        if gpa != VMSA_GPA || ![0x30, 0x31].contains(&vmsa.cr0) {
            let problem = format!("KVM changes the VMSA at {gpa:#x} with CR0 {:#x}", vmsa.cr0);
            return Err(LaunchError::igvm(problem));
        }
        let mut page = vmsa.as_bytes().to_vec();
        page.resize(4096, 0);
        self.digest = self.digest.vmsa(sha384(&page));
        self.vmsa = true;
        Ok(())
    }

    /// KVM measures the VMSA when the launch is finished, whatever follows it in the file.
    fn before_vmsa(&self) -> Result<(), LaunchError> {
        match self.vmsa {
            false => Ok(()),
            true => {
                Err(LaunchError::igvm("the VMSA is not its only and last one, as KVM takes it"))
            }
        }
    }
}
