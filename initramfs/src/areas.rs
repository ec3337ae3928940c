//! The two authenticated areas, p5 and `state`, whose keys need all parties: judged, then made or
//! opened, together.
//!
//! Judging reads each header once and decides; it opens nothing, so that one bad header anywhere on
//! the disk ends the boot with every volume still closed.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use cvm_base::Bytes32;
use cvm_layout::manifest::Manifest;
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
        kernel::SCRATCH,
    },
    release::{AreaKeys, DataKeys},
    seal_plan::{Fault, HeaderState, Memory, Plan, Refusal, seal_plan},
    volumes::NEW_ROOT,
};

const READ_WRITE: MsFlags = MsFlags::MS_NODEV.union(MsFlags::MS_NOSUID);
const STATE: &str = "opt/nvflare/state";
const JOBS: &str = "opt/nvflare/jobs";
/// Folders of `state` that are mounted beside it.
const BOUND: [&str; 2] = ["workspace", "logs"];
/// A file system that meets a sector with a wrong tag is written no more.
const ON_ERRORS: &str = "errors=remount-ro";

/// Where an area lies, and the codes by which it fails.
#[derive(Debug)]
struct Area {
    /// For messages and mappings.
    name: &'static str,
    device: PathBuf,
    /// `None`: the area fills the device.
    slice: Option<(u64, u64)>,
    header: Code,
    mac: Code,
    wiped: Code,
    open: Code,
    make: Code,
}

/// With what a file system is made, and where it is mounted.
#[derive(Debug, Clone, Copy)]
pub struct Workshop<'a> {
    /// The system volume: its tools are used, and the areas are mounted in it.
    pub root: &'a Path,
    /// A folder in RAM.
    pub scratch: &'a Path,
}

impl Workshop<'_> {
    /// The initramfs's.
    pub fn of_boot() -> Self {
        Self { root: Path::new(NEW_ROOT), scratch: Path::new(SCRATCH) }
    }
}

/// p5 and `state`, whose headers were judged with these keys: nothing was opened, and nothing
/// stands against it.
pub struct Data {
    keys: DataKeys,
    jobs: Judged,
    state: Judged,
}

impl Data {
    /// Judges both by their headers and by what the key holders remember.
    pub fn judge(
        disk: &Disk,
        manifest: &Manifest,
        keys: DataKeys,
        memories: &[Memory],
    ) -> Result<Self, Failure> {
        let jobs = judge_jobs(disk, &keys.jobs, memories)?;
        let state = judge_state(disk, manifest, &keys.state, memories)?;
        Ok(Self { keys, jobs, state })
    }

    /// Whose halves made their keys.
    pub fn parties(&self) -> &str {
        &self.keys.jobs.from
    }

    /// Makes or opens both, mounts them in the workshop's root and returns the SHA-256 of p5's
    /// header.
    pub fn open(&self, workshop: Workshop<'_>) -> Result<Bytes32, Failure> {
        let at = workshop.root.join(STATE);
        self.state.open(&self.keys.state, &at, MsFlags::empty(), workshop)?;
        for name in BOUND {
            bind(&at.join(name), &workshop.root.join("opt/nvflare").join(name))?;
        }
        self.jobs.open(&self.keys.jobs, &workshop.root.join(JOBS), MsFlags::MS_NOEXEC, workshop)
    }
}

/// Mounts a folder, made where it is missing, at a second place.
fn bind(from: &Path, to: &Path) -> Result<(), Failure> {
    match DirBuilder::new().mode(0o700).create(from) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(e).code_at(Code::StateOpen, from.display());
        }
        _ => {}
    }
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .code_at(Code::StateOpen, to.display())
}

/// An area whose header was judged.
#[derive(Debug)]
struct Judged {
    area: Area,
    plan: Plan,
    header: Option<GuardedHeader>,
}

