//! TDX quotes that no vector has: versions 4 and 5, TD 1.0, 1.5 and 1.5 extended, every TCB
//! verdict, revocation, and what a forger with certificates of his own would try. Root, platform,
//! collateral and quotes are minted here; dcap-qvl, given the same root, is the second opinion.

mod attacks;
#[path = "../../tdx_minted/documents.rs"]
mod documents;
#[path = "../../tdx_minted/mint.rs"]
mod mint;
mod session;
mod versions;

/// 2025-06-15.
const NOW: u64 = 1_750_000_000;
