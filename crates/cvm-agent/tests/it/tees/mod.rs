//! Tokens of machines that attest with their TEE, on minted chips: verified by themselves and by
//! each other, with the built-in policies.

mod gpu;
mod snp;
mod tdx;
