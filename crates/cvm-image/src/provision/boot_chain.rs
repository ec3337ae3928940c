//! The boot chain: firmware, loader, initramfs, and p2 with the kernel image.

use std::fs;

use cvm_base::Bytes32;
use cvm_layout::{layout::verity_data_room, manifest::Verity};
use cvm_seal::verity;

use super::{
    ProvisionError,
    build::{Build, parts},
    volumes::salt,
};
use crate::{
    WorkError,
    boot::{
        UKI_PATH, fat,
        initramfs::{self, Initramfs},
        secure_boot::Firmware,
        uki,
    },
};

/// What `cvm-init` loads, in order; part of the program so that image and loader agree.
const MODULES: &str = include_str!("../../../../initramfs/modules.list");

/// What boots before the kernel image is known.
pub(super) struct BootChain {
    pub(super) firmware: Firmware,
    /// The signed boot loader.
    pub(super) loader: Vec<u8>,
    pub(super) initramfs: Initramfs,
}

/// p2: the kernel image in its verity volume.
pub(super) struct BootVolume {
    /// The signed kernel image.
    pub(super) uki: Vec<u8>,
    pub(super) verity: Verity,
}

impl BootChain {
    pub(super) fn make(build: &Build) -> Result<Self, ProvisionError> {
        let project = &build.request.project;
        Ok(Self {
            firmware: project.secure_boot.firmware(project.base.module_signer()?.as_deref())?,
            loader: project.secure_boot.signed_loader()?,
            initramfs: initramfs(build)?,
        })
    }

    /// Signs the kernel image, whose command line names the manifest, and makes p2 of it.
    pub(super) fn boot_volume(
        &self,
        build: &Build,
        manifest_sha256: &Bytes32,
    ) -> Result<BootVolume, ProvisionError> {
        let project = &build.request.project;
        let kernel = project.base.read_file("vmlinuz")?;
        let os_release = project.base.read_file("os-release")?;
        let unsigned = uki::build(&uki::Parts {
            kernel: &kernel,
            initrd: &self.initramfs.archive,
            os_release: &String::from_utf8_lossy(&os_release),
            cmdline: &uki::cmdline(manifest_sha256),
        })?;
        let uki = project.secure_boot.sign("the kernel image", &unsigned)?;

        let files = [(UKI_PATH.to_owned(), uki.clone())].into();
        let room = verity_data_room(build.partition_bytes(2)?);
        let fat = fat::make(room, "FLARECVMBOT", &files)?;
        let image = build.path(parts::BOOT);
        fs::write(&image, &fat).map_err(WorkError::io("write", &image))?;
        let verity = verity::format(&image, fat.len() as u64, salt(&build.image_id, "boot"))?;
        Ok(BootVolume { uki, verity })
    }
}

fn initramfs(build: &Build) -> Result<Initramfs, ProvisionError> {
    let base = build.request.project.base;
    let release = base.meta.kernel.as_str();
    let kernel_file = |name: &str| {
        base.read_file(&format!("lib/modules/{release}/{name}")).map_err(|e| e.to_string())
    };
    let signing_key = build.request.ceremony.builder.signing_key();
    Ok(initramfs::build(&initramfs::Sources {
        init: build.request.project.init,
        kernel_release: release,
        modules: MODULES,
        kernel_file: &kernel_file,
        builder_public: &signing_key.verifying_key().to_bytes(),
    })?)
}
