//! Firmware whose launch digest is predicted: OVMF and IGVM files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_fuzzing::launch(bytes));
