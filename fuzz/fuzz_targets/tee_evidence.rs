#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_attest::fuzz::tee_evidence(bytes));
