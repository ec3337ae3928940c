//! What is verified before the keys are there: p2 and p4.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use cvm_layout::manifest::Verity;
use cvm_seal::guest;
use nix::mount::{MsFlags, mount};

use crate::{
    codes::{Code, Coded, Failure},
    console::step,
    platform::disk::{Disk, Which},
    tree,
};

/// One read of a volume that is read whole.
const CHUNK: usize = 1 << 20;

/// How every volume is mounted that nobody may write.
pub const READ_ONLY: MsFlags =
    MsFlags::MS_RDONLY.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOSUID);

/// Hashes all of p2 and compares its root: a changed byte anywhere ends the boot, used or not.
pub fn check_boot(disk: &Disk, verity: &Verity) -> Result<(), Failure> {
    let device = disk.partition(Which::Boot).path();
    let found = tree::root_hash(&device, verity.data_bytes, &verity.salt).code(Code::BootVerity)?;
    if found != verity.root_hash {
        return Err(Failure::new(
            Code::BootVerity,
            format_args!("its root hash is {found}, signed is {}", verity.root_hash),
        ));
    }
    step("p2", format_args!("verified, {} KiB", verity.data_bytes / 1024));
    Ok(())
}

/// Opens p4 under its tree, reads all of it and mounts it at `at`.
pub fn open_config(disk: &Disk, verity: &Verity, at: &Path) -> Result<(), Failure> {
    let device = disk.partition(Which::Config).path();
    let opened = guest::open_verity("cvm-config", &device, 0, verity).code(Code::ConfigVerity)?;
    let bytes = read_whole(&opened).code_at(Code::ConfigVerity, "reading it whole")?;
    fs::create_dir_all(at).code(Code::ConfigMount)?;
    mount(Some(&opened), at, Some("erofs"), READ_ONLY, None::<&str>).code(Code::ConfigMount)?;
    step("p4", format_args!("verified, {} KiB", bytes / 1024));
    Ok(())
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
