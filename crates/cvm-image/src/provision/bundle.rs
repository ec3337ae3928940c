//! A bundle: what a site receives.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use cvm_base::{Bytes32, write_atomic};
use cvm_layout::{manifest::ImageId, site_conf::SiteConf};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{
    ProvisionError, archive,
    build::parts,
    files,
    request::{Form, OutputRequest},
    statements::Statements,
};
use crate::{WorkError, boot::secure_boot::Firmware, tool::Scratch};

const LAUNCH_VM: &str = include_str!("../../../../scripts/launch_vm.sh");

/// The folder in an archive: `cvm_` and the first 12 digits of the image's id, as NVFLARE's are
/// named.
fn inner_folder(image_id: &ImageId) -> String {
    let mut name = format!("cvm_{image_id}");
    name.truncate("cvm_".len() + 12);
    name
}

/// A finished bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Its folder, or its archive.
    pub path: PathBuf,
    /// The image in it.
    pub image_id: ImageId,
    /// SHA-256 of its manifest.
    pub manifest_sha256: Bytes32,
    /// How large its parts are.
    pub sizes: Sizes,
}

/// Sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// `disk.qcow2` as a file.
    pub disk: u64,
    /// The compressed initramfs.
    pub initramfs: u64,
    /// The signed kernel image.
    pub uki: u64,
}

/// A bundle in a folder beside its output, which takes the output's place when the bundle is whole.
/// The folder is removed if it does not come to that.
pub(super) struct UnfinishedBundle<'a> {
    scratch: Scratch,
    output: &'a OutputRequest<'a>,
}

impl<'a> UnfinishedBundle<'a> {
    pub(super) fn beside(output: &'a OutputRequest) -> Result<Self, ProvisionError> {
        if output.path.exists() && !output.replace {
            return Err(ProvisionError::Exists(output.path.to_owned()));
        }
        Ok(Self { scratch: Scratch::beside(output.path)?, output })
    }

    pub(super) fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// Removes what only the build needed and puts the bundle at the output.
    pub(super) fn finish(self, image_id: &ImageId) -> Result<(), ProvisionError> {
        self.remove_parts()?;
        match self.output.form {
            Form::Folder => self.rename(),
            // The folder is removed with this value.
            Form::Archive => {
                let inner = inner_folder(image_id);
                archive::write(self.path(), &inner, self.output.path, self.output.replace)
            }
        }
    }

    fn remove_parts(&self) -> Result<(), ProvisionError> {
        let config = self.path().join(parts::CONFIG_TREE);
        fs::remove_dir_all(&config).map_err(WorkError::io("remove", &config))?;
        for name in parts::IMAGES {
            let path = self.path().join(name);
            fs::remove_file(&path).map_err(WorkError::io("remove", &path))?;
        }
        Ok(())
    }

    /// An earlier bundle is exchanged for the new one in one step, and removed afterwards.
    fn rename(self) -> Result<(), ProvisionError> {
        let (folder, output) = (self.scratch.path(), self.output.path);
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder, open).map_err(WorkError::io("open", folder))?;
        let fail = |e: nix::Error| WorkError::io("put the bundle at", output)(io::Error::from(e));
        if output.exists() {
            renameat2(AT_FDCWD, folder, AT_FDCWD, output, RenameFlags::RENAME_EXCHANGE)
                .map_err(fail)?;
            // The folder now holds the earlier bundle; dropping it removes it.
            return Ok(());
        }
        match renameat2(AT_FDCWD, folder, AT_FDCWD, output, RenameFlags::RENAME_NOREPLACE) {
            // FUSE and NFS know no flags; a folder takes the place of an empty one at most.
            Err(nix::Error::EINVAL) => {
                fs::rename(folder, output).map_err(WorkError::io("put the bundle at", output))?;
            }
            result => result.map_err(fail)?,
        }
        self.scratch.keep();
        Ok(())
    }
}

/// The bundle's files beside the disk.
pub(super) struct SmallFiles<'a> {
    pub(super) site_conf: &'a SiteConf,
    /// What the host must have, as a sentence; or nothing.
    pub(super) host: &'static str,
    pub(super) image_id: ImageId,
    pub(super) firmware: &'a Firmware,
    pub(super) statements: &'a Statements,
}

impl SmallFiles<'_> {
    pub(super) fn write(&self, folder: &Path) -> Result<(), ProvisionError> {
        let Statements { manifest, manifest_sig, reference_json, reference_sig, .. } =
            self.statements;
        let readme = self.readme();
        for (name, bytes, mode) in [
            (files::CODE, self.firmware.code.as_slice(), 0o644),
            (files::VARS, &self.firmware.variables, 0o644),
            (files::MANIFEST, &manifest.json, 0o644),
            (files::MANIFEST_SIG, manifest_sig, 0o644),
            (files::REFERENCE, reference_json, 0o644),
            (files::REFERENCE_SIG, reference_sig, 0o644),
            (files::LAUNCH, LAUNCH_VM.as_bytes(), 0o755),
            (files::README, readme.as_bytes(), 0o644),
        ] {
            write_atomic(&folder.join(name), bytes, mode)?;
        }
        Ok(())
    }

    fn readme(&self) -> String {
        let SiteConf { site, role, allowed_ports, .. } = self.site_conf;
        format!(
            "Sealed CVM of site {site} ({role}), image {id}\n\n\
             ./launch_vm.sh    starts it; its first lines say which settings it takes\n{host}\n\
             The disk opens only after both key holders have accepted the machine's evidence.\n\
             Until then the serial console shows each step. A failure shows a code FC-nnn\n\
             (docs/boot-codes.md of flare-cvm gives its cause and cure) and the machine powers\n\
             off. After the line `handoff` the console is silent.\n\n\
             Open ports: {allowed_ports:?}.\n\n\
             Your own data: an ext4 file system without partitions in the file user_data.qcow2\n\
             beside launch_vm.sh (or CVM_USER_DATA=FILE), or else in partition 6 of {disk}.\n\
             The CVM reads it at /user_data and never writes to it. A line SERVER:/EXPORT in its\n\
             ext_mount.conf, and an empty folder mnt, give NFS at /user_data/mnt if the outbound\n\
             port 2049 is open.\n\n\
             Key holders enrol {manifest} and {reference} (each with its .sig).\n",
            host = self.host,
            id = self.image_id,
            disk = files::DISK,
            manifest = files::MANIFEST,
            reference = files::REFERENCE,
        )
    }
}
