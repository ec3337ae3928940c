//! The key holder from outside and from inside: its protocol, its store, its log, and the attacks
//! on them. One binary, because each costs a link; `tests/load.rs` measures, and runs alone.

mod common;
mod delegate;
mod enrolment_and_log;
mod gpu;
mod interop;
mod presentation;
mod release;
mod service;
mod stages;
mod store;
mod tee;

// The tests of cvm-verify use the rest of these.
#[allow(dead_code)]
#[path = "../../../cvm-verify/tests/support/gpus.rs"]
mod gpus;

#[allow(dead_code)]
#[path = "../../../cvm-verify/tests/snp/mint.rs"]
mod mint;

#[allow(dead_code)]
#[path = "../../../cvm-verify/tests/gpu/synthetic.rs"]
mod synthetic;
