//! What an image will measure, predicted from its files alone.
//!
//! `flare-cvm build` and `flare-cvm predict` link this crate; verifiers' tests do too. Nothing in a
//! guest, a key holder or an agent may link it: they compare evidence with reference values, and
//! those come from a build. This crate reads no device and no network.
//!
//! | module | content |
//! |---|---|
//! | `tpm`, `inputs` | [`tpm()`]: PCRs of a boot from disk, and its [`Inputs`] |
//! | [`snp`] | SEV-SNP launch digests, and which input a wrong digest is due to |
//! | [`tdx`], `tdvf` | MRTD and RTMRs of a TD, and its firmware image |
//! | `pe`, `uki`, `variables`, `ovmf` | the formats of what firmware measures |
//!
//! ```no_run
//! use cvm_predict::{Inputs, tpm};
//!
//! let [loader, uki, pk, kek, db, dbx, authority] =
//!     ["BOOTX64.EFI", "uki.efi", "PK", "KEK", "db", "dbx", "authority"].map(std::fs::read);
//! let reference = tpm(&Inputs {
//!     loader: &loader?,
//!     uki: &uki?,
//!     pk: &pk?,
//!     kek: &kek?,
//!     db: &db?,
//!     dbx: &dbx?,
//!     authority: &authority?,
//! })?;
//! println!("PCR 11 will be {}", reference.pcrs[&11]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod inputs;
mod ovmf;
mod pe;
pub mod snp;
mod tdvf;
pub mod tdx;
mod tpm;
mod uki;
mod variables;

pub use error::PredictError;
pub use inputs::Inputs;
pub use tpm::tpm;