/// Judges p5 by its header and by what the key holders remember of it.
fn judge_jobs(disk: &Disk, keys: &AreaKeys, memories: &[Memory]) -> Result<Judged, Failure> {
    let area = Area {
        name: "jobs",
        device: disk.partition(Which::Jobs).path(),
        slice: None,
        header: Code::JobsHeader,
        mac: Code::JobsHeaderMac,
        wiped: Code::JobsWiped,
        open: Code::JobsOpen,
        make: Code::JobsMake,
    };
    area.judge(keys, memories)
}

/// Judges `state` by its header and by whether the key holders have seen the image sealed: of
/// `state`'s header they remember nothing.
fn judge_state(
    disk: &Disk,
    manifest: &Manifest,
    keys: &AreaKeys,
    memories: &[Memory],
) -> Result<Judged, Failure> {
    let root = disk.partition(Which::Root);
    let offset = manifest.root.state_offset;
    let area = Area {
        name: "state",
        device: root.path(),
        slice: Some((offset, root.length.saturating_sub(offset))),
        header: Code::StateHeader,
        mac: Code::StateHeaderMac,
        wiped: Code::StateWiped,
        open: Code::StateOpen,
        make: Code::StateMake,
    };
    let strip = |memory: &Memory| {
        if matches!(memory, Memory::Sealed(_)) { Memory::Sealed(None) } else { *memory }
    };
    area.judge(keys, &memories.iter().map(strip).collect::<Vec<_>>())
}

impl Area {
    fn judge(self, keys: &AreaKeys, memories: &[Memory]) -> Result<Judged, Failure> {
        let offset = self.slice.map_or(0, |(offset, _)| offset);
        let bytes = guest::read_header(&self.device, offset).code(self.open)?;
        let (header, state, reason) =
            match guard::check(&bytes, &Expected::new(Protection::Authenticated), &keys.mac) {
                Ok(header) => {
                    (Some(header.clone()), HeaderState::Ours(header.digest()), String::new())
                }
                Err(error) => (None, state_of(&bytes, &error), error.to_string()),
            };
        match seal_plan(state, memories) {
            Plan::Refuse(refusal) => Err(self.refused(refusal, &reason)),
            plan => Ok(Judged { area: self, plan, header }),
        }
    }

    fn refused(&self, refusal: Refusal, reason: &str) -> Failure {
        let (code, detail) = match refusal {
            Refusal::NotWhitelisted => (self.header, reason),
            Refusal::NotAuthentic => (self.mac, reason),
            Refusal::Wiped => (self.wiped, "the key holders remember that it was sealed"),
            Refusal::NotTheRegistered => {
                (Code::JobsOther, "its header's digest is not the registered one")
            }
            Refusal::HoldersDisagree => (Code::HoldersDisagree, "they name different headers"),
        };
        Failure::new(code, detail)
    }

    /// Formats it, with an ext4 in it.
    fn make(
        &self,
        device: &Path,
        keys: &AreaKeys,
        workshop: Workshop<'_>,
    ) -> Result<(PathBuf, Bytes32), Failure> {
        let scratch = workshop.scratch.join(self.name);
        let mkfs = |image: &Path| mkfs::ext4(workshop.root, image);
        let made = guest::create_authenticated(
            &self.mapping(),
            device,
            &keys.disk,
            &keys.mac,
            &scratch,
            mkfs,
        );
        let (path, header) = made.map_err(|e| match e {
            SealError::MakeFileSystem { .. } => Failure::new(Code::Mkfs, e),
            e => Failure::new(self.make, e),
        })?;
        Ok((path, header.digest()))
    }

    fn mapping(&self) -> String {
        format!("cvm-{}", self.name)
    }
}

