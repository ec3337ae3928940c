//! Whole ceremonies over folders of secrets, and the attacks on them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod agreements;
mod common;
mod contributions;
mod encoding;
mod folders;
mod keys;
mod sites;
