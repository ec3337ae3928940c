//! Every file of a ceremony that somebody else sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_ceremony::check_any_bytes(bytes));
