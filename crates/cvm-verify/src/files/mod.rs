//! Which file of an evidence set is what: told by its content, never by its name.
//!
//! Nobody labels the files that a CVM's tools write, and a wrong label must not decide which
//! verifier runs. A form is told by what can be read as it, not by a length that is usual for it.
//! Raw signatures and raw register values are bytes without a mark: what their length leaves open
//! is told beside the quote that they belong to.
//!
//! A name says one thing only: which unreadable file of a folder is about evidence, and is not
//! evidence itself ([`is_note`], [`signs`]).

mod binary;
mod content;
mod encoding;
mod error;
mod form;
pub(crate) mod members;
mod notes;
mod number;
mod protobuf;
mod unpack;

pub use error::UnpackError;
pub use form::Form;
pub use notes::{is_note, signs};
pub use unpack::{Piece, Unpacked, Unread, signed_member, unpack};

/// More than any single piece of evidence or collateral has, in bytes (DCAP collateral has some 100
/// KiB).
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;
