//! Every kind of evidence: real, minted and attacked.

mod appraise;
mod azure;
mod gpu;
mod snp;
mod swtpm;
mod tdx;
mod tdx_minted;
mod token;
mod tpm;
mod tpm_eventlog;
