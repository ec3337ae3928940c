//! cvm-attest
