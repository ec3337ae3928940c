//! SNP and TDX through configfs: the kernel's one interface for reports (Linux 6.7 and later).
//!
//! `Documentation/ABI/testing/configfs-tsm-report`: each user makes a folder under `…/tsm/report`.
//! Writing 64 bytes to its `inblob` and reading `outblob` gives a report. `auxblob` holds the
//! host's certificates, and `provider` names the driver. `generation` counts the writes, and so
//! tells a report that somebody else's write caused.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use cvm_base::read_bounded;
use zeroize::Zeroizing;

use cvm_evidence::certificate_table::MAX_TABLE_BYTES;

use crate::{
    bound::{MAX_QUOTE_BYTES, SNP_REPORT_BYTES, check_bound, host_certificates},
    device::{Device, Kind, Raw},
    error::CollectError,
    sev_guest::{self, SevGuest},
};

/// Where the kernel has it.
pub const TSM_REPORTS: &str = "/sys/kernel/config/tsm/report";

/// How often to ask for a report when somebody else's write comes in between, or the kernel is
/// busy.
const TRIES: u32 = 5;
/// How long the kernel may take to count a write. It counts at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time between two looks at the counter.
const LOOK: Duration = Duration::from_millis(5);

/// This process's own folder under `…/tsm/report`. Dropping this value removes it.
#[derive(Debug)]
pub struct Tsm {
    folder: PathBuf,
    kind: Kind,
}

/// The kernel's answer to one write.
struct Blobs {
    report: Vec<u8>,
    certificates: Vec<u8>,
}

impl Tsm {
    /// Makes a folder under `reports` ([`TSM_REPORTS`]) and reads whose reports they are.
    ///
    /// # Errors
    /// [`CollectError::Absent`] without configfs or a TEE's driver, [`CollectError::Answer`] for a
    /// driver that this program does not know.
    pub fn open(reports: &Path) -> Result<Self, CollectError> {
        let name = reports.display().to_string();
        if !reports.is_dir() {
            return Err(CollectError::Absent { device: name, problem: "not a folder".into() });
        }
        let folder = make(reports).map_err(|error| match error.raw_os_error() {
            // Without a provider the kernel has no reports to make.
            Some(nix::libc::ENXIO) => {
                CollectError::Absent { device: name, problem: "no TEE driver is loaded".into() }
            }
            _ => CollectError::io(name, "make a report's folder", &error),
        })?;
        // From here on the folder's Drop removes it.
        let mut tsm = Self { folder, kind: Kind::Snp };
        let provider =
            tsm.patiently(|tsm| tsm.text("provider").ok().filter(|text| !text.is_empty()));
        tsm.kind = match provider.as_deref() {
            Some("sev_guest") => Kind::Snp,
            Some("tdx_guest") => Kind::Tdx,
            Some(other) => {
                let other: String = other.chars().take(40).collect();
                return Err(CollectError::answer(
                    tsm.name(),
                    format!("the provider {other:?}, expected sev_guest or tdx_guest"),
                ));
            }
            None => return Err(CollectError::answer(tsm.name(), "no provider")),
        };
        Ok(tsm)
    }

    fn name(&self) -> String {
        self.folder.display().to_string()
    }

    /// One attempt: `None` when it was disturbed.
    fn attempt(&self, report_data: &[u8; 64]) -> Result<Option<Blobs>, CollectError> {
        let before = self.generation()?;
        let written = OpenOptions::new().write(true).open(self.folder.join("inblob"));
        // One write: the kernel takes the whole blob or nothing.
        match written.and_then(|mut file| file.write_all(report_data)) {
            Ok(()) => {}
            Err(error) if is_busy(&error) => return Ok(None),
            Err(error) => {
                return Err(CollectError::io(self.name(), "take the report data", &error));
            }
        }
        let counted = self.patiently(|tsm| tsm.generation().ok().filter(|now| *now != before));
        let Some(mine) = counted else {
            return Err(CollectError::Busy {
                device: self.name(),
                problem: "the write was not counted".into(),
            });
        };
        let limit = if self.kind == Kind::Snp { SNP_REPORT_BYTES } else { MAX_QUOTE_BYTES };
        let report = match self.blob("outblob", limit) {
            Ok(report) => report,
            Err(error) if is_busy(&error) => return Ok(None),
            Err(error) => return Err(CollectError::io(self.name(), "make a report", &error)),
        };
        // Only some providers have one, and it may be empty.
        let certificates = match self.blob("auxblob", MAX_TABLE_BYTES) {
            Ok(certificates) => certificates,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) if is_busy(&error) => return Ok(None),
            Err(error) => {
                return Err(CollectError::io(self.name(), "give its certificates", &error));
            }
        };
        let undisturbed = mine == before.wrapping_add(1) && self.generation()? == mine;
        Ok(undisturbed.then_some(Blobs { report, certificates }))
    }

    fn generation(&self) -> Result<u64, CollectError> {
        let text =
            self.patiently(|tsm| tsm.text("generation").ok().filter(|text| !text.is_empty()));
        let text = text.ok_or_else(|| CollectError::answer(self.name(), "no generation"))?;
        text.parse()
            .map_err(|_| CollectError::answer(self.name(), "a generation that is not a number"))
    }

    fn text(&self, attribute: &str) -> io::Result<String> {
        let bytes = self.blob(attribute, 4096)?;
        String::from_utf8(bytes).map(|text| text.trim().to_owned()).map_err(io::Error::other)
    }

    fn blob(&self, attribute: &str, limit: usize) -> io::Result<Vec<u8>> {
        read_bounded(&self.folder.join(attribute), limit as u64).map_err(|error| match error {
            cvm_base::FileError::Io { source, .. } => source,
            other => io::Error::other(other.to_string()),
        })
    }

    /// Looks until there is something, for a bounded time.
    fn patiently<T>(&self, look: impl Fn(&Self) -> Option<T>) -> Option<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            match look(self) {
                None if Instant::now() < end => thread::sleep(LOOK),
                found => return found,
            }
        }
    }
}

impl Device for Tsm {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<Raw, CollectError> {
        for _ in 0..TRIES {
            let Some(Blobs { report, certificates }) = self.attempt(report_data)? else { continue };
            check_bound(&self.name(), self.kind, &report, report_data)?;
            return Ok(match self.kind {
                Kind::Tdx => Raw::Tdx { quote: report },
                _ => Raw::Snp { report, certificates: host_certificates(&certificates)? },
            });
        }
        Err(CollectError::Busy { device: self.name(), problem: format!("disturbed {TRIES} times") })
    }

    fn derived_key(&mut self) -> Result<Option<Zeroizing<[u8; 32]>>, CollectError> {
        match self.kind {
            // The same driver; configfs has no attribute for it.
            Kind::Snp => SevGuest::open(Path::new(sev_guest::DEVICE))?.derived_key(),
            _ => Ok(None),
        }
    }
}

impl Drop for Tsm {
    fn drop(&mut self) {
        // In configfs the attributes go with the folder. One that stays does no harm.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Makes a folder that nobody else has.
fn make(reports: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..TRIES {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = reports.join(format!("flare-cvm-{}-{number}", process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// EBUSY and EAGAIN: the kernel says that another write came in between; EINTR: a signal did.
fn is_busy(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
