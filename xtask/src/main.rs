//! `cargo xtask`: what a person or CI does with this workspace, in one command each.
//!
//! Everything installs what it needs (by apt on Debian, as root or with sudo; tools of Rust by cargo) and prints what it
//! did and how long each step took.

mod bench;
mod ble;
mod ci;
mod debian;
mod demo;
mod demo_ssh;
mod fuzz;
mod install;
mod login;
mod models;
mod own;
mod package;
mod problem;
mod soak;
mod steps;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use problem::Problem;
use steps::Steps;

/// Tasks of the Pocketcard workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Show the whole: a phone in a reader, a key in it, a signature by it, an ssh login with it.
    Demo,
    /// Install what the tests need, build everything and run every test.
    Test(test::Arguments),
    /// Run the stories of Bluetooth LE: real BlueZ and virtual controllers in an emulated machine.
    TestBle(ble::Arguments),
    /// Sign in with a phone, in a throw-away Debian: PAM, sssd, ssh, browser, greeter.
    TestLogin(login::Arguments),
    /// Make Debian packages: driver, daemon with command line, virtual phone.
    Package(package::Arguments),
    /// Install, upgrade, remove and purge the packages in clean roots of Debian 12 and 13.
    TestPackages(package::TrialArguments),
    /// What CI runs: format, lints, documentation, dependencies, tests, a little fuzzing, models.
    Ci,
    /// Check the models of the protocol with Verifpal.
    Models(models::Arguments),
    /// Measure the reader beside Debian's vpcd.
    Bench(bench::Arguments),
    /// Run every fuzz target for a while.
    Fuzz(fuzz::Arguments),
    /// The full counts: every kill test, ten minutes of each fuzz target. Takes hours.
    Soak(soak::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut steps = Steps::new();
    let result = match arguments.task {
        Task::Demo => demo::run(&mut steps),
        Task::Test(arguments) => test::run(&mut steps, &arguments),
        Task::TestBle(arguments) => ble::run(&mut steps, &arguments),
        Task::TestLogin(arguments) => login::run(&mut steps, &arguments),
        Task::Package(arguments) => package::run(&mut steps, &arguments),
        Task::TestPackages(arguments) => package::trial(&mut steps, &arguments),
        Task::Ci => ci::run(&mut steps),
        Task::Models(arguments) => models::run(&mut steps, &arguments),
        Task::Bench(arguments) => bench::run(&mut steps, &arguments),
        Task::Fuzz(arguments) => fuzz::run(&mut steps, &arguments).and_then(|()| steps.all_good()),
        Task::Soak(arguments) => soak::run(&mut steps, arguments),
    };
    steps.finish(result)
}
