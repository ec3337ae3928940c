//! The nonce as a TEE's report data.

use crate::appraise::{Refusal, trust::Shared};

/// The form of the nonce that the evidence shows, padded with zeros, or else the first form; `None`
/// without a nonce.
pub(super) fn report_data(shared: &Shared, found: &[u8]) -> Option<[u8; 64]> {
    let forms = || shared.nonces.iter().filter_map(|nonce| padded(nonce));
    forms().find(|form| form[..] == *found).or(forms().next())
}

/// Whether one of the nonce's forms can be what [`report_data`] compares.
pub(super) fn check_nonce_fits(shared: &Shared) -> Result<(), Refusal> {
    if shared.nonces.is_empty() || shared.nonces.iter().any(|nonce| padded(nonce).is_some()) {
        return Ok(());
    }
    Err(Refusal::input(
        "the nonce",
        "it is longer than the 64 bytes of REPORT_DATA",
        "give what the evidence answers: at most 64 bytes, or their hex",
    ))
}

fn padded(nonce: &[u8]) -> Option<[u8; 64]> {
    let mut data = [0; 64];
    data.get_mut(..nonce.len())?.copy_from_slice(nonce);
    Some(data)
}
