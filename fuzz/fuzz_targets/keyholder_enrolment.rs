//! Agreement, manifest and reference values, as an operator enrols them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_keyholder::documents::fuzz_documents(bytes));
