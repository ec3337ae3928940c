//! The split key's vectors and properties, and the fuzzer's seeds.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod seeds;
mod split_key;
