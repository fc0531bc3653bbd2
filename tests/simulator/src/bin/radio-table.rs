//! Prints what flows of real programs take over Bluetooth LE: through a relay that knows nothing of cards, and through
//! this project.
//!
//!     cargo run -p pocketcard-simulator --bin radio-table
#![allow(clippy::print_stdout)] // what it is for

use std::time::Duration;

use pocketcard_front::Failure;
use pocketcard_simulator::radio::Parameters;
use pocketcard_simulator::recording::{Cost, Recording};
use pocketcard_simulator::{PhoneSetup, World, relay};

const INTERVALS: [Duration; 4] = [
    Duration::from_micros(7_500),
    Duration::from_micros(15_000),
    Duration::from_micros(30_000),
    Duration::from_micros(48_750),
];

/// Of a phone's app and the systems on both sides, for each message: none, to show the radio alone, and what relays that
/// are published need for an APDU.
const LATENCIES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(60)];

fn main() -> Result<(), Failure> {
    println!("Seconds from the first command to the last answer; LE 1M, packets of 251 bytes, MTU 517.");
    for latency in LATENCIES {
        println!("\nPhone and systems: {} ms for each message\n", latency.as_millis());
        print!("| {:<22} | {:<16} |", "Flow", "");
        INTERVALS.iter().for_each(|interval| print!(" {:>8} |", format!("{} ms", interval.as_secs_f64() * 1000.0)));
        println!(" round trips |\n|{:-<24}|{:-<18}|{}{:-<13}|", "", "", "----------|".repeat(INTERVALS.len()), "");
        for recording in Recording::all() {
            print_flow(&recording, latency)?;
        }
    }
    Ok(())
}

fn print_flow(recording: &Recording, latency: Duration) -> Result<(), Failure> {
    let costs = INTERVALS.map(|interval| ours(recording, interval, latency));
    let costs = costs.into_iter().collect::<Result<Vec<Cost>, Failure>>()?;
    let relayed = INTERVALS.iter().zip(&costs).map(|(interval, cost)| {
        let flow = recording.commands().zip(cost.answers.iter().map(Vec::as_slice));
        relay::time(&Parameters::default().with_interval(*interval), latency, flow)
    });
    let (commands, round_trips) = costs.first().map_or((0, 0), |cost| (cost.commands, cost.traffic.round_trips));
    row(recording.name, "a relay", relayed, commands);
    row("", "this project", costs.iter().map(|cost| cost.time), round_trips);
    Ok(())
}

fn row(title: &str, who: &str, times: impl Iterator<Item = Duration>, round_trips: usize) {
    print!("| {title:<22} | {who:<16} |");
    times.for_each(|time| print!(" {:>8.2} |", time.as_secs_f64()));
    println!(" {round_trips:>11} |");
}

/// The flow over our own code, with the card inserted and idle.
fn ours(recording: &Recording, interval: Duration, latency: Duration) -> Result<Cost, Failure> {
    let setup = PhoneSetup { latency, ..PhoneSetup::default() };
    let (mut world, slot) = World::with_pair(1, setup, Parameters::default().with_interval(interval));
    recording.provision(world.phone_of(slot));
    world.insert(slot);
    world.run(Duration::from_secs(1));
    recording.play(&mut world, slot)
}
