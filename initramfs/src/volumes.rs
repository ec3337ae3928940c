//! What is only read: p2, p4, p3's `system` and `site`, p6.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use cvm_layout::manifest::{Manifest, Verity, Volume};
use cvm_seal::{
    guard::{self, Expected, GuardedHeader, Protection},
    guest::{self, Access, Slice},
};
use nix::mount::{MsFlags, mount};

use crate::{
    areas::fault,
    codes::{Code, Coded, Failure},
    platform::{
        disk::{Disk, Which},
        kernel::set_read_only,
    },
    release::AreaKeys,
    seal_plan::Fault,
    tree,
};

/// Where the system volume is mounted until it becomes `/`.
pub const NEW_ROOT: &str = "/sysroot";
/// One read of a volume that is read whole.
const CHUNK: usize = 1 << 20;

const READ_ONLY: MsFlags = MsFlags::MS_RDONLY.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOSUID);

/// A place in the running system.
pub fn guest_path(path: &str) -> PathBuf {
    Path::new(NEW_ROOT).join(path.trim_start_matches('/'))
}

/// Hashes all of p2 and compares its root: a changed byte anywhere ends the boot, used or not.
pub fn check_boot(disk: &Disk, verity: &Verity) -> Result<u64, Failure> {
    let device = disk.partition(Which::Boot).path();
    let found = tree::root_hash(&device, verity.data_bytes, &verity.salt).code(Code::BootVerity)?;
    if found == verity.root_hash {
        return Ok(verity.data_bytes);
    }
    Err(Failure::new(
        Code::BootVerity,
        format_args!("its root hash is {found}, signed is {}", verity.root_hash),
    ))
}

/// Opens p4 under its tree, reads all of it and mounts it at `at`.
pub fn open_config(disk: &Disk, verity: &Verity, at: &Path) -> Result<u64, Failure> {
    let device = disk.partition(Which::Config).path();
    let opened = guest::open_verity("cvm-config", &device, 0, verity).code(Code::ConfigVerity)?;
    let bytes = read_whole(&opened).code_at(Code::ConfigVerity, "reading it whole")?;
    fs::create_dir_all(at).code(Code::ConfigMount)?;
    mount(Some(&opened), at, Some("erofs"), READ_ONLY, None::<&str>).code(Code::ConfigMount)?;
    Ok(bytes)
}

/// Reads every byte: dm-verity judges a block when it is read.
fn read_whole(device: &Path) -> io::Result<u64> {
    let mut file = File::open(device)?;
    let mut chunk = vec![0; CHUNK];
    let mut total = 0;
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(total),
            count => total += count as u64,
        }
    }
}

/// Lets the guard judge p3's first header; opens nothing.
pub fn guard_root(disk: &Disk, keys: &AreaKeys) -> Result<GuardedHeader, Failure> {
    let bytes = guest::read_header(&disk.partition(Which::Root).path(), 0).code(Code::RootOpen)?;
    guard::check(&bytes, &Expected::new(Protection::Encrypted), &keys.mac).map_err(|e| match fault(
        &e,
    ) {
        Fault::NotWhitelisted => Failure::new(Code::RootHeader, e),
        Fault::NotAuthentic => Failure::new(Code::RootHeaderMac, e),
    })
}

/// Opens p3's first area, and mounts `system` as the new root and `site` in it.
pub fn open_root(
    disk: &Disk,
    manifest: &Manifest,
    header: &GuardedHeader,
    keys: &AreaKeys,
) -> Result<(), Failure> {
    let device = disk.partition(Which::Root).path();
    let root = &manifest.root;
    let slice = Slice { device: &device, offset: 0, length: root.sealed_bytes };
    let area = guest::linear("cvm-root-area", slice, Access::ReadOnly).code(Code::RootOpen)?;
    let opened = guest::open_sealed("cvm-root", &area, header, &keys.disk).code(Code::RootOpen)?;
    fs::create_dir_all(NEW_ROOT).code(Code::SystemVerity)?;
    mount_volume("cvm-system", &opened, &root.system, Path::new(NEW_ROOT))
        .code_at(Code::SystemVerity, "system")?;
    mount_volume("cvm-site", &opened, &root.site, &guest_path("/opt/nvflare/site"))
        .code_at(Code::SiteVerity, "site")
}

fn mount_volume(name: &str, area: &Path, volume: &Volume, at: &Path) -> Result<(), String> {
    let opened =
        guest::open_verity(name, area, volume.offset, &volume.verity).map_err(|e| e.to_string())?;
    mount(Some(&opened), at, Some("erofs"), READ_ONLY, None::<&str>)
        .map_err(|e| format!("cannot mount it: {e}"))
}

/// Attaches p6: no writes at the block layer, no journal replay, no devices, no set-id, no
/// programs.
pub fn open_data(disk: &Disk) -> Result<(), Failure> {
    let device = disk.partition(Which::Data).path();
    set_read_only(&device).code_at(Code::Data, "BLKROSET")?;
    let flags = READ_ONLY | MsFlags::MS_NOEXEC;
    mount(Some(&device), &guest_path("/opt/nvflare/data"), Some("ext4"), flags, Some("noload"))
        .code_at(Code::Data, "cannot mount it")
}
