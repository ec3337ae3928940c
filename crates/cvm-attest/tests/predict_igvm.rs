//! Launch digests of IGVM files.

use cvm_attest::predict::snp::{LaunchError, LaunchInputs, VcpuType, Vmm, launch, launch_igvm};
use cvm_base::Explain;
use igvm::{IgvmDirectiveHeader as Directive, IgvmFile, IgvmPlatformHeader, IgvmRevision, snp_defs::SevVmsa};
use igvm_defs::{
    IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags, IgvmPageDataType, IgvmPlatformType,
};
use zerocopy::FromZeros;

const VMSA: u64 = 0xffff_ffff_f000;

fn page(gpa: u64, data_type: IgvmPageDataType, data: &[u8]) -> Directive {
    Directive::PageData { gpa, compatibility_mask: 1, flags: IgvmPageDataFlags::new(), data_type, data: data.to_vec() }
}

fn vmsa(gpa: u64, cr0: u64) -> Directive {
    let mut vmsa = SevVmsa::new_box_zeroed().unwrap();
    (vmsa.cr0, vmsa.efer, vmsa.rip) = (cr0, 0x1000, 0x10000);
    Directive::SnpVpContext { gpa, compatibility_mask: 1, vp_index: 0, vmsa }
}

fn file(directives: Vec<Directive>, platform_type: IgvmPlatformType) -> Vec<u8> {
    let platform = IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: 1,
        highest_vtl: 2,
        platform_type,
        platform_version: 1,
        shared_gpa_boundary: 0,
    };
    let platform = vec![IgvmPlatformHeader::SupportedPlatform(platform)];
    let mut bytes = Vec::new();
    IgvmFile::new(IgvmRevision::V1, platform, vec![], directives).unwrap().serialize(&mut bytes).unwrap();
    bytes
}

fn directives() -> Vec<Directive> {
    vec![
        Directive::ParameterArea { number_of_bytes: 8192, parameter_area_index: 0, initial_data: vec![] },
        page(0x10000, IgvmPageDataType::NORMAL, &[0x5a; 4096]),
        page(0x11000, IgvmPageDataType::NORMAL, b"short"),
        page(0x12000, IgvmPageDataType::NORMAL, b""),
        page(0x13000, IgvmPageDataType::SECRETS, b""),
        page(0x14000, IgvmPageDataType::CPUID_DATA, b""),
        Directive::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
            gpa: 0x15000,
            compatibility_mask: 1,
            parameter_area_index: 0,
        }),
        vmsa(VMSA, 0x31),
    ]
}

/// The digest was computed with sev-snp-measure 0.0.13's `GCTX` over the same pages.
#[test]
fn pages_of_every_type() {
    let bytes = file(directives(), IgvmPlatformType::SEV_SNP);
    let predicted = launch_igvm(&bytes).unwrap();
    assert_eq!(
        predicted.measurement.to_string(),
        "0eda219f881b0edeb4c74707ad9162df0eac1958127c045ca73c9cf5c1846f4bccdc3b313c1d4a8635b62d6343816119"
    );
    let named: Vec<_> = predicted.inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(named, ["firmware", "vcpus", "vmm"]);

    let vcpu_type = VcpuType::from_model("EPYC").unwrap();
    let as_ovmf =
        LaunchInputs { firmware: &bytes, kernel: None, vcpus: 1, vcpu_type, guest_features: 1, vmm: Vmm::Qemu };
    assert!(launch(&as_ovmf).unwrap_err().to_string().contains("IGVM"));
}

#[test]
fn what_kvm_would_not_launch_as_the_file_says_is_refused() {
    let refused = |change: &dyn Fn(&mut Vec<Directive>)| {
        let mut changed = directives();
        change(&mut changed);
        let refused = launch_igvm(&file(changed, IgvmPlatformType::SEV_SNP)).unwrap_err();
        assert!(matches!(refused, LaunchError::Igvm { .. }));
        assert_eq!(refused.code(), "ATT-393");
        refused.to_string()
    };
    assert!(refused(&|d| drop(d.pop())).contains("no vCPU's registers"));
    assert!(refused(&|d| d.swap(5, 7)).contains("last one"));
    assert!(refused(&|d| *d.last_mut().unwrap() = vmsa(0x1000, 0x31)).contains("KVM changes"));
    assert!(refused(&|d| *d.last_mut().unwrap() = vmsa(VMSA, 0x11)).contains("KVM changes"));
    let vbs = file(vec![page(0x10000, IgvmPageDataType::NORMAL, b"x")], IgvmPlatformType::VSM_ISOLATION);
    assert!(launch_igvm(&vbs).is_err());
}

#[test]
fn damaged_files_are_refused() {
    let bytes = file(directives(), IgvmPlatformType::SEV_SNP);
    for length in (0..bytes.len()).step_by(97) {
        assert!(launch_igvm(&bytes[..length]).is_err(), "{length}");
    }
    // Headers are under a checksum, pages are measured.
    let original = launch_igvm(&bytes).unwrap().measurement;
    for at in (0..640).chain((640..bytes.len()).step_by(251)) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        assert!(launch_igvm(&damaged).map_or(true, |predicted| predicted.measurement != original), "{at}");
    }
}
