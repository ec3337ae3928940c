//! The agent's integration tests, in one program. Each has folders, ports and software TPMs of its
//! own: none depends on which others share the process.

mod chip;
mod common;
mod python_client;
mod snp_authorizer;
mod tees;
mod two_sites;

// cvm-verify's own tests use the rest of these. `documents` and `mint` name each other.
#[allow(dead_code)]
#[path = "../../../cvm-verify/tests/tdx_minted/documents.rs"]
mod documents;
#[allow(dead_code)]
#[path = "../../../cvm-verify/tests/tdx_minted/mint.rs"]
mod mint;
#[allow(dead_code)]
#[path = "../../../cvm-verify/tests/snp/mint.rs"]
mod snp_mint;

#[path = "../../../cvm-verify/tests/support/gpus.rs"]
mod gpus;
#[allow(dead_code)]
#[path = "../../../cvm-verify/tests/gpu/synthetic.rs"]
mod synthetic;

/// 2025-06-15: what `mint` and `documents` mint is valid.
const NOW: u64 = 1_750_000_000;