impl Judged {
    /// Makes or opens the area, mounts it at `at` and returns its header's SHA-256.
    fn open(
        &self,
        keys: &AreaKeys,
        at: &Path,
        flags: MsFlags,
        workshop: Workshop<'_>,
    ) -> Result<Bytes32, Failure> {
        let area = &self.area;
        let device = match area.slice {
            None => area.device.clone(),
            Some((offset, length)) => {
                let slice = Slice { device: &area.device, offset, length };
                guest::linear(&format!("{}-area", area.mapping()), slice, Access::ReadWrite)
                    .code(area.open)?
            }
        };
        let (opened, digest) = match &self.header {
            None => area.make(&device, keys, workshop)?,
            Some(header) => {
                let opened = guest::open_sealed(&area.mapping(), &device, header, &keys.disk)
                    .code(area.open)?;
                (opened, header.digest())
            }
        };
        mount(Some(&opened), at, Some("ext4"), READ_WRITE | flags, Some(ON_ERRORS))
            .code_at(area.open, "cannot mount it")?;
        let done = match self.plan {
            Plan::Make => "made and opened",
            Plan::Adopt => "opened (made by a boot that died before every key holder knew)",
            _ => "opened",
        };
        step(area.name, format_args!("{done} with key `{}` from {}", area.name, keys.from));
        Ok(digest)
    }
}

/// What a refused header is, by the guard's reason and by whether a seal record is there.
fn state_of(bytes: &[u8], error: &GuardError) -> HeaderState {
    let finished =
        bytes.get(record::OFFSET..).is_some_and(|record| record.starts_with(record::MAGIC));
    match error {
        GuardError::Blank => HeaderState::Blank,
        _ if finished => HeaderState::Foreign(fault(error)),
        _ => HeaderState::Unfinished(fault(error)),
    }
}

/// Which of the two faults a guard's error is.
pub(crate) fn fault(error: &GuardError) -> Fault {
    match error {
        GuardError::Mac | GuardError::NoRecord => Fault::NotAuthentic,
        _ => Fault::NotWhitelisted,
    }
}

#[cfg(test)]
mod tests {
    use cvm_seal::{DiskKey, HEADER_BYTES, MacKey};

    use super::*;

    const D: Bytes32 = Bytes32 { 0: [1; 32] };

    fn keys() -> AreaKeys {
        AreaKeys { disk: DiskKey::new(&[1; 32]), mac: MacKey::new(&[2; 32]), from: "both".into() }
    }

    /// Judges `content` as p5's first bytes.
    fn judge(content: &[u8], memories: &[Memory]) -> Result<Plan, Code> {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("p5");
        std::fs::write(&device, content).unwrap();
        let area = Area {
            name: "jobs",
            device,
            slice: None,
            header: Code::JobsHeader,
            mac: Code::JobsHeaderMac,
            wiped: Code::JobsWiped,
            open: Code::JobsOpen,
            make: Code::JobsMake,
        };
        area.judge(&keys(), memories).map(|judged| judged.plan).map_err(|failure| failure.code)
    }

    fn with_record(mut area: Vec<u8>) -> Vec<u8> {
        record::write(&mut area, &MacKey::new(&[3; 32])).unwrap();
        area
    }

    #[test]
    fn a_wiped_p5_is_fatal_unless_nobody_ever_saw_it_sealed() {
        let blank = vec![0; HEADER_BYTES];
        assert_eq!(judge(&blank, &[Memory::Fresh, Memory::Fresh]), Ok(Plan::Make));
        assert_eq!(judge(&blank, &[Memory::Fresh, Memory::Sealed(Some(D))]), Err(Code::JobsWiped));
    }

    #[test]
    fn a_first_boot_that_died_in_the_middle_begins_again() {
        let torn = vec![0x5a; HEADER_BYTES];
        assert_eq!(judge(&torn, &[Memory::Fresh]), Ok(Plan::Make));
        assert_eq!(judge(&torn, &[Memory::Sealed(Some(D))]), Err(Code::JobsHeader));
    }

    #[test]
    fn attack_a_foreign_sealed_area_is_refused_even_on_a_first_boot() {
        let foreign = with_record(vec![0x5a; HEADER_BYTES]);
        for memory in [Memory::None, Memory::Fresh, Memory::Sealed(Some(D))] {
            assert_eq!(judge(&foreign, &[memory]), Err(Code::JobsHeader));
        }
    }

    #[test]
    fn a_short_device_is_an_error() {
        assert_eq!(judge(&[0; 4096], &[Memory::Fresh]), Err(Code::JobsOpen));
    }
}
