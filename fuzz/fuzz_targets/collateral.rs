//! Collateral of every vendor, evidence that names it, a packed cache.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_fuzzing::collateral(bytes));
