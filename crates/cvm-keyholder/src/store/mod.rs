//! One SQLite file: the log, and the texts that its entries name by their digests. Several
//! processes may share it.
//!
//! No row is believed for being there. What is enrolled, attested, released, sealed and withdrawn
//! follows from the signed log ([`crate::memory`]); a row of another table is taken only if an
//! entry names its digest.

mod base;
mod migrate;
mod open;
mod operator;
mod protocol;
mod rows;

pub use base::{Listed, SqliteStore};
pub use open::FILE;
