//! A bundle's folder: what a site receives.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use cvm_base::{Bytes32, interrupt, write_atomic};
use cvm_layout::{manifest::ImageId, site_conf::SiteConf};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use tempfile::TempDir;

use super::{ProvisionError, archive};
use crate::WorkError;
use crate::boot::secure_boot::Firmware;

/// The names of a bundle's files.
pub mod files {
    /// The sealed disk.
    pub const DISK: &str = "disk.qcow2";
    /// The firmware.
    pub const CODE: &str = "OVMF_CODE.fd";
    /// Its variables: Secure Boot with the project's keys.
    pub const VARS: &str = "OVMF_VARS.fd";
    /// What was built; the copy on p1 is what counts.
    pub const MANIFEST: &str = "manifest.json";
    /// The builder's signature over it.
    pub const MANIFEST_SIG: &str = "manifest.sig";
    /// The predicted measurements, for the key holders.
    pub const REFERENCE: &str = "reference.json";
    /// The builder's signature over it.
    pub const REFERENCE_SIG: &str = "reference.sig";
    /// Starts the CVM.
    pub const LAUNCH: &str = "launch_vm.sh";
    /// What to do with the bundle.
    pub const README: &str = "README.txt";
}

const LAUNCH_VM: &str = include_str!("../../../../scripts/launch_vm.sh");

/// What a bundle is, at its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A folder.
    Folder,
    /// A `.tgz` that holds the folder, and beside it copies of the key holders' documents.
    Archive,
}

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

/// A folder beside the output that takes its place when whole, and disappears when not.
pub(super) struct WorkFolder {
    folder: TempDir,
    output: PathBuf,
    replace: bool,
    _guard: interrupt::PathGuard,
}

impl WorkFolder {
    pub(super) fn beside(output: &Path, replace: bool) -> Result<Self, ProvisionError> {
        if output.exists() && !replace {
            return Err(ProvisionError::Exists(output.to_owned()));
        }
        let parent =
            output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(WorkError::io("create", parent))?;
        let folder = tempfile::Builder::new()
            .prefix(".flare-cvm-")
            .tempdir_in(parent)
            .map_err(WorkError::io("create a working folder in", parent))?;
        Ok(Self {
            _guard: interrupt::guard_path(folder.path()),
            folder,
            output: output.to_owned(),
            replace,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Drops what only the build needed and puts the bundle at the output.
    pub(super) fn finish(self, form: Form, image_id: &ImageId) -> Result<(), ProvisionError> {
        self.drop_parts()?;
        match form {
            Form::Folder => self.rename(),
            // The working folder goes with this value.
            Form::Archive => {
                archive::write(self.path(), &inner_folder(image_id), &self.output, self.replace)
            }
        }
    }

    fn drop_parts(&self) -> Result<(), ProvisionError> {
        let config = self.path().join("config");
        fs::remove_dir_all(&config).map_err(WorkError::io("remove", &config))?;
        for name in ["config.img", "root.img", "boot.img", "esp.img", "data.img"] {
            let path = self.path().join(name);
            fs::remove_file(&path).map_err(WorkError::io("remove", &path))?;
        }
        Ok(())
    }

    /// An earlier bundle is exchanged for the new one in one step, and removed afterwards.
    fn rename(self) -> Result<(), ProvisionError> {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(self.path(), open).map_err(WorkError::io("open", self.path()))?;
        let fail =
            |e: nix::Error| WorkError::io("put the bundle at", &self.output)(io::Error::from(e));
        if self.output.exists() {
            renameat2(AT_FDCWD, self.path(), AT_FDCWD, &self.output, RenameFlags::RENAME_EXCHANGE)
                .map_err(fail)?;
            // The working folder now holds the earlier bundle; dropping it removes it.
            return Ok(());
        }
        match renameat2(
            AT_FDCWD,
            self.path(),
            AT_FDCWD,
            &self.output,
            RenameFlags::RENAME_NOREPLACE,
        ) {
            // FUSE and NFS know no flags; a folder takes the place of an empty one at most.
            Err(nix::Error::EINVAL) => fs::rename(self.path(), &self.output)
                .map_err(WorkError::io("put the bundle at", &self.output))?,
            result => result.map_err(fail)?,
        }
        let _ = self.folder.keep();
        Ok(())
    }
}

/// The bundle's files beside the disk.
pub(super) struct SmallFiles<'a> {
    pub(super) site_conf: &'a SiteConf,
    /// What the host must have, as a sentence.
    pub(super) host: &'static str,
    pub(super) image_id: ImageId,
    pub(super) firmware: &'a Firmware,
    pub(super) manifest: &'a [u8],
    pub(super) manifest_sig: &'a [u8],
    pub(super) reference: &'a [u8],
    pub(super) reference_sig: &'a [u8],
}

impl SmallFiles<'_> {
    pub(super) fn write(&self, folder: &Path) -> Result<(), ProvisionError> {
        let readme = self.readme();
        for (name, bytes, mode) in [
            (files::CODE, self.firmware.code.as_slice(), 0o644),
            (files::VARS, &self.firmware.variables, 0o644),
            (files::MANIFEST, self.manifest, 0o644),
            (files::MANIFEST_SIG, self.manifest_sig, 0o644),
            (files::REFERENCE, self.reference, 0o644),
            (files::REFERENCE_SIG, self.reference_sig, 0o644),
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
             ./launch_vm.sh          starts it; its first lines say which settings it takes\n{host}\n\
             The disk opens only after both key holders have accepted the machine's evidence. Until then the\n\
             serial console shows each step; a failure shows a code FC-nnn (docs/boot-codes.md of flare-cvm says\n\
             cause and cure) and the machine powers off. After the line `handoff` the console is silent.\n\n\
             Open ports: {allowed_ports:?}. Your own data: an ext4 file system without partitions in the file\n\
             user_data.qcow2 beside launch_vm.sh (or CVM_USER_DATA=FILE), or else in partition 6 of {disk}. The\n\
             CVM reads it at /user_data and never writes to it. A line SERVER:/EXPORT in its ext_mount.conf, and\n\
             an empty folder mnt, give NFS at /user_data/mnt where the outbound port 2049 is open.\n\n\
             Key holders enrol {manifest} and {reference} (each with its .sig).\n",
            host = self.host,
            id = self.image_id,
            disk = files::DISK,
            manifest = files::MANIFEST,
            reference = files::REFERENCE,
        )
    }
}
