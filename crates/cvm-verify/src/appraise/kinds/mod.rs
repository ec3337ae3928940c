//! Each kind of evidence, from a group's files to claims.

mod azure;
mod composite;
mod dcap;
mod gpu;
mod group;
mod kbs;
mod nonce;
mod snp;
mod token;
mod tpm;

pub(super) use composite::check_composite;
pub(super) use group::{verify, vouch};
pub(super) use kbs::azure_kind;
