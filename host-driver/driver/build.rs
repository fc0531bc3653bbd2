//! Keeps the library in memory once it is loaded: thread-locals of the standard library have destructors, and pcscd
//! unloads drivers while its threads still run.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
