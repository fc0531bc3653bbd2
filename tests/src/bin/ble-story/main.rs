//! What the guest of `cargo xtask test-ble` tells: stories of phones and computers on the air, with real BlueZ between them.
//!
//! `ble-story --list` prints a line for each story: its name, how many adapters it needs, `[GATT] Channels` or `-`, `peers` if
//! the radio has to bring a phone and a computer of its own or `-`, and its limit in seconds. `ble-story NAME` tells one; exit code 0 says
//! that it went as it should.

mod absence;
mod costs;
mod guest;
mod others;
mod pam;
mod ssh;
mod stories;
mod transports;

use std::process::ExitCode;

use stories::STORIES;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument == "--list" {
        for story in &STORIES {
            let channels = story.channels.map_or_else(|| "-".to_owned(), |channels| channels.to_string());
            let peers = if story.peers { "peers" } else { "-" };
            let (name, adapters, limit) = (story.name, story.adapters, story.limit.as_secs());
            guest::say(&format!("{name} {adapters} {channels} {peers} {limit}"));
        }
        return ExitCode::SUCCESS;
    }
    let Some(story) = STORIES.iter().find(|story| story.name == argument) else {
        eprintln!("ble-story: no story is called {argument:?}; see --list");
        return ExitCode::from(2);
    };
    match (story.tell)() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ble-story: {failure}");
            ExitCode::FAILURE
        }
    }
}
