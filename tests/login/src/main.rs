//! What `cargo xtask test-login` tells in a throw-away Debian: people sign in with a phone, by the programs that they use.
//!
//! `login-story --list` prints the names of the stories; `login-story NAME` tells one. Exit code 0 says that it went as it
//! should, 77 that it could not run here. It changes the users and the PAM of the machine it runs on, and so refuses to
//! run anywhere but in that Debian.

mod air;
mod browser;
mod card;
mod clients;
mod denied;
mod failure;
mod greeter;
mod locker;
mod owner;
mod page;
mod phone_entry;
mod pin_pad;
mod pty;
mod screen;
mod service;
mod sign_in;
mod sssd_pad;
mod stories;
mod system;
mod told_apart;
mod twin;
mod two_users;
mod watcher;
mod world;

use std::process::ExitCode;

use clap::Parser;

use failure::Failure;
use stories::STORIES;
use world::say;

/// Tells a story of signing in with a phone.
#[derive(Debug, Parser)]
struct Arguments {
    /// Print the names of the stories.
    #[arg(long)]
    list: bool,
    /// Which story.
    #[arg(required_unless_present = "list")]
    story: Option<String>,
}

/// The exit code by which a script says that it could not run, as automake's tests do.
const SKIPPED: u8 = 77;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        STORIES.iter().for_each(|story| say(story.name));
        return ExitCode::SUCCESS;
    }
    let name = arguments.story.unwrap_or_default();
    let Some(story) = STORIES.iter().find(|story| story.name == name) else {
        eprintln!("login-story: no story is called {name:?}; see --list");
        return ExitCode::from(2);
    };
    match world::is_throw_away().and_then(|()| (story.tell)()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::CannotRun(reason)) => {
            say(&format!("SKIPPED: {reason}"));
            ExitCode::from(SKIPPED)
        }
        Err(failure) => {
            eprintln!("login-story: {failure}");
            ExitCode::FAILURE
        }
    }
}
