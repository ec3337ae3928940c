//! p3's first area, which the builder sealed: `system`, the new root, and `site` in it.
//!
//! The order of a boot is in the types. A header passes the guard ([`GuardedRoot`]) before p3
//! opens. With a released key it opens only where the exchange is [`Settled`], which is after p5's
//! and `state`'s headers were judged too. What is mounted in the new root needs an [`OpenRoot`].

use std::{
    fs,
    path::{Path, PathBuf},
};

use cvm_layout::manifest::{Manifest, Volume};
use cvm_seal::{
    guard::{self, Expected, GuardedHeader, Protection},
    guest::{self, Access, Slice},
};
use nix::mount::{MsFlags, mount};

use crate::{
    codes::{Code, Coded, Failure},
    console::step,
    machine::{self, Keeper},
    platform::{
        disk::{Disk, Which},
        kernel::set_read_only,
    },
    release::{AreaKeys, Exchange, Settled},
    seal_plan::Fault,
    volumes::READ_ONLY,
};

/// Where the system volume is mounted until it becomes `/`.
const NEW_ROOT: &str = "/sysroot";

/// p3, whose header the guard passed under these keys: nothing is opened.
pub struct GuardedRoot {
    header: GuardedHeader,
    keys: AreaKeys,
}

/// `system` and `site` are mounted.
#[derive(Debug)]
pub struct OpenRoot(());

impl GuardedRoot {
    /// Lets the guard judge the header.
    pub fn guard(disk: &Disk, keys: AreaKeys) -> Result<Self, Failure> {
        let device = disk.partition(Which::Root).path();
        let bytes = guest::read_header(&device, 0).code(Code::RootOpen)?;
        let header = guard::check(&bytes, &Expected::new(Protection::Encrypted), &keys.mac);
        let header = header.map_err(|e| match Fault::from(&e) {
            Fault::NotWhitelisted => Failure::new(Code::RootHeader, e),
            Fault::NotAuthentic => Failure::new(Code::RootHeaderMac, e),
        })?;
        Ok(Self { header, keys })
    }

    /// Whose halves made its key, for the console.
    pub fn from(&self) -> &str {
        &self.keys.from
    }

    /// Opens p3 with the released key, after every header on the disk was judged.
    pub fn open(
        self,
        disk: &Disk,
        manifest: &Manifest,
        _judged: &Exchange<'_, Settled>,
    ) -> Result<OpenRoot, Failure> {
        self.mount(disk, manifest)
    }

    /// Opens the area, and mounts `system` as the new root and `site` in it.
    fn mount(self, disk: &Disk, manifest: &Manifest) -> Result<OpenRoot, Failure> {
        let Self { header, keys } = self;
        let device = disk.partition(Which::Root).path();
        let volumes = &manifest.root;
        let slice = Slice { device: &device, offset: 0, length: volumes.sealed_bytes };
        let area = guest::linear("cvm-root-area", slice, Access::ReadOnly).code(Code::RootOpen)?;
        let opened =
            guest::open_sealed("cvm-root", &area, &header, &keys.disk).code(Code::RootOpen)?;
        fs::create_dir_all(NEW_ROOT).code(Code::SystemVerity)?;
        mount_volume("cvm-system", &opened, &volumes.system, Path::new(NEW_ROOT))
            .code_at(Code::SystemVerity, "system")?;
        let root = OpenRoot(());
        mount_volume("cvm-site", &opened, &volumes.site, &root.join("/opt/nvflare/site"))
            .code_at(Code::SiteVerity, "site")?;
        let from = keys.from;
        step(
            "p3",
            format_args!("opened with key `system` from {from}; system and site under verity"),
        );
        Ok(root)
    }
}

/// Opens p3 with the copy of its key that this machine's TPM keeps, if it keeps one that the
/// header proves: then p3 needs nobody's answer.
pub fn open_with_kept_key(
    disk: &Disk,
    manifest: &Manifest,
    keeper: Keeper<'_>,
) -> Result<Option<OpenRoot>, Failure> {
    let Some(keys) = machine::recall_system(keeper, &manifest.image_id)? else { return Ok(None) };
    match GuardedRoot::guard(disk, keys) {
        Ok(guarded) => guarded.mount(disk, manifest).map(Some),
        Err(Failure { detail, .. }) => {
            step(
                "machine",
                format_args!("asking for p3's key: the TPM's copy does not fit: {detail}"),
            );
            Ok(None)
        }
    }
}

fn mount_volume(name: &str, area: &Path, volume: &Volume, at: &Path) -> Result<(), String> {
    let opened =
        guest::open_verity(name, area, volume.offset, &volume.verity).map_err(|e| e.to_string())?;
    mount(Some(&opened), at, Some("erofs"), READ_ONLY, None::<&str>)
        .map_err(|e| format!("cannot mount it: {e}"))
}

impl OpenRoot {
    /// Where it is mounted in the initramfs.
    pub fn path(&self) -> &Path {
        Path::new(NEW_ROOT)
    }

    /// A place in the running system.
    pub fn join(&self, path: &str) -> PathBuf {
        self.path().join(path.trim_start_matches('/'))
    }

    /// Attaches p6: no writes at the block layer, no journal replay, no devices, no set-id, no
    /// programs.
    pub fn attach_data(&self, disk: &Disk) -> Result<(), Failure> {
        let device = disk.partition(Which::Data).path();
        set_read_only(&device).code_at(Code::Data, "BLKROSET")?;
        let (at, flags) = (self.join("/opt/nvflare/data"), READ_ONLY | MsFlags::MS_NOEXEC);
        mount(Some(&device), &at, Some("ext4"), flags, Some("noload"))
            .code_at(Code::Data, "cannot mount it")?;
        step("p6", "attached read-only");
        Ok(())
    }

    /// Moves a mount made in the initramfs to its place in the running system.
    pub fn move_mount(&self, from: &Path, to: &str) -> Result<(), Failure> {
        let to = self.join(to);
        mount(Some(from), &to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .code_at(Code::SwitchRoot, to.display())
    }
}
