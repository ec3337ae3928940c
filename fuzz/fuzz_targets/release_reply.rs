//! What a client reads from a key holder: challenge, token, resource, seal state, refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_release::client::fuzz_reply(bytes));
