//! Who verified whom, when, with what result: JSON lines on `state`, bounded and rotated.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    iter::Peekable,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use cvm_peer::{clock, error::AgentRefusal};

/// Where it lies in the guest. The entries of this machine's own verification and those of auditors
/// are in files of their own beside it, so that neither a peer nor a stranger can push the others
/// out.
pub const PATH: &str = "/opt/nvflare/logs/flare-cvm/attestation.jsonl";
/// The longest line.
const MAX_LINE: usize = 4096;
/// Characters of a reason.
const MAX_REASON: usize = 600;
/// Bytes of entries in one report: it must fit into an answer.
pub const MAX_REPORT: usize = 512 * 1024;
// A report is text in JSON: each quote of it takes two bytes more than it had.
const _: () = assert!(
    cvm_peer::token::MAX_BYTES + 2 * MAX_REPORT + 64 * 1024 < cvm_peer::limits::MAX_MESSAGE
);

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalEntry {
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

impl JournalEntry {
    /// At `now`, without a refusal.
    pub fn new(now: u64, direction: &str, peer: Option<String>, result: &str) -> Self {
        let (direction, result) = (direction.into(), result.into());
        Self { time: clock::rfc3339(now), peer, direction, result, code: None, reason: None }
    }
}

/// A period's entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalReport {
    /// Oldest first.
    pub entries: Vec<JournalEntry>,
    /// There were more; ask for the period after the last of these.
    pub more: bool,
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    own: Log,
    peers: Log,
    auditors: Log,
}

impl Journal {
    /// In `path` and beside it; its folder is made if it is not there.
    pub fn open(path: &Path) -> Self {
        let beside = |of: &str| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            path.with_file_name(format!("{stem}-{of}.jsonl"))
        };
        // A day of own verifications takes some 150 KiB.
        Self {
            own: Log::open(beside("self"), 1 << 20, 4),
            peers: Log::open(path.into(), 4 << 20, 4),
            auditors: Log::open(beside("audit"), 1 << 20, 1),
        }
    }

    /// Appends a line. A journal that cannot be written must not stop attestation: the error is
    /// logged.
    pub fn append(&self, entry: &JournalEntry) {
        let log = match entry.direction.as_str() {
            "self" => &self.own,
            "audit" => &self.auditors,
            _ => &self.peers,
        };
        let mut entry = entry.clone();
        entry.reason = entry.reason.map(|reason| reason.chars().take(MAX_REASON).collect());
        let mut line = serde_json::to_vec(&entry).unwrap_or_default();
        line.push(b'\n');
        if let Err(error) = log.write(&line) {
            eprintln!("cvm-agent: the journal {} cannot be written: {error}", log.path.display());
        }
    }

    /// The entries of a period, both ends included.
    ///
    /// # Errors
    /// [`AgentRefusal::Journal`].
    pub fn report(&self, since: u64, until: u64) -> Result<JournalReport, AgentRefusal> {
        let fail = |e: std::io::Error| AgentRefusal::Journal { problem: e.to_string() };
        let (since, until) = (clock::rfc3339(since), clock::rfc3339(until));
        let mut report = JournalReport { entries: Vec::new(), more: false };
        let mut bytes = 0;
        let mut logs = [&self.own, &self.peers, &self.auditors].map(|log| log.lines().peekable());
        loop {
            let next = |log: &mut Peekable<Lines<'_>>| {
                // An error comes first, and is dealt with at once.
                log.peek().map(|line| {
                    line.as_ref().map_or_else(|_| String::new(), |(entry, _)| entry.time.clone())
                })
            };
            let times = logs.iter_mut().enumerate().filter_map(|(at, log)| Some((next(log)?, at)));
            let Some((_, first)) = times.min() else { return Ok(report) };
            let line = logs.get_mut(first).and_then(Iterator::next).transpose().map_err(fail)?;
            let Some((entry, length)) = line else { return Ok(report) };
            // RFC 3339 in UTC of one form sorts as text.
            if entry.time < since || entry.time > until {
                continue;
            }
            bytes += length + 1;
            if bytes > MAX_REPORT {
                report.more = true;
                return Ok(report);
            }
            report.entries.push(entry);
        }
    }
}

/// One of its files, with those that were rotated.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: Mutex<Option<(File, u64)>>,
    /// A file of this size is rotated.
    max_file: u64,
    /// Files that are kept beside the current one.
    kept: usize,
}

