//! The fetcher, against doubles of the vendors' services.

mod fetch;
mod server;
#[path = "../../../cvm-collateral/tests/support/collateral.rs"]
mod support;
