//! A TPM 2.0, seen from the guest: keys, quotes, measurements, kept secrets (tss-esapi over
//! libtss2).
//!
//! | type | what it is |
//! |---|---|
//! | [`Tpm`] | a connection, which reads and extends PCRs |
//! | [`AttestationKey`] | during boot: answers a key holder's challenge |
//! | [`QuotingKey`] | after the handoff: the same key, for quotes alone |
//! | [`Place`] | where [`Tpm::keep`] keeps a secret for this image's boot phase |
//! | [`TpmDevice`] | the TPM as a [`crate::Device`], for its quote |
//!
//! Open one [`Tpm`] per process. It and its [`AttestationKey`] are `Send` but not `Sync`: several
//! exchanges share a key through a mutex. Nothing persistent is written except what [`Tpm::keep`]
//! keeps, and every transient object is flushed. The kernel's own time-outs bound each command. A
//! software TPM on a busy host may miss them, and its connection is then of no use. Commands that
//! may run twice are repeated over a new connection ([`patiently`]).

mod connection;
mod device;
mod error;
mod keep;
mod key;
mod quoting;

pub use connection::{DEFAULT_DEVICE, DEFAULT_TCTI, Tpm, patiently};
pub(crate) use connection::{is_missing, read_pcrs, selection};
pub use device::TpmDevice;
pub use error::TpmError;
pub use keep::{MAX_KEPT_BYTES, Place};
pub use key::AttestationKey;
pub use quoting::QuotingKey;
