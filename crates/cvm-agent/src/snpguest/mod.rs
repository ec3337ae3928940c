//! `snpguest`, as far as NVFLARE's `SNPAuthorizer` runs it. It has the arguments and files of
//! virtee's program of that name (0.11), but touches no device and no network. The agent
//! has the device, the vendors' roots and lists, and the journal; this program carries files to its
//! socket and back, and has no privilege of its own.
//!
//! | NVFLARE runs | here |
//! |---|---|
//! | `report FILE REQUEST` | a report over REQUEST's 64 bytes, then its certificate ([`file`]) |
//! | `fetch ca pem FOLDER MODEL` | AMD's certificates, which are built in |
//! | `fetch vcek pem FOLDER FILE` | what vouches for this report, which the agent verifies |
//! | `display report FILE` | the same text as virtee's ([`display`]) |
//! | `verify attestation FOLDER FILE` | the agent's verdict: chain, chip, TCB, no debug mode |
//!
//! virtee's takes whatever certificate lies in FOLDER; here it must lead to AMD's root every time.

pub mod display;
pub mod error;
pub mod file;
pub mod run;
