//! The two authenticated areas, p5 and `state`, whose keys need all parties: judged, then formatted
//! or opened, together.
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
    MacKey, SealError,
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
    release::{AreaKeys, DataKeys, HeaderKeys},
    root::OpenRoot,
    seal_plan::{HeaderState, PlanRefusal, SealMemory, SealPlan, seal_plan},
};

const READ_WRITE: MsFlags = MsFlags::MS_NODEV.union(MsFlags::MS_NOSUID);
const STATE: &str = "opt/nvflare/state";
const JOBS: &str = "opt/nvflare/jobs";
/// Folders of `state` that are mounted beside it.
const BOUND: [&str; 2] = ["workspace", "logs"];
/// A file system that meets a sector with a wrong tag is not written any more.
const ON_ERRORS: &str = "errors=remount-ro";

/// Where an area lies, and the codes by which it fails.
#[derive(Debug)]
struct Area {
    /// For messages and mappings.
    name: &'static str,
    device: PathBuf,
    /// `None`: the area fills the device.
    slice: Option<(u64, u64)>,
    codes: AreaCodes,
}

/// The code of each way in which an area fails.
#[derive(Debug, Clone, Copy)]
struct AreaCodes {
    header_not_whitelisted: Code,
    header_not_authentic: Code,
    wiped: Code,
    does_not_open: Code,
    cannot_be_made: Code,
}

const JOBS_CODES: AreaCodes = AreaCodes {
    header_not_whitelisted: Code::JobsHeader,
    header_not_authentic: Code::JobsHeaderMac,
    wiped: Code::JobsWiped,
    does_not_open: Code::JobsOpen,
    cannot_be_made: Code::JobsMake,
};

const STATE_CODES: AreaCodes = AreaCodes {
    header_not_whitelisted: Code::StateHeader,
    header_not_authentic: Code::StateHeaderMac,
    wiped: Code::StateWiped,
    does_not_open: Code::StateOpen,
    cannot_be_made: Code::StateMake,
};

/// With what a file system is made, and where it is mounted.
#[derive(Debug, Clone, Copy)]
pub struct Workshop<'a> {
    /// The system volume: its tools are used, and the areas are mounted in it.
    pub root: &'a Path,
    /// A folder in RAM.
    pub scratch: &'a Path,
}

impl<'a> Workshop<'a> {
    /// The initramfs's.
    pub fn of_boot(root: &'a OpenRoot) -> Self {
        Self { root: root.path(), scratch: Path::new(SCRATCH) }
    }
}

/// p5 and `state`, whose headers were judged: nothing was opened, and nothing speaks against it.
pub struct JudgedData {
    jobs: JudgedArea,
    state: JudgedArea,
}

impl JudgedData {
    /// Judges both by their headers and by what the key holders remember.
    pub fn judge(
        disk: &Disk,
        manifest: &Manifest,
        keys: &HeaderKeys,
        memories: &[SealMemory],
    ) -> Result<Self, Failure> {
        let jobs = judge_jobs(disk, &keys.jobs, memories)?;
        let state = judge_state(disk, manifest, &keys.state, memories)?;
        Ok(Self { jobs, state })
    }

    /// Formats or opens both, as they were judged, mounts them in the workshop's root and returns
    /// the SHA-256 of p5's header.
    pub fn open_or_format(
        self,
        keys: &DataKeys,
        workshop: Workshop<'_>,
    ) -> Result<Bytes32, Failure> {
        let at = workshop.root.join(STATE);
        self.state.open_or_format(&keys.state, &at, MsFlags::empty(), workshop)?;
        for name in BOUND {
            bind(&at.join(name), &workshop.root.join("opt/nvflare").join(name))?;
        }
        let at = workshop.root.join(JOBS);
        self.jobs.open_or_format(&keys.jobs, &at, MsFlags::MS_NOEXEC, workshop)
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
struct JudgedArea {
    area: Area,
    plan: SealPlan,
    header: Option<GuardedHeader>,
}

/// Judges p5 by its header and by what the key holders remember of it.
fn judge_jobs(disk: &Disk, mac: &MacKey, memories: &[SealMemory]) -> Result<JudgedArea, Failure> {
    let device = disk.partition(Which::Jobs).path();
    Area { name: "jobs", device, slice: None, codes: JOBS_CODES }.judge(mac, memories)
}

/// Judges `state` by its header and by whether the key holders have seen the image sealed: of
/// `state`'s header they remember nothing.
fn judge_state(
    disk: &Disk,
    manifest: &Manifest,
    mac: &MacKey,
    memories: &[SealMemory],
) -> Result<JudgedArea, Failure> {
    let root = disk.partition(Which::Root);
    let offset = manifest.root.state_offset;
    let slice = Some((offset, root.length.saturating_sub(offset)));
    let area = Area { name: "state", device: root.path(), slice, codes: STATE_CODES };
    let without_digest = |memory: &SealMemory| {
        if matches!(memory, SealMemory::Sealed(_)) { SealMemory::Sealed(None) } else { *memory }
    };
    area.judge(mac, &memories.iter().map(without_digest).collect::<Vec<_>>())
}

impl Area {
    fn judge(self, mac: &MacKey, memories: &[SealMemory]) -> Result<JudgedArea, Failure> {
        let offset = self.slice.map_or(0, |(offset, _)| offset);
        let bytes = guest::read_header(&self.device, offset).code(self.codes.does_not_open)?;
        let (header, state, reason) =
            match guard::check(&bytes, &Expected::new(Protection::Authenticated), mac) {
                Ok(header) => {
                    (Some(header.clone()), HeaderState::Ours(header.digest()), String::new())
                }
                Err(error) => (None, state_of(&bytes, &error), error.to_string()),
            };
        match seal_plan(state, memories) {
            SealPlan::Refuse(refusal) => Err(self.refused(refusal, &reason)),
            plan => Ok(JudgedArea { area: self, plan, header }),
        }
    }

    fn refused(&self, refusal: PlanRefusal, reason: &str) -> Failure {
        let (code, detail) = match refusal {
            PlanRefusal::NotWhitelisted => (self.codes.header_not_whitelisted, reason),
            PlanRefusal::NotAuthentic => (self.codes.header_not_authentic, reason),
            PlanRefusal::Wiped => (self.codes.wiped, "the key holders remember that it was sealed"),
            PlanRefusal::NotTheRegistered => {
                (Code::JobsOther, "its header's digest is not the registered one")
            }
            PlanRefusal::HoldersDisagree => (Code::HoldersDisagree, "they name different headers"),
        };
        Failure::new(code, detail)
    }

    /// Formats it, with an ext4 in it.
    fn format(
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
            e => Failure::new(self.codes.cannot_be_made, e),
        })?;
        Ok((path, header.digest()))
    }

