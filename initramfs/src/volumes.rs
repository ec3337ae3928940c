//! The volumes behind the partitions: verity, LUKS2 areas, mounts.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use cvm_base::Bytes32;
use cvm_layout::manifest::{Manifest, Verity, Volume};
use cvm_seal::{
    SealError,
    guard::{self, Expected, GuardError, GuardedHeader, Protection, record},
    guest::{self, Access, Slice},
};
use nix::mount::{MsFlags, mount};

use crate::{
    codes::{Code, Coded, Failure},
    console::step,
    mkfs,
    platform::{
        disk::{Disk, Which},
        kernel::{SCRATCH, set_read_only},
    },
    release::AreaKeys,
    seal_plan::{Fault, HeaderState, Plan, Refusal},
};

/// Where the system volume is mounted until it becomes `/`.
pub const NEW_ROOT: &str = "/sysroot";
/// One read of a volume that is read whole.
const CHUNK: usize = 1 << 20;

const READ_ONLY: MsFlags = MsFlags::MS_RDONLY.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOSUID);
const READ_WRITE: MsFlags = MsFlags::MS_NODEV.union(MsFlags::MS_NOSUID);

/// A place in the running system.
pub fn guest_path(path: &str) -> PathBuf {
    Path::new(NEW_ROOT).join(path.trim_start_matches('/'))
}

