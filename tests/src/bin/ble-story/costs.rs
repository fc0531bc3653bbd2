//! What a flow costs on the air: messages that the phone answers, and how soon a card is there.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pocketcard_dev::{AIR_CARD_LIMIT, Card, Environment};
use pocketcard_tests::client::eventually;

use crate::absence::start_cold;
use crate::guest::{Context, Failure, RSA, radio, say, sign, step};
use crate::pam;
use crate::ssh;
use crate::stories::{LEAVE_LIMIT, environment, paired, signs};
use crate::transports::summary;

/// What a login may cost when the computer knows the card, and when it does not.
const WARM: usize = 2;
const COLD: usize = 4;
/// How soon pcscd switches an unused card off, with the time of an emulated machine.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(60);
/// What is called the first idle minute: the ping comes at its end, counted from the last message.
const QUIET: Duration = Duration::from_secs(57);
/// When it must have come.
const PING: Duration = Duration::from_secs(20);
/// Arrivals of the phone that are measured.
const ARRIVALS: usize = 12;

/// A link message of the daemon to the phone, as its log names it.
fn requests(log: &Path) -> Result<Vec<String>, Failure> {
    let log = fs::read_to_string(log).context("reading the daemon's log")?;
    let sent = log.lines().filter(|line| line.contains("to the phone"));
    let request = |line: &str| line.split_once("request=").map(|(_, request)| request.trim_matches('"').to_owned());
    Ok(sent.filter_map(request).collect())
}

/// What a program does, and whether it is there to do it.
type Flow<'a> = &'a dyn Fn(&Environment) -> Result<bool, Failure>;

/// Round trips of flows, cold and warm: the same counts as in the simulator.
pub(crate) fn costs() -> Result<(), Failure> {
    let level = "info,pocketcardd=trace,pocketcard_daemon=trace";
    let mut environment = step("a phone pairs, its card is in pcscd", || {
        Ok(environment("host").log_level(level).card(Card::Rsa).over_the_air("hci0", &["hci1"]).start()?)
    })?;
    let ssh = ssh::Server::prepare(&environment)?;
    let pam = pam::prepare(&environment)?;
    let log = environment.logs().join("pocketcardd.log");
    let flows: [(&str, Flow<'_>); 3] = [
        ("pkcs11-tool --login --sign", &|environment| sign(environment, &RSA).map(|()| true)),
        ("ssh login", &|environment| match &ssh {
            Some(server) => server.login(environment).map(|()| true),
            None => Ok(false),
        }),
        ("PAM login", &|environment| match &pam {
            Some(pam) => pam.login(environment).map(|()| true),
            None => Ok(false),
        }),
    ];
    for (name, flow) in flows {
        for (start, limit) in [("cold", COLD), ("warm", WARM)] {
            // What is read when the card arrives belongs to a cold start.
            let mut before = requests(&log)?.len();
            if start == "cold" {
                step(&format!("{name}: a computer that does not know the card"), || start_cold(&mut environment))?;
                before = before.min(requests(&log)?.len());
            }
            let mut done = false;
            step(&format!("{name}, {start}"), || {
                done = flow(&environment)?;
                Ok(())
            })?;
            if !done {
                continue;
            }
            let asked = requests(&log)?.split_off(before);
            let round_trips =
                asked.iter().filter(|request| ["transmit", "fetch", "pin_entry"].contains(&request.as_str()));
            let count = round_trips.count();
            say(&format!("REPORT costs: {name}, {start}: {count} round trips: {}", asked.join(", ")));
            if count > limit || start == "warm" && count != WARM {
                return Err(Failure::Wrong(format!("{name}, {start}, was to cost {limit} round trips")));
            }
        }
    }
    Ok(())
}

/// Nothing crosses the air in the first idle minute after the last client; then the ping does.
pub(crate) fn quiet() -> Result<(), Failure> {
    let environment = paired(Card::Ec)?;
    signs(&environment, "and its program ends")?;
    step("pcscd switches the card off", || {
        let off = || {
            environment.daemon_control().is_ok_and(|mut control| {
                control.status().is_ok_and(|status| status.slots.iter().all(|slot| !slot.powered))
            })
        };
        if eventually(POWER_OFF_LIMIT, off) { Ok(()) } else { Err(Failure::Wrong("it is still on".to_owned())) }
    })?;
    // What the power-off itself sent, and the acknowledgements of the layers below.
    std::thread::sleep(Duration::from_secs(1));
    let begun = radio("traffic")?;
    step("an idle minute", || {
        std::thread::sleep(QUIET);
        Ok(())
    })?;
    let ended = radio("traffic")?;
    let seconds = QUIET.as_secs();
    say(&format!("REPORT quiet: packets of data so far: {begun}; after {seconds} s: {ended}"));
    if begun != ended {
        return Err(Failure::Wrong("something crossed the air in the idle minute".to_owned()));
    }
    step("the ping after it is seen, so the counter counts", || {
        let more = || radio("traffic").is_ok_and(|traffic| traffic != ended);
        if eventually(PING, more) { Ok(()) } else { Err(Failure::Wrong("no ping came".to_owned())) }
    })
}

/// From the first sign of the phone to its card in PC/SC, again and again.
pub(crate) fn arrivals() -> Result<(), Failure> {
    let environment = paired(Card::Ec)?;
    let log = environment.logs().join("pocketcardd.log");
    let (mut scanned, mut opened, mut shown) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ARRIVALS {
        radio("away 1")?;
        environment.wait_card(0, false, LEAVE_LIMIT)?;
        let before = fs::read_to_string(&log).context("reading the daemon's log")?.lines().count();
        let begun = Instant::now();
        step(&format!("the phone returns, time {round}"), || {
            radio("back 1")?;
            Ok(environment.wait_card(0, true, AIR_CARD_LIMIT)?)
        })?;
        shown.push(begun.elapsed());
        let text = fs::read_to_string(&log).context("reading the daemon's log")?;
        let lines: Vec<&str> = text.lines().skip(before).collect();
        let at = |what: &str| lines.iter().rev().find(|line| line.contains(what)).and_then(|line| moment(line));
        let marks = (at("the phone is there"), at("phone connected"), at("card in the reader"));
        let (Some(there), Some(open), Some(card)) = marks else {
            return Err(Failure::Wrong(format!("the daemon's log does not tell: {marks:?}")));
        };
        scanned.push(card.saturating_sub(there));
        opened.push(card.saturating_sub(open));
    }
    say(&format!("REPORT arrivals: back in range to card in PC/SC: {}", summary(shown)));
    say(&format!("REPORT arrivals: seen in the scan to card present: {}", summary(scanned)));
    say(&format!("REPORT arrivals: channel open to card present: {}", summary(opened)));
    Ok(())
}

/// When a line was logged, within its day.
fn moment(line: &str) -> Option<Duration> {
    let time = line.split_once('T')?.1.split_once('Z')?.0;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    Some(Duration::from_secs_f64(hours * 3600.0 + minutes * 60.0 + seconds))
}
