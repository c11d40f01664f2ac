#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| verilume_fuzz::graph(bytes));
