//! Launch digests of IGVM files.

use cvm_base::Explain;
use cvm_predict::snp::{LaunchError, LaunchInputs, VcpuType, Vmm, launch, launch_igvm};
use igvm::IgvmDirectiveHeader as Directive;
use igvm_defs::{IgvmPageDataType, IgvmPlatformType};

use crate::files::{VMSA, directives, file, page, vmsa};

/// The digest was computed with sev-snp-measure 0.0.13's `GCTX` over the same pages.
#[test]
fn pages_of_every_type() {
    let bytes = file(directives(), IgvmPlatformType::SEV_SNP);
    let predicted = launch_igvm(&bytes).unwrap();
    assert_eq!(
        predicted.measurement.to_string(),
        "0eda219f881b0edeb4c74707ad9162df0eac1958127c045c\
         a73c9cf5c1846f4bccdc3b313c1d4a8635b62d6343816119"
    );
    let named: Vec<_> = predicted.inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(named, ["firmware", "vcpus", "vmm"]);

    let vcpu_type = VcpuType::from_model("EPYC").unwrap();
    let as_ovmf = LaunchInputs {
        firmware: &bytes,
        kernel: None,
        vcpus: 1,
        vcpu_type,
        guest_features: 1,
        vmm: Vmm::Qemu,
    };
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
    let vbs =
        file(vec![page(0x10000, IgvmPageDataType::NORMAL, b"x")], IgvmPlatformType::VSM_ISOLATION);
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
        assert!(
            launch_igvm(&damaged).map_or(true, |predicted| predicted.measurement != original),
            "{at}"
        );
    }
}
