//! IGVM files for SEV-SNP.

use igvm::{
    IgvmDirectiveHeader as Directive, IgvmFile, IgvmPlatformHeader, IgvmRevision, snp_defs::SevVmsa,
};
use igvm_defs::{
    IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags, IgvmPageDataType,
    IgvmPlatformType,
};
use zerocopy::FromZeros;

pub const VMSA: u64 = 0xffff_ffff_f000;

pub fn page(gpa: u64, data_type: IgvmPageDataType, data: &[u8]) -> Directive {
    Directive::PageData {
        gpa,
        compatibility_mask: 1,
        flags: IgvmPageDataFlags::new(),
        data_type,
        data: data.to_vec(),
    }
}

pub fn vmsa(gpa: u64, cr0: u64) -> Directive {
    let mut vmsa = SevVmsa::new_box_zeroed().unwrap();
    (vmsa.cr0, vmsa.efer, vmsa.rip) = (cr0, 0x1000, 0x10000);
    Directive::SnpVpContext { gpa, compatibility_mask: 1, vp_index: 0, vmsa }
}

pub fn file(directives: Vec<Directive>, platform_type: IgvmPlatformType) -> Vec<u8> {
    let platform = IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: 1,
        highest_vtl: 2,
        platform_type,
        platform_version: 1,
        shared_gpa_boundary: 0,
    };
    let platform = vec![IgvmPlatformHeader::SupportedPlatform(platform)];
    let mut bytes = Vec::new();
    IgvmFile::new(IgvmRevision::V1, platform, vec![], directives)
        .unwrap()
        .serialize(&mut bytes)
        .unwrap();
    bytes
}

/// Pages of every type.
pub fn directives() -> Vec<Directive> {
    vec![
        Directive::ParameterArea {
            number_of_bytes: 8192,
            parameter_area_index: 0,
            initial_data: vec![],
        },
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
