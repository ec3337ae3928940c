//! The bodies that strangers send to a key holder.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_release_server::fuzz_bodies(bytes));
