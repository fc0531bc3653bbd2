//! A phone on the desktop: phone-core behind a socket or on Bluetooth, with a terminal interface or under script.

mod approver;
mod arguments;
mod clock;
mod device_key;
mod enrolment;
mod events;
#[cfg(test)]
#[path = "../tests/support/host.rs"]
#[allow(dead_code, unreachable_pub)]
mod host;
mod output;
mod probe;
#[cfg(feature = "ble")]
mod radio;
mod script;
mod setup;
mod socket;
mod ui;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use arguments::Arguments;
use output::Output;
use setup::{SetupError, Started};

fn main() -> ExitCode {
    keep_secrets_in_memory();
    let arguments = Arguments::parse();
    // Nothing this process makes is for others: sockets and files are private from their first moment.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let (output, writer) = match Output::start(arguments.script, arguments.log.as_deref()) {
        Ok(started) => started,
        Err(error) => return complain(&SetupError::Log(error)),
    };
    let result = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let result = runtime.block_on(run(arguments, output.clone()));
            // Drops what is left of the tasks, and with them every handle of the output.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(SetupError::Runtime(error)),
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.event(&json!({ "event": "error", "message": explain(&error) }));
            complain(&error)
        }
    };
    drop(output);
    writer.finish();
    code
}

/// No core dump, and no other process of this user may read our memory. Failing is no reason not to run.
fn keep_secrets_in_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

async fn run(arguments: Arguments, output: Output) -> Result<(), SetupError> {
    if !(arguments.script || std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return Err(SetupError::NoTerminal);
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(SetupError::Runtime)?;
    let started = tokio::select! {
        started = setup::start(&arguments, &output) => started?,
        _ = terminate.recv() => return Ok(()),
    };
    let Started { phone, running, listener, questions, enrolled } = started;
    let (results, done) = async_channel::unbounded();
    let reporting = tokio::spawn(report(phone.events(), done, output.clone(), arguments.no_apdu_events));
    let listens = listener.as_ref().map(|listener| listener.address().to_owned());
    let mut serving = tokio::task::JoinSet::new();
    if let Some(listener) = listener {
        serving.spawn(listener.serve(phone.clone()));
    }
    output.event(&json!({
        "event": "ready", "listen": listens, "ble": arguments.ble.is_some(), "name": arguments.name, "enrolled": enrolled,
    }));
    #[cfg(feature = "ble")]
    if let Some(adapter) = arguments.ble.clone() {
        let adapter = Some(adapter).filter(|adapter| !adapter.is_empty());
        serving.spawn(radio::serve(phone.clone(), adapter, output.clone()));
    }
    let address = listens.unwrap_or_else(|| "Bluetooth".to_owned());
    let owner = async {
        if arguments.script {
            script::run(&phone, &output, results, questions).await;
            Ok(())
        } else {
            ui::run(&phone, &arguments, &address, enrolled, questions).await
        }
    };
    let result = tokio::select! {
        result = owner => result.map_err(SetupError::Terminal),
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    serving.abort_all();
    phone.stop().await;
    let _ = running.await;
    while serving.join_next().await.is_some() {}
    drop(phone);
    let _ = reporting.await;
    result
}

/// Writes what happens to standard output and the log.
///
/// - `results`: of what the owner had done; each is written after what happened until then.
async fn report(
    events: async_channel::Receiver<pocketcard_phone::runtime::PhoneEvent>,
    results: async_channel::Receiver<serde_json::Value>,
    output: Output,
    no_apdu_events: bool,
) {
    if output.is_silent() {
        return;
    }
    loop {
        let event = tokio::select! {
            biased;
            event = events.recv() => match event {
                Ok(event) => event,
                Err(_) => return,
            },
            Ok(result) = results.recv() => {
                output.event(&result);
                continue;
            }
        };
        if !events::is_frequent(&event) {
            output.event(&events::value(&event));
        } else if !no_apdu_events {
            output.frequent_event(&events::value(&event));
        }
    }
}

fn complain(error: &SetupError) -> ExitCode {
    eprintln!("virtual-phone: {}", explain(error));
    ExitCode::FAILURE
}

/// The error and what is behind it, in one line.
fn explain(error: &SetupError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
