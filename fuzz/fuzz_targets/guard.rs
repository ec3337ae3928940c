//! LUKS2 header areas: `cvm_seal::guard`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    cvm_seal::guard::fuzz(bytes);
});
