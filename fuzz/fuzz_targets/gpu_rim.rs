#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_fuzzing::gpu_rim(bytes));
