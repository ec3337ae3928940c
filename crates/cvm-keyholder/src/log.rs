//! The audit log: each entry names the one before it by hash and is signed with the party's
//! identity. An entry also says what its decision changed, so that the log is the key holder's
//! memory ([`crate::memory`]).
//!
//! An entry's text is JSON of [`LogEntry`]; its hash is `SHA-256(context ‖ text)`; the signature is
//! Ed25519 over the same bytes. A signed head names the last entry, so that a log without its end
//! is noticed too. A store that was replaced by an older, intact one is noticed only with a copy of
//! the head that is kept elsewhere.

use cvm_base::{Bytes, Bytes32, sha256, time::rfc3339};
use cvm_release_server::{Decision, Effect};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

const ENTRY: &[u8] = b"flare-cvm/v1/log-entry\0";
const HEAD: &[u8] = b"flare-cvm/v1/log-head\0";

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS log (
        number INTEGER PRIMARY KEY, entry TEXT NOT NULL, signature BLOB NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS log_head (
        one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL, hash BLOB NOT NULL,
        signature BLOB NOT NULL
    ) STRICT;
";

/// One decision, in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// Counts from 1 without gaps.
    pub number: u64,
    /// The hash of the entry before; zeros for the first.
    pub previous: Bytes32,
    /// What was decided.
    pub decision: Decision,
}

impl std::fmt::Display for LogEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>6} {}", self.number, line(&self.decision))
    }
}

/// A decision as one line of text.
pub fn line(decision: &Decision) -> String {
    let mut text = format!(
        "{} {:<9} {:<10} peer={}",
        rfc3339(decision.time),
        word(decision.verdict),
        word(decision.step),
        decision.peer
    );
    let chips = match &decision.effect {
        Some(Effect::Attested { chips, .. }) => chips.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let fields = [
        ("reason", decision.reason.map(|r| r.to_string())),
        ("image", decision.image.map(|i| i.to_string())),
        ("site", decision.site.clone()),
        ("session", decision.session.clone()),
        ("chip", Some(chips.join(",")).filter(|chips| !chips.is_empty())),
        ("detail", Some(decision.detail.clone()).filter(|d| !d.is_empty())),
    ];
    for (name, value) in fields.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        // A detail may quote a stranger; quoting keeps it on its line and in its field.
        let value = if name == "detail" { format!("{value:?}") } else { value };
        text.push_str(&format!(" {name}={value}"));
    }
    text
}

/// How the store's log differs from an intact one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Tampering {
    /// A number is missing, or occurs where another is due.
    #[error("entry {expected} is missing")]
    Missing {
        /// The number that is due.
        expected: u64,
    },
    /// An entry's text or signature was changed.
    #[error("entry {0} was changed: this party did not sign it")]
    Changed(u64),
    /// An entry does not follow the one before it.
    #[error("entry {0} does not follow the entry before it: entries were exchanged or removed")]
    Order(u64),
    /// The head is missing or is not this party's.
    #[error("the signed head is missing or was changed")]
    Head,
    /// There is no log, but something that is written only together with an entry.
    #[error("the log is empty, and the store is not: its entries were removed")]
    Emptied,
    /// The log is older than what this program saw of it.
    #[error(
        "the log ends at entry {found}, and this program has seen entry {expected}: the store was \
         set back"
    )]
    SetBack {
        /// The last entry that was seen.
        expected: u64,
        /// The last one there is.
        found: u64,
    },
    /// The log ends before or after the entry that the head names.
    #[error("the log ends at entry {found}, but the signed head names entry {expected}")]
    Cut {
        /// The head's.
        expected: u64,
        /// The last entry there is.
        found: u64,
    },
}

/// What an intact log ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Head {
    /// How many entries there are.
    pub entries: u64,
    /// The hash of the last one. Write it down elsewhere to notice a store that was set back.
    pub hash: Bytes32,
}

impl Head {
    /// The head of an empty log.
    pub(crate) const NONE: Self = Self { entries: 0, hash: Bytes([0; 32]) };
}

