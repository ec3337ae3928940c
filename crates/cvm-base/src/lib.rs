//! What every crate of flare-cvm shares: errors that explain themselves, files that appear whole or
//! not at all, bounded reads of files and of structures, text of editors and of strangers,
//! fixed-size values written as lowercase hex, times, and bounds on what strangers take.

mod bytes;
mod explain;
mod file;
pub mod interrupt;
pub mod json;
pub mod peers;
mod reader;
mod text;
pub mod time;

pub use bytes::{Bytes, Bytes16, Bytes32, HexError, sha256};
pub use explain::Explain;
pub use file::{FileError, read_bounded, read_text, write_atomic, write_new};
pub use reader::{ReadError, Reader};
pub use text::{Utf16, printable, unmarked};
