//! Predictions, against recorded boots and the tools of others.

#[path = "../support/igvm.rs"]
mod files;
mod igvm;
mod snp;
mod tdx;
mod tpm;