/// Appends a decision after `last`, within a transaction that holds the write lock, and returns the
/// new head.
pub(crate) fn append(
    tx: &Transaction<'_>,
    key: &SigningKey,
    last: &Head,
    decision: &Decision,
) -> rusqlite::Result<Head> {
    let entry =
        LogEntry { number: last.entries + 1, previous: last.hash, decision: decision.clone() };
    let text = serde_json::to_string(&entry)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let message = [ENTRY, text.as_bytes()].concat();
    let head = Head { entries: entry.number, hash: sha256(&message) };
    let sql = "INSERT INTO log (number, entry, signature) VALUES (?1, ?2, ?3)";
    tx.execute(sql, params![head.entries, text, key.sign(&message).to_bytes()])?;
    let signature = key.sign(&head_message(head.entries, &head.hash)).to_bytes();
    let sql =
        "INSERT OR REPLACE INTO log_head (one, number, hash, signature) VALUES (1, ?1, ?2, ?3)";
    tx.execute(sql, params![head.entries, head.hash.0, signature])?;
    Ok(head)
}

/// Walks the whole log, and every signature in it.
pub(crate) fn verify(
    connection: &Connection,
    key: &VerifyingKey,
) -> rusqlite::Result<Result<Head, Tampering>> {
    let each = |_: &LogEntry, message: &[u8], signature: &[u8], _| signed(key, message, signature);
    walk(connection, key, Head::NONE, each)
}

/// Walks from `from` to the signed head. `each` gets an entry, its message, its signature and the
/// head that it ends, and says whether to believe it.
pub(crate) fn walk(
    connection: &Connection,
    key: &VerifyingKey,
    from: Head,
    mut each: impl FnMut(&LogEntry, &[u8], &[u8], Head) -> bool,
) -> rusqlite::Result<Result<Head, Tampering>> {
    let sql = "SELECT number, entry, signature FROM log WHERE number > ?1 ORDER BY number";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([from.entries])?;
    let mut last = from;
    while let Some(row) = rows.next()? {
        let number: u64 = row.get(0)?;
        let (Ok(text), Ok(signature)) = (row.get_ref(1)?.as_bytes(), row.get_ref(2)?.as_bytes())
        else {
            return Ok(Err(Tampering::Changed(number)));
        };
        if number != last.entries + 1 {
            return Ok(Err(Tampering::Missing { expected: last.entries + 1 }));
        }
        let message = [ENTRY, text].concat();
        let head = Head { entries: number, hash: sha256(&message) };
        let Ok(entry) = serde_json::from_slice::<LogEntry>(text) else {
            return Ok(Err(Tampering::Changed(number)));
        };
        let follows = entry.number == number && entry.previous == last.hash;
        if !each(&entry, &message, signature, head) {
            return Ok(Err(Tampering::Changed(number)));
        }
        if !follows {
            return Ok(Err(Tampering::Order(number)));
        }
        last = head;
    }
    Ok(match stored_head(connection)? {
        None if last == Head::NONE && !holds_anything(connection)? => Ok(last),
        None if last == Head::NONE => Err(Tampering::Emptied),
        None => Err(Tampering::Head),
        Some((head, signature))
            if !signed(key, &head_message(head.entries, &head.hash), &signature) =>
        {
            Err(Tampering::Head)
        }
        Some((head, _)) if head != last => {
            Err(Tampering::Cut { expected: head.entries, found: last.entries })
        }
        Some(_) => Ok(last),
    })
}

pub(crate) fn stored_head(connection: &Connection) -> rusqlite::Result<Option<(Head, Vec<u8>)>> {
    let sql = "SELECT number, hash, signature FROM log_head WHERE one = 1";
    let head =
        |row: &Row<'_>| Ok((Head { entries: row.get(0)?, hash: Bytes(row.get(1)?) }, row.get(2)?));
    connection.query_row(sql, [], head).optional()
}

/// Whether the store holds a row that was written together with an entry.
fn holds_anything(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM images) OR EXISTS (SELECT 1 FROM shares)
               OR EXISTS (SELECT 1 FROM sessions WHERE attested IS NOT NULL)";
    connection.query_row(sql, [], |row| row.get(0))
}

fn signed(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    Signature::from_slice(signature).is_ok_and(|s| key.verify_strict(message, &s).is_ok())
}

fn head_message(number: u64, hash: &Bytes32) -> Vec<u8> {
    [HEAD, &number.to_be_bytes(), &hash.0].concat()
}

/// All entries, unverified; [`crate::store::SqliteStore::verify_log`] says whether to believe them.
pub(crate) fn entries(connection: &Connection) -> rusqlite::Result<Vec<LogEntry>> {
    let mut statement = connection.prepare("SELECT entry FROM log ORDER BY number")?;
    let texts = statement
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
}

/// The one spelling of a step or verdict, as in JSON.
fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}
