#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_peer::fuzz::agent_token(bytes));