    fn mapping(&self) -> String {
        format!("cvm-{}", self.name)
    }
}

impl JudgedArea {
    /// Formats or opens the area, mounts it at `at` and returns its header's SHA-256.
    fn open_or_format(
        self,
        keys: &AreaKeys,
        at: &Path,
        flags: MsFlags,
        workshop: Workshop<'_>,
    ) -> Result<Bytes32, Failure> {
        let area = &self.area;
        let does_not_open = area.codes.does_not_open;
        let device = match area.slice {
            None => area.device.clone(),
            Some((offset, length)) => {
                let slice = Slice { device: &area.device, offset, length };
                guest::linear(&format!("{}-area", area.mapping()), slice, Access::ReadWrite)
                    .code(does_not_open)?
            }
        };
        let (opened, digest) = match &self.header {
            None => area.format(&device, keys, workshop)?,
            Some(header) => {
                let opened = guest::open_sealed(&area.mapping(), &device, header, &keys.disk)
                    .code(does_not_open)?;
                (opened, header.digest())
            }
        };
        mount(Some(&opened), at, Some("ext4"), READ_WRITE | flags, Some(ON_ERRORS))
            .code_at(does_not_open, "cannot mount it")?;
        let done = match self.plan {
            SealPlan::Format => "made and opened",
            SealPlan::Adopt => "opened (made by a boot that died before every key holder knew)",
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
        _ if finished => HeaderState::Foreign(error.into()),
        _ => HeaderState::Unfinished(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use cvm_seal::{HEADER_BYTES, MacKey};

    use super::*;

    const D: Bytes32 = Bytes32 { 0: [1; 32] };

    /// Judges `content` as p5's first bytes.
    fn judge(content: &[u8], memories: &[SealMemory]) -> Result<SealPlan, Code> {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("p5");
        std::fs::write(&device, content).unwrap();
        let area = Area { name: "jobs", device, slice: None, codes: JOBS_CODES };
        let judged = area.judge(&MacKey::new(&[2; 32]), memories);
        judged.map(|judged| judged.plan).map_err(|failure| failure.code)
    }

    fn with_record(mut area: Vec<u8>) -> Vec<u8> {
        record::write(&mut area, &MacKey::new(&[3; 32])).unwrap();
        area
    }

    #[test]
    fn a_wiped_p5_is_fatal_unless_nobody_ever_saw_it_sealed() {
        let blank = vec![0; HEADER_BYTES];
        assert_eq!(judge(&blank, &[SealMemory::Fresh, SealMemory::Fresh]), Ok(SealPlan::Format));
        assert_eq!(
            judge(&blank, &[SealMemory::Fresh, SealMemory::Sealed(Some(D))]),
            Err(Code::JobsWiped)
        );
    }

    #[test]
    fn a_first_boot_that_died_in_the_middle_begins_again() {
        let torn = vec![0x5a; HEADER_BYTES];
        assert_eq!(judge(&torn, &[SealMemory::Fresh]), Ok(SealPlan::Format));
        assert_eq!(judge(&torn, &[SealMemory::Sealed(Some(D))]), Err(Code::JobsHeader));
    }

    #[test]
    fn attack_a_foreign_sealed_area_is_refused_even_on_a_first_boot() {
        let foreign = with_record(vec![0x5a; HEADER_BYTES]);
        for memory in [SealMemory::NotKept, SealMemory::Fresh, SealMemory::Sealed(Some(D))] {
            assert_eq!(judge(&foreign, &[memory]), Err(Code::JobsHeader));
        }
    }

    #[test]
    fn a_short_device_is_an_error() {
        assert_eq!(judge(&[0; 4096], &[SealMemory::Fresh]), Err(Code::JobsOpen));
    }
}
