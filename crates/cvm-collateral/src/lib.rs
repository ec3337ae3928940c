//! Collateral: what vendors publish and verification needs, carried in one signed folder.
//!
//! Vendors' services limit and fail (AMD answers one request in ten seconds, Intel and NVIDIA have
//! outages), so nothing that verifies or boots asks them. Somebody collects once, where there is a
//! network. The folder travels with the evidence or lies in a local cache:
//!
//! ```text
//! collateral/
//!   index.json   the entries, their sources and dates; signed by the collector
//!   files/       the pieces, each named by its digest
//! ```
//!
//! Every piece carries its vendor's signature, which verifiers check each time. The collector's
//! signature over the index keeps others from adding, hiding or setting back pieces unnoticed. A
//! piece is filed only under what it says about itself ([`content::check`]), and a lookup past its
//! date is an error, never an answer.
//!
//! Programs that verify link this crate: the key holder, `cvm-agent` and `flare-cvm`. PID 1 and
//! `cvm-jobs` must not: they verify no evidence. `cvm-fetch` is another crate, because it asks
//! vendors over a network; nothing here does.
//!
//! | module | content |
//! |---|---|
//! | `key`, `spelling` | [`Key`]: what a piece is filed under, written and read back |
//! | [`content`], `dcap`, `certificates` | what bytes say about themselves |
//! | `index`, `cache`, `writer` | the signed list of [`IndexEntry`], [`Cache`], [`Writer`] |
//! | `collector` | a collector's key in a file |
//! | [`wanted`] | which keys a piece of evidence needs |
//! | [`tee`] | the release protocol's TEE evidence, verified with a cache |
//!
//! ```
//! use cvm_collateral::{Key, Product, wanted};
//!
//! // What to carry to where this report will be verified.
//! let report = std::fs::read(concat!(
//!     env!("CARGO_MANIFEST_DIR"),
//!     "/../../tests/vectors/evidence/snp/milan-virtee/report.bin"
//! ))?;
//! let keys = wanted::by_snp_report(&report, Some(Product::Milan))?;
//! assert!(keys.iter().any(|key| matches!(key, Key::Vcek { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
mod certificates;
mod collector;
pub mod content;
mod dcap;
mod error;
mod index;
mod key;
mod spelling;
pub mod tee;
pub mod wanted;
mod writer;

pub use cache::{Cache, Found};
pub use collector::{open_or_create_key, public_path, read_public_key};
pub use dcap::{Answer, QuoteCollateral};
pub use error::{CacheError, CollateralError};
pub use index::IndexEntry;
pub use key::{DcapTee, Key, PckCa, Product, Signer, Tcb, is_rim_id};
pub use writer::{Item, Writer};
