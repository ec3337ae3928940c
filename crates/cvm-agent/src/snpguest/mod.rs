//! `snpguest`, as far as NVFLARE's `SNPAuthorizer` runs it: the same arguments and files as
//! virtee's program of that name (0.11), but nothing in it touches a device or a network. The agent
//! has the device, the vendors' roots and lists, and the journal; this program carries files to its
//! socket and back, and has no privilege of its own.
//!
//! | NVFLARE runs | here |
//! |---|---|
//! | `report FILE REQUEST` | the agent's report over the 64 bytes in REQUEST, with the chip's certificate behind it ([`file`]) |
//! | `fetch ca pem FOLDER MODEL` | AMD's certificates, which are built in |
//! | `fetch vcek pem FOLDER FILE` | the VCEK or VLEK that vouches for this very report, once the agent has verified it |
//! | `display report FILE` | the same text as virtee's ([`display`]) |
//! | `verify attestation FOLDER FILE` | the agent's verdict: chain up to AMD, chip, TCB, signature, no debug mode |
//!
//! virtee's takes whatever certificate lies in FOLDER; here it must lead to AMD's root every time.

pub mod display;
pub mod error;
pub mod file;
pub mod run;
