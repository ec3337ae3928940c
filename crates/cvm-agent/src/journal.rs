//! Who verified whom, when, with what result: JSON lines on `state`, bounded and rotated.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{Refusal, clock};

/// Where it lies in the guest.
pub const PATH: &str = "/opt/nvflare/logs/flare-cvm/attestation.jsonl";
/// A file of this size is rotated.
const MAX_FILE: u64 = 4 << 20;
/// Files that are kept beside the current one.
const KEPT: usize = 4;
/// The longest line.
const MAX_LINE: usize = 4096;
/// Characters of a reason.
const MAX_REASON: usize = 600;
/// Bytes of entries in one report: it must fit into an answer.
pub const MAX_REPORT: usize = 512 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// RFC 3339.
    pub time: String,
    /// The other site; null where it was not named.
    pub peer: Option<String>,
    /// `verified` (a peer), `generated` (for a peer), `self`, `audit` (for an auditor).
    pub direction: String,
    /// `accepted`, `refused`, `issued`.
    pub result: String,
    /// Of a refusal.
    pub code: Option<String>,
    /// Of a refusal.
    pub reason: Option<String>,
}

impl Entry {
    /// At `now`, without a refusal.
    pub fn new(now: u64, direction: &str, peer: Option<String>, result: &str) -> Self {
        let (direction, result) = (direction.into(), result.into());
        Self { time: clock::rfc3339(now), peer, direction, result, code: None, reason: None }
    }
}

/// A period's entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// There were more; ask for the period behind the last of these.
    pub more: bool,
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<Option<(File, u64)>>,
    max_file: u64,
}

impl Journal {
    /// In `path`, whose folder is made if it is not there.
    pub fn open(path: &Path) -> Self {
        Self { path: path.into(), file: Mutex::default(), max_file: MAX_FILE }
    }

    /// Appends a line. A journal that cannot be written must not stop attestation: the error is logged.
    pub fn append(&self, entry: &Entry) {
        let mut entry = entry.clone();
        entry.reason = entry.reason.map(|reason| reason.chars().take(MAX_REASON).collect());
        let mut line = serde_json::to_vec(&entry).unwrap_or_default();
        line.push(b'\n');
        if let Err(error) = self.write(&line) {
            eprintln!("cvm-agent: the journal {} cannot be written: {error}", self.path.display());
        }
    }

    fn write(&self, line: &[u8]) -> std::io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.as_ref().is_some_and(|(_, length)| length + line.len() as u64 > self.max_file) {
            *file = None;
            self.rotate()?;
        }
        if file.is_none() {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
            let length = opened.metadata()?.len();
            *file = Some((opened, length));
        }
        if let Some((opened, length)) = file.as_mut() {
            // One call a line: a reader sees whole lines.
            opened.write_all(line)?;
            *length += line.len() as u64;
        }
        Ok(())
    }

    fn rotate(&self) -> std::io::Result<()> {
        for number in (1..KEPT).rev() {
            let from = self.rotated(number);
            if from.exists() {
                fs::rename(from, self.rotated(number + 1))?;
            }
        }
        fs::rename(&self.path, self.rotated(1))
    }

    fn rotated(&self, number: usize) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// The entries of a period, both ends included. Lines that are none are left out: a power cut may tear one.
    ///
    /// # Errors
    /// [`Refusal::Journal`].
    pub fn report(&self, since: u64, until: u64) -> Result<Report, Refusal> {
        let fail = |e: std::io::Error| Refusal::Journal { problem: e.to_string() };
        let (since, until) = (clock::rfc3339(since), clock::rfc3339(until));
        let mut report = Report { entries: Vec::new(), more: false };
        let mut bytes = 0;
        let files = (1..=KEPT).rev().map(|number| self.rotated(number)).chain([self.path.clone()]);
        for path in files {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(fail(e)),
            };
            let mut reader = BufReader::new(file.take(2 * MAX_FILE));
            let mut line = Vec::new();
            loop {
                line.clear();
                if reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line).map_err(fail)? == 0 {
                    break;
                }
                let Ok(entry) = serde_json::from_slice::<Entry>(&line) else { continue };
                // RFC 3339 in UTC of one form sorts as text.
                if entry.time < since || entry.time > until {
                    continue;
                }
                bytes += line.len() + 1;
                if bytes > MAX_REPORT {
                    report.more = true;
                    return Ok(report);
                }
                report.entries.push(entry);
            }
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_read_back_and_the_disk_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/attestation.jsonl");
        let mut journal = Journal::open(&path);
        journal.max_file = 2000;
        for n in 0..200 {
            journal.append(&Entry::new(1_800_000_000 + n, "verified", Some(format!("site-{n}")), "accepted"));
        }
        let files = fs::read_dir(path.parent().unwrap()).unwrap();
        let sizes: Vec<u64> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), KEPT + 1);
        assert!(sizes.iter().all(|size| *size <= 2000), "{sizes:?}");
        let report = journal.report(1_800_000_195, 1_800_000_197).unwrap();
        let peers: Vec<_> = report.entries.iter().filter_map(|entry| entry.peer.as_deref()).collect();
        assert_eq!(peers, ["site-195", "site-196", "site-197"]);
        assert!(!report.more);
        // A torn line, and one that somebody else wrote.
        fs::write(&path, b"{\"time\":\"2027-01-15T08:0\nx\n").unwrap();
        assert!(journal.report(0, u64::from(u32::MAX)).is_ok());
    }
}
