//! Prints what flows of real programs take over Bluetooth LE: through a relay that knows nothing of cards, and through
//! this project.
//!
//!     cargo run -p pocketcard-simulator --bin radio-table
#![allow(clippy::print_stdout)] // what it is for

use std::time::Duration;

use pocketcard_front::Failure;
use pocketcard_simulator::PhoneSetup;
use pocketcard_simulator::radio::Parameters;
use pocketcard_simulator::recording::{Cost, Recording, Start};
use pocketcard_simulator::relay::{self, RelayCost};

const INTERVALS: [Duration; 4] = [
    Duration::from_micros(7_500),
    Duration::from_micros(15_000),
    Duration::from_micros(30_000),
    Duration::from_micros(48_750),
];

/// Of a phone's app and the systems on both sides, for each message: none, to show the radio alone, and about what a relay
/// of APDUs needs for each.
const LATENCIES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(60)];

fn main() -> Result<(), Failure> {
    println!(
        "Seconds from the first command to the last answer; LE 1M, packets of 251 bytes, MTU 517. The programs begin"
    );
    println!(
        "when the card appears: cold, the host has never seen it; warm, it knows what the card says to everybody."
    );
    for latency in LATENCIES {
        println!("\nPhone and systems: {} ms for each message\n", latency.as_millis());
        print!("| {:<22} | {:<12} |", "Flow", "");
        INTERVALS.iter().for_each(|interval| print!(" {:>8} |", format!("{} ms", interval.as_secs_f64() * 1000.0)));
        println!(" round trips | values |  bytes |");
        println!("|{:-<24}|{:-<14}|{}{:-<13}|--------|--------|", "", "", "----------|".repeat(INTERVALS.len()), "");
        for recording in Recording::all() {
            print_flow(&recording, latency)?;
        }
    }
    Ok(())
}

fn print_flow(recording: &Recording, latency: Duration) -> Result<(), Failure> {
    let cost = |start| INTERVALS.map(|interval| play(recording, interval, latency, start));
    let cold = cost(Start::Cold).into_iter().collect::<Result<Vec<Cost>, Failure>>()?;
    let warm = cost(Start::Warm).into_iter().collect::<Result<Vec<Cost>, Failure>>()?;
    let relayed: Vec<RelayCost> = INTERVALS
        .iter()
        .zip(&cold)
        .map(|(interval, cost)| {
            let flow = recording.commands().zip(cost.answers.iter().map(Vec::as_slice));
            relay::play(&Parameters::default().with_interval(*interval), latency, flow)
        })
        .collect();
    let [cold, warm] = [cold, warm].map(|costs| costs.iter().map(RelayCost::from).collect::<Vec<_>>());
    for (title, who, costs) in
        [(recording.name, "a relay", relayed), ("", "this, cold", cold), ("", "this, warm", warm)]
    {
        row(title, who, &costs);
    }
    Ok(())
}

/// Times at every interval; the rest is the same at each, as far as one line can tell.
fn row(title: &str, who: &str, costs: &[RelayCost]) {
    print!("| {title:<22} | {who:<12} |");
    costs.iter().for_each(|cost| print!(" {:>8.2} |", cost.time.as_secs_f64()));
    let RelayCost { round_trips, values, bytes, .. } = costs.first().copied().unwrap_or_default();
    println!(" {round_trips:>11} | {values:>6} | {bytes:>6} |");
}

/// The flow over our own code, from the moment when the card is in the reader.
fn play(recording: &Recording, interval: Duration, latency: Duration, start: Start) -> Result<Cost, Failure> {
    let setup = PhoneSetup { latency, ..PhoneSetup::default() };
    let (mut world, slot) = recording.world(1, setup, Parameters::default().with_interval(interval), start);
    recording.play(&mut world, slot)
}
