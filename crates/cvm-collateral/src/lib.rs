//! Collateral: what vendors publish and verification needs, carried in one signed folder.
//!
//! Vendors' services limit and fail (AMD answers one request in ten seconds, Intel and NVIDIA have
//! outages), so nothing that verifies or boots asks them. Somebody collects once, where there is a
//! network; the folder travels with the evidence or lies in a local cache:
//!
//! ```text
//! collateral/
//!   index.json   what is there, where it is from, until when it is valid; signed by who collected it
//!   files/       the pieces, each named by its digest
//! ```
//!
//! Every piece carries its vendor's signature, which verifiers check each time. The collector's
//! signature over the index keeps others from adding, hiding or setting back pieces unnoticed. A
//! piece is filed only under what it says of itself ([`content::check`]), and a lookup past its
//! date is an error, never an answer.
//!
//! The parts: [`Key`] (what is filed), [`content`] (what bytes are), [`Cache`] (reading, pure but
//! for [`Cache::open`]), [`Writer`], [`wanted`] (what evidence needs), and [`tee`], which verifies
//! a TEE's evidence with all of it. What asks vendors is another crate, `cvm-fetch`, which no
//! program of a guest or a key holder links.

mod cache;
mod collector;
pub mod content;
mod dcap;
mod error;
mod index;
mod key;
pub mod tee;
pub mod wanted;
mod writer;

pub use cache::{Cache, Crl, Found};
pub use collector::{open_or_create_key, public_path, read_public_key};
pub use dcap::{Answer, QuoteCollateral};
pub use error::{CacheError, CollateralError};
pub use index::{Entry, INDEX_FILE, MAX_ENTRIES, MAX_INDEX_BYTES, MAX_TOTAL_BYTES};
pub use key::{DcapTee, Key, PckCa, Product, Signer, Tcb, is_rim_id};
pub use writer::{Item, Writer};
