#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_fuzzing::agent_token(bytes));
