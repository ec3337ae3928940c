//! Tokens of machines that attest with their TEE, on minted chips: verified by themselves and by
//! each other, with the built-in policies.

#[path = "../common/chip.rs"]
mod chip;
#[path = "../common/mod.rs"]
mod common;
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

mod gpu;
mod snp;
mod tdx;

/// 2025-06-15: what `mint` and `documents` mint is valid.
const NOW: u64 = 1_750_000_000;
