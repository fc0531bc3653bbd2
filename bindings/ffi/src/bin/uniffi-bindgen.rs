//! Generates the code of another language: `uniffi-bindgen generate --library LIBRARY --language kotlin --out-dir DIR`.

fn main() {
    uniffi::uniffi_bindgen_main();
}