impl Log {
    fn open(path: PathBuf, max_file: u64, kept: usize) -> Self {
        Self { path, file: Mutex::default(), max_file, kept }
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
            let opened =
                OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
            let length = opened.metadata()?.len();
            *file = Some((opened, length));
        }
        if let Some((opened, length)) = file.as_mut() {
            // One call per line: a reader sees whole lines.
            opened.write_all(line)?;
            *length += line.len() as u64;
        }
        Ok(())
    }

    fn rotate(&self) -> std::io::Result<()> {
        for number in (1..self.kept).rev() {
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

    /// Oldest first, each with its length.
    fn lines(&self) -> Lines<'_> {
        let mut files: Vec<PathBuf> = (1..=self.kept).map(|number| self.rotated(number)).collect();
        files.insert(0, self.path.clone());
        Lines { log: self, files, current: None }
    }
}

/// The entries of a log's files. A line that is not an entry is left out: a power cut may tear one.
struct Lines<'a> {
    log: &'a Log,
    /// Still to be read, the oldest last.
    files: Vec<PathBuf>,
    current: Option<BufReader<std::io::Take<File>>>,
}

impl Iterator for Lines<'_> {
    type Item = std::io::Result<(JournalEntry, usize)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(reader) = &mut self.current else {
                match File::open(self.files.pop()?) {
                    Ok(file) => {
                        self.current = Some(BufReader::new(file.take(2 * self.log.max_file)))
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Some(Err(e)),
                }
                continue;
            };
            let mut line = Vec::new();
            match reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line) {
                Ok(0) => self.current = None,
                Ok(length) => {
                    if let Ok(entry) = serde_json::from_slice(&line) {
                        return Some(Ok((entry, length)));
                    }
                }
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64, direction: &str) -> JournalEntry {
        JournalEntry::new(1_800_000_000 + n, direction, Some(format!("site-{n}")), "accepted")
    }

    fn sizes(folder: &Path) -> Vec<u64> {
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect()
    }

    #[test]
    fn a_period_is_read_back_and_the_disk_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/attestation.jsonl");
        let mut journal = Journal::open(&path);
        journal.peers.max_file = 2000;
        for n in 0..200 {
            journal.append(&entry(n, "verified"));
        }
        let sizes = sizes(path.parent().unwrap());
        assert_eq!(sizes.len(), journal.peers.kept + 1);
        assert!(sizes.iter().all(|size| *size <= 2000), "{sizes:?}");
        let report = journal.report(1_800_000_195, 1_800_000_197).unwrap();
        let peers: Vec<_> =
            report.entries.iter().filter_map(|entry| entry.peer.as_deref()).collect();
        assert_eq!(peers, ["site-195", "site-196", "site-197"]);
        assert!(!report.more);
        // A torn line, and one that somebody else wrote.
        fs::write(&path, b"{\"time\":\"2027-01-15T08:0\nx\n").unwrap();
        assert!(journal.report(0, u64::from(u32::MAX)).is_ok());
    }

    #[test]
    fn attack_audits_that_push_the_evidence_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attestation.jsonl");
        let mut journal = Journal::open(&path);
        (journal.own.max_file, journal.peers.max_file, journal.auditors.max_file) =
            (2000, 2000, 2000);
        journal.append(&entry(1, "self"));
        journal.append(&entry(2, "verified"));
        // A stranger audits, and a peer shows tokens, as often as they like.
        (3..500).for_each(|n| journal.append(&entry(n, "audit")));
        let report = journal.report(1_800_000_000, 1_800_000_002).unwrap();
        let found: Vec<_> = report.entries.iter().map(|entry| entry.direction.as_str()).collect();
        assert_eq!(found, ["self", "verified"]);
        (500..1000).for_each(|n| journal.append(&entry(n, "generated")));
        assert_eq!(
            journal.report(1_800_000_000, 1_800_000_002).unwrap().entries[0].direction,
            "self"
        );
        assert!(sizes(folder.path()).iter().sum::<u64>() <= 2000 * 8);
    }

    #[test]
    fn a_report_is_in_order_whatever_file_an_entry_is_in() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("attestation.jsonl"));
        let directions = ["self", "verified", "audit", "generated"];
        for n in 0..40_u64 {
            journal.append(&entry(n, directions[n as usize % directions.len()]));
        }
        let report = journal.report(1_800_000_000, 1_800_000_100).unwrap();
        let peers: Vec<_> = report.entries.into_iter().filter_map(|entry| entry.peer).collect();
        assert_eq!(peers, (0..40).map(|n| format!("site-{n}")).collect::<Vec<_>>());
    }
}
