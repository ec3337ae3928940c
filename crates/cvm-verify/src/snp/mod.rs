//! SEV-SNP: reports of versions 2 to 5 from Milan, Genoa, Siena and Turin, signed with a VCEK or a
//! VLEK.
//!
//! [`verify`] says what is true; a [`SnpPolicy`] says what is acceptable. What is checked, and
//! against what:
//!
//! | check | specification |
//! |---|---|
//! | layout, version; reserved fields are claims | SEV-SNP ABI 56860, §7.3, `ATTESTATION_REPORT` |
//! | signature, ECDSA P-384 with SHA-384 | the same, §10 |
//! | VCEK → ASK → ARK, or VLEK → ASVK → ARK, dates, revocation | RFC 5280; AMD 57230, 58369 |
//! | the key's TCB, chip, product and kind against the report | AMD 57230 §3.1, 58369 §3.1 |
//!
//! Nothing is fetched; without a revocation list, a nonce or an unmasked chip id, the claims say
//! so.

mod chain;
mod claims;
mod endorsement;
mod error;
mod evidence;
mod kbs;
mod policy;
mod report;
mod signing_key;
mod table;
mod verify;

pub use chain::{KDS_CERTIFICATES, SnpRoots, VerifiedChain};
pub use claims::SnpClaims;
pub use cvm_evidence::tcb::{Chip, Product, ShownTcb, Stepping, Tcb, TcbComponent, TcbFloor};
pub use endorsement::Endorsement;
pub use error::SnpError;
pub use evidence::SnpEvidence;
pub use policy::SnpPolicy;
pub use report::{Cpuid, FirmwareVersion, GuestPolicy, REPORT_BYTES, SnpReport};
pub use signing_key::SigningKey;
pub use table::certificates as read_certificate_table;
pub use verify::{SnpExpected, verify};
