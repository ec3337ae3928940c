//! A JWE, as a client decrypts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_release::jwe::fuzz_parse(bytes));
