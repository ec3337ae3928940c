//! A Cookie header, before its seal and after.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_release_server::fuzz_cookie(bytes));
