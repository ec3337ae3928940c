//! The audit log: each entry names the one before it by hash and is signed with the party's identity.
//!
//! An entry's text is JSON of [`Entry`]; its hash is `SHA-256(context ‖ text)`; the signature is Ed25519 over
//! the same bytes. A signed head names the last entry, so that cutting the end off shows as well. What
//! only a copy of the head elsewhere can show is a store replaced by an older, intact one.

use cvm_base::{Bytes, Bytes32, sha256, time::rfc3339};
use cvm_release::server::Decision;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

const ENTRY: &[u8] = b"flare-cvm/v1/log-entry\0";
const HEAD: &[u8] = b"flare-cvm/v1/log-head\0";

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS log (number INTEGER PRIMARY KEY, entry TEXT NOT NULL, signature BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS log_head (
        one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL, hash BLOB NOT NULL, signature BLOB NOT NULL
    ) STRICT;
";

/// One decision, in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Counts from 1 without gaps.
    pub number: u64,
    /// The hash of the entry before; zeros for the first.
    pub previous: Bytes32,
    /// What was decided.
    pub decision: Decision,
}

impl std::fmt::Display for Entry {
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
    let fields = [
        ("reason", decision.reason.map(|r| r.to_string())),
        ("image", decision.image.map(|i| i.to_string())),
        ("site", decision.site.clone()),
        ("session", decision.session.clone()),
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
    /// The log ends before or behind the entry that the head names.
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

/// Appends within a transaction that holds the write lock.
pub(crate) fn append(tx: &Transaction<'_>, key: &SigningKey, decision: &Decision) -> rusqlite::Result<()> {
    let head = "SELECT number, hash FROM log_head WHERE one = 1";
    let last = tx.query_row(head, [], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, [u8; 32]>(1)?))).optional()?;
    let (number, previous) = last.unwrap_or((0, [0; 32]));
    let entry = Entry { number: number + 1, previous: Bytes(previous), decision: decision.clone() };
    let text = serde_json::to_string(&entry).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let message = [ENTRY, text.as_bytes()].concat();
    let hash = sha256(&message);
    let sql = "INSERT INTO log (number, entry, signature) VALUES (?1, ?2, ?3)";
    tx.execute(sql, params![entry.number, text, key.sign(&message).to_bytes()])?;
    let signature = key.sign(&head_message(entry.number, &hash)).to_bytes();
    let sql = "INSERT OR REPLACE INTO log_head (one, number, hash, signature) VALUES (1, ?1, ?2, ?3)";
    tx.execute(sql, params![entry.number, hash.0, signature])?;
    Ok(())
}

/// Walks the whole log.
pub(crate) fn verify(connection: &Connection, key: &VerifyingKey) -> rusqlite::Result<Result<Head, Tampering>> {
    let mut statement = connection.prepare("SELECT number, entry, signature FROM log ORDER BY number")?;
    let mut rows = statement.query([])?;
    let mut last = Head { entries: 0, hash: Bytes([0; 32]) };
    while let Some(row) = rows.next()? {
        let (number, text): (u64, String) = (row.get(0)?, row.get(1)?);
        let signature: Vec<u8> = row.get(2)?;
        match next(&last, number, &text, &signature, key) {
            Ok(head) => last = head,
            Err(tampering) => return Ok(Err(tampering)),
        }
    }
    let sql = "SELECT number, hash, signature FROM log_head WHERE one = 1";
    let head = connection
        .query_row(sql, [], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, [u8; 32]>(1)?, row.get::<_, Vec<u8>>(2)?)))
        .optional()?;
    Ok(match head {
        None if last.entries == 0 => Ok(last),
        None => Err(Tampering::Head),
        Some((number, hash, signature)) => {
            let hash = Bytes(hash);
            if !signed(key, &head_message(number, &hash), &signature) {
                Err(Tampering::Head)
            } else if (number, hash) != (last.entries, last.hash) {
                Err(Tampering::Cut { expected: number, found: last.entries })
            } else {
                Ok(last)
            }
        }
    })
}

fn next(last: &Head, number: u64, text: &str, signature: &[u8], key: &VerifyingKey) -> Result<Head, Tampering> {
    if number != last.entries + 1 {
        return Err(Tampering::Missing { expected: last.entries + 1 });
    }
    let message = [ENTRY, text.as_bytes()].concat();
    let entry: Entry = serde_json::from_str(text).map_err(|_| Tampering::Changed(number))?;
    if !signed(key, &message, signature) {
        return Err(Tampering::Changed(number));
    }
    if entry.number != number || entry.previous != last.hash {
        return Err(Tampering::Order(number));
    }
    Ok(Head { entries: number, hash: sha256(&message) })
}

fn signed(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    Signature::from_slice(signature).is_ok_and(|s| key.verify_strict(message, &s).is_ok())
}

fn head_message(number: u64, hash: &Bytes32) -> Vec<u8> {
    [HEAD, &number.to_be_bytes(), &hash.0].concat()
}

/// All entries, as they stand; [`crate::store::SqliteStore::verify_log`] says whether to believe them.
pub(crate) fn entries(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = connection.prepare("SELECT entry FROM log ORDER BY number")?;
    let texts = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
}

/// The one spelling of a step or verdict, as in JSON.
fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}
