//! The signed cache of collateral.

mod cache;
#[path = "../support/collateral.rs"]
mod support;
