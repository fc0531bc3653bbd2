//! The configurations that packages install are accepted, and so is every line of them that is commented out.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use std::fs;
use std::path::Path;

use pocketcard_daemon::config::Config;

/// Loads a text as the daemon loads its file.
fn load(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pocketcardd.toml");
    fs::write(&path, text).unwrap();
    Config::load(&path).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn packaged(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn debians_is_the_default_and_shows_it() {
    let text = packaged("debian/pocketcard/pocketcardd.toml");
    assert_eq!(load(&text), Config::default());
    let shown: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // A comment begins with a space, a key does not.
            Some(line) if !line.starts_with(' ') => format!("{line}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let shown = load(&shown);
    let default = Config::default();
    assert_eq!((shown.reader_slots, shown.pin_entry), (default.reader_slots, default.pin_entry));
    assert_eq!(shown.link.len(), 1);
    assert!(shown.host_name.is_some() && shown.bluetooth.adapter.is_some(), "the lines were not read");
}

#[test]
fn the_one_for_macos_keeps_away_from_the_folders_of_linux() {
    let config = load(&packaged("macos/pocketcardd.toml"));
    for path in [&config.state_dir, &config.driver_socket, &config.control_socket] {
        assert!(path.starts_with("/usr/local/var/pocketcard"), "{}", path.display());
    }
}

#[test]
fn the_manual_page_has_every_key() {
    let page = packaged("man/pocketcardd.toml.5");
    let config = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config.rs")).unwrap();
    // Up to the first type that is no table of the file.
    let (structs, _) = config.split_once("pub enum").unwrap();
    let keys: Vec<&str> = structs
        .lines()
        .filter_map(|line| line.strip_prefix("    pub "))
        .filter_map(|line| line.split_once(':').map(|(key, _)| key))
        .collect();
    assert!(keys.len() > 12, "{keys:?}");
    for key in keys {
        assert!(page.contains(key), "pocketcardd.toml(5) does not know {key}");
    }
}