/// Reads all of p2 through its tree: a changed byte anywhere ends the boot, used or not.
pub fn check_boot(disk: &Disk, verity: &Verity) -> Result<u64, Failure> {
    let device = disk.partition(Which::Boot).path();
    let opened = guest::open_verity("cvm-boot", &device, 0, verity).code(Code::BootVerity)?;
    let bytes = read_whole(&opened).code_at(Code::BootVerity, "reading it whole")?;
    guest::close("cvm-boot").code(Code::BootVerity)?;
    Ok(bytes)
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

/// Guards and opens p3's first area, and mounts `system` as the new root and `site` in it.
pub fn open_root(disk: &Disk, manifest: &Manifest, keys: &AreaKeys) -> Result<(), Failure> {
    let device = disk.partition(Which::Root).path();
    let root = &manifest.root;
    let bytes = guest::read_header(&device, 0).code(Code::RootOpen)?;
    let header = guard::check(&bytes, &Expected::new(Protection::Encrypted), &keys.mac).map_err(|e| {
        let code = if fault(&e) == Fault::NotWhitelisted { Code::RootHeader } else { Code::RootHeaderMac };
        Failure::new(code, e)
    })?;
    let slice = Slice { device: &device, offset: 0, length: root.sealed_bytes };
    let area = guest::linear("cvm-root-area", slice, Access::ReadOnly).code(Code::RootOpen)?;
    let opened = guest::open_sealed("cvm-root", &area, &header, &keys.disk).code(Code::RootOpen)?;
    fs::create_dir_all(NEW_ROOT).code(Code::SystemVerity)?;
    mount_volume("cvm-system", &opened, &root.system, Path::new(NEW_ROOT)).code_at(Code::SystemVerity, "system")?;
    mount_volume("cvm-site", &opened, &root.site, &guest_path("/opt/nvflare/site")).code_at(Code::SiteVerity, "site")
}

fn mount_volume(name: &str, area: &Path, volume: &Volume, at: &Path) -> Result<(), String> {
    let opened = guest::open_verity(name, area, volume.offset, &volume.verity).map_err(|e| e.to_string())?;
    mount(Some(&opened), at, Some("erofs"), READ_ONLY, None::<&str>).map_err(|e| format!("cannot mount it: {e}"))
}

/// An authenticated area: p5, or `state` on its slice of p3.
pub struct Area {
    /// Its name, for messages and mappings.
    pub name: &'static str,
    device: PathBuf,
    codes: AreaCodes,
}

/// The codes by which an area fails.
#[derive(Clone, Copy)]
struct AreaCodes {
    header: Code,
    mac: Code,
    wiped: Code,
    open: Code,
    make: Code,
}

impl Area {
    /// p5.
    pub fn jobs(disk: &Disk) -> Self {
        let codes = AreaCodes {
            header: Code::JobsHeader,
            mac: Code::JobsHeaderMac,
            wiped: Code::JobsWiped,
            open: Code::JobsOpen,
            make: Code::JobsMake,
        };
        Self { name: "jobs", device: disk.partition(Which::Jobs).path(), codes }
    }

    /// p3's second area.
    pub fn state(disk: &Disk, manifest: &Manifest) -> Result<Self, Failure> {
        let codes = AreaCodes {
            header: Code::StateHeader,
            mac: Code::StateHeaderMac,
            wiped: Code::StateWiped,
            open: Code::StateOpen,
            make: Code::StateMake,
        };
        let root = disk.partition(Which::Root);
        let offset = manifest.root.state_offset;
        let length = root.length.saturating_sub(offset);
        let slice = Slice { device: &root.path(), offset, length };
        let device = guest::linear("cvm-state-area", slice, Access::ReadWrite).code(codes.open)?;
        Ok(Self { name: "state", device, codes })
    }

    /// Reads the header once and lets the guard judge it.
    pub fn inspect(&self, keys: &AreaKeys) -> Result<Inspected, Failure> {
        let bytes = guest::read_header(&self.device, 0).code(self.codes.open)?;
        Ok(match guard::check(&bytes, &Expected::new(Protection::Authenticated), &keys.mac) {
            Ok(header) => {
                Inspected { state: HeaderState::Ours(header.digest()), header: Some(header), reason: String::new() }
            }
            Err(error) => Inspected { state: state_of(&bytes, &error), header: None, reason: error.to_string() },
        })
    }

    /// Does what the plan says and returns the mapping and the header's digest.
    pub fn carry_out(&self, plan: Plan, seen: &Inspected, keys: &AreaKeys) -> Result<(PathBuf, Bytes32), Failure> {
        let (name, from) = (self.name, &keys.from);
        let opened = match plan {
            Plan::Refuse(refusal) => return Err(self.refused(refusal, &seen.reason)),
            Plan::Make => self.make(keys)?,
            Plan::Adopt | Plan::Open => self.open(seen, keys)?,
        };
        let done = match plan {
            Plan::Make => "made and opened",
            Plan::Adopt => "kept from a first boot that did not end, opened",
            _ => "opened",
        };
        step(name, format_args!("{done} with key `{name}` from {from}"));
        Ok(opened)
    }

    /// Opens what [`Self::inspect`] passed.
    fn open(&self, inspected: &Inspected, keys: &AreaKeys) -> Result<(PathBuf, Bytes32), Failure> {
        let header = inspected.header.as_ref().ok_or("the guard did not pass it").code(self.codes.open)?;
        let path = guest::open_sealed(&self.mapping(), &self.device, header, &keys.disk).code(self.codes.open)?;
        Ok((path, header.digest()))
    }

    /// Formats it.
    fn make(&self, keys: &AreaKeys) -> Result<(PathBuf, Bytes32), Failure> {
        let scratch = Path::new(SCRATCH).join(self.name);
        let made =
            guest::create_authenticated(&self.mapping(), &self.device, &keys.disk, &keys.mac, &scratch, mkfs::ext4);
        let (path, header) = made.map_err(|e| match e {
            SealError::MakeFileSystem { .. } => Failure::new(Code::Mkfs, e),
            e => Failure::new(self.codes.make, e),
        })?;
        Ok((path, header.digest()))
    }

    /// Mounts what [`Self::open`] or [`Self::make`] returned.
    pub fn mount(&self, opened: &Path, at: &Path, flags: MsFlags) -> Result<(), Failure> {
        mount(Some(opened), at, Some("ext4"), READ_WRITE | flags, None::<&str>)
            .code_at(self.codes.open, "cannot mount it")
    }

    /// The failure that a refusal stands for.
    fn refused(&self, refusal: Refusal, reason: &str) -> Failure {
        let (code, detail) = match refusal {
            Refusal::NotWhitelisted => (self.codes.header, reason),
            Refusal::NotAuthentic => (self.codes.mac, reason),
            Refusal::Wiped => (self.codes.wiped, "the key holders remember that it was sealed"),
            Refusal::NotTheRegistered => (Code::JobsOther, "its header's digest is not the registered one"),
            Refusal::HoldersDisagree => (Code::HoldersDisagree, "they name different headers"),
        };
        Failure::new(code, detail)
    }

    fn mapping(&self) -> String {
        format!("cvm-{}", self.name)
    }
}

/// What [`Area::inspect`] found.
pub struct Inspected {
    /// For [`crate::seal_plan::seal_plan`].
    pub state: HeaderState,
    /// Why the guard refused, if it did.
    pub reason: String,
    header: Option<GuardedHeader>,
}

/// What a refused header is, by the guard's reason and by whether a seal record is there.
fn state_of(bytes: &[u8], error: &GuardError) -> HeaderState {
    let finished = bytes.get(record::OFFSET..).is_some_and(|record| record.starts_with(record::MAGIC));
    match error {
        GuardError::Blank => HeaderState::Blank,
        _ if finished => HeaderState::Foreign(fault(error)),
        _ => HeaderState::Unfinished(fault(error)),
    }
}

fn fault(error: &GuardError) -> Fault {
    match error {
        GuardError::Mac | GuardError::NoRecord => Fault::NotAuthentic,
        _ => Fault::NotWhitelisted,
    }
}

/// Attaches p6: no writes at the block layer, no journal replay, no devices, no set-id, no programs.
pub fn open_data(disk: &Disk) -> Result<(), Failure> {
    let device = disk.partition(Which::Data).path();
    set_read_only(&device).code_at(Code::Data, "BLKROSET")?;
    let flags = READ_ONLY | MsFlags::MS_NOEXEC;
    mount(Some(&device), &guest_path("/opt/nvflare/data"), Some("ext4"), flags, Some("noload"))
        .code_at(Code::Data, "cannot mount it")
}
