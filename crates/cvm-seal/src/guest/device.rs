//! Mappings that need no key: slices and verity.

use std::path::{Path, PathBuf};

use cvm_layout::manifest::Verity;
use devicemapper::{DM, DevId, DmError, DmFlags, DmName, DmOptions};

use crate::{error::SealError, format::BLOCK};

/// The kernel's unit of device lengths, in bytes.
const SECTOR: u64 = 512;

/// Whether a mapping may be written to; the kernel enforces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Writes fail.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// A range of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice<'a> {
    /// The block device.
    pub device: &'a Path,
    /// First byte, a multiple of 4096.
    pub offset: u64,
    /// Length in bytes, a multiple of 4096.
    pub length: u64,
}

/// Maps a slice as a device of its own and returns its path.
pub fn linear(name: &str, slice: Slice<'_>, access: Access) -> Result<PathBuf, SealError> {
    if slice.offset != 0 {
        SealError::multiple_of("a slice's offset", slice.offset, BLOCK)?;
    }
    let length = SealError::multiple_of("a slice's length", slice.length, BLOCK)?;
    let table = format!("{} {}", slice.device.display(), slice.offset / SECTOR);
    map(name, "linear", length, table, access)
}

/// Opens a volume with its tree after it, from byte `offset` of `device` on, and returns its path.
///
/// Read-only. All parameters come from `verity`, and so from the measured manifest; the superblock
/// on the disk is not read. A damaged block fails with `EIO` when it is read. With an `offset`, the
/// mapping lies on a slice `NAME-slice`.
pub fn open_verity(
    name: &str,
    device: &Path,
    offset: u64,
    verity: &Verity,
) -> Result<PathBuf, SealError> {
    let length =
        SealError::multiple_of("the length of a volume under verity", verity.data_bytes, BLOCK)?;
    let below = if offset == 0 {
        device.to_owned()
    } else {
        linear(
            &slice_name(name),
            Slice { device, offset, length: verity.total_bytes },
            Access::ReadOnly,
        )?
    };
    let blocks = length / BLOCK;
    let table = format!(
        "1 {below} {below} {BLOCK} {BLOCK} {blocks} {tree} sha256 {root} {salt}",
        below = below.display(),
        tree = blocks + 1,
        root = verity.root_hash,
        salt = verity.salt,
    );
    let opened = map(name, "verity", length, table, Access::ReadOnly);
    if opened.is_err() && offset != 0 {
        // The first error is the one to report.
        let _ = close(&slice_name(name));
    }
    opened
}

/// Removes the mapping `name` and what this module or libcryptsetup put below it.
///
/// Waits for writes; fails while something is mounted from it.
pub fn close(name: &str) -> Result<(), SealError> {
    let fail = |source| SealError::DeviceMapper { action: "close", name: name.to_owned(), source };
    let dm = DM::new().map_err(fail)?;
    dm.device_remove(&DevId::Name(dm_name(name)?), DmOptions::default()).map_err(fail)?;
    let existing = dm.list_devices().map_err(fail)?;
    // `_dif` is libcryptsetup's dm-integrity device below an authenticated area.
    for below in [slice_name(name), format!("{name}_dif")] {
        if existing.iter().any(|(found, _, _)| found.to_string() == below) {
            dm.device_remove(&DevId::Name(dm_name(&below)?), DmOptions::default()).map_err(fail)?;
        }
    }
    Ok(())
}

/// `/dev/dm-N` of an existing mapping.
pub(super) fn path_of(name: &str) -> Result<PathBuf, SealError> {
    let fail = |source| SealError::DeviceMapper { action: "find", name: name.to_owned(), source };
    let info = DM::new().map_err(fail)?.device_info(&DevId::Name(dm_name(name)?)).map_err(fail)?;
    Ok(PathBuf::from(format!("/dev/dm-{}", info.device().minor)))
}

fn map(
    name: &str,
    target: &str,
    length: u64,
    table: String,
    access: Access,
) -> Result<PathBuf, SealError> {
    let fail =
        |action| move |source| SealError::DeviceMapper { action, name: name.to_owned(), source };
    let id = DevId::Name(dm_name(name)?);
    let options = match access {
        Access::ReadOnly => DmOptions::default().set_flags(DmFlags::DM_READONLY),
        Access::ReadWrite => DmOptions::default(),
    };
    let dm = DM::new().map_err(fail("reach the kernel for"))?;
    dm.device_create(dm_name(name)?, None, DmOptions::default()).map_err(fail("create"))?;
    let activate = || -> Result<(), DmError> {
        dm.table_load(&id, &[(0, length / SECTOR, target.to_owned(), table.clone())], options)?;
        dm.device_suspend(&id, DmOptions::default())?;
        Ok(())
    };
    if let Err(error) = activate() {
        // The first error is the one to report.
        let _ = dm.device_remove(&id, DmOptions::default());
        return Err(fail("activate")(error));
    }
    path_of(name)
}

fn slice_name(name: &str) -> String {
    format!("{name}-slice")
}

fn dm_name(name: &str) -> Result<&DmName, SealError> {
    DmName::new(name).map_err(|source| SealError::DeviceMapper {
        action: "name",
        name: name.to_owned(),
        source,
    })
}
