#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvm_agent::fuzz::snp_report_file(bytes));
