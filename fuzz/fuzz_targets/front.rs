#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| pocketcard_fuzz::front::run(data));
