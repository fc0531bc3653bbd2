#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| pocketcard_fuzz::pin_entry::run(data));
