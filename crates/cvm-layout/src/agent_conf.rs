//! `agent.yaml` on p4: the ranges of its numbers, for the program that writes it and for the one
//! that reads it.

use std::ops::RangeInclusive;

/// Seconds between two self-verifications.
pub const CHECK_FREQUENCY_S: RangeInclusive<u64> = 1..=86_400;
/// Seconds that a token is valid, and the longest window that a verifier accepts.
pub const TOKEN_LIFETIME_S: RangeInclusive<u64> = 1..=3600;
/// Seconds by which a peer's clock may differ.
pub const LEEWAY_S: RangeInclusive<u64> = 0..=300;
/// Seconds that the agent waits for a token to become valid, where the peer's clock is ahead.
pub const MAX_CLOCK_WAIT_S: RangeInclusive<u64> = 0..=600;
