//! That the packages say of what others wrote and we build in.

use std::fs;

use crate::workspace::root;

#[test]
fn the_c_library_that_is_built_in_is_named_with_its_version_and_licences() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let (lock, copyright) = (read("Cargo.lock"), read("packaging/debian/copyright"));
    let (_, entry) = lock.split_once("\nname = \"libdbus-sys\"\nversion = \"").unwrap();
    let version = entry.split('"').next().unwrap();
    assert!(copyright.contains(&format!("libdbus-sys {version} ")), "it is {version}: look what libdbus it has now");
    for licence in ["AFL-2.1", "GPL-2+", "Tcl", "Expat", "Apache-2.0"] {
        assert!(copyright.contains(&format!("\nLicense: {licence}\n")), "the text of {licence}");
    }
}
