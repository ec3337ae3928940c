//! What a guest's devices and its host answer: certificate tables, quotes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_fuzzing::collected(bytes));
