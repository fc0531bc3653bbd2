//! `pocketcard pair`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use pocketcard_ipc::Address;
use pocketcard_ipc::control::{Client, ClientError, PairMethod, Reply, Request};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::failure::Failure;
use crate::terminal::Person;

/// How much longer than the offer itself the daemon may take to say that it expired.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the phone listens, for phones that are reached by a socket: unix:/path or tcp:127.0.0.1:port.
    #[arg(long, value_name = "ADDRESS")]
    connect: Option<Address>,
    /// Without a camera: only compare six digits.
    #[arg(long)]
    compare: bool,
    /// The slot of the reader, from 0; the first free one unless given.
    #[arg(long, value_name = "N")]
    slot: Option<u32>,
    /// For scripts that can read the phone: confirm if these are the digits, and refuse otherwise.
    #[arg(long, value_name = "DIGITS")]
    yes_if_digits: Option<String>,
}

/// Pairs a phone with the person's help.
pub(crate) fn run(
    arguments: &Arguments,
    person: &mut impl Person,
    connect: impl FnOnce() -> Result<Client, Failure>,
) -> Result<ExitCode, Failure> {
    let mut client = connect()?;
    let method = if arguments.compare { PairMethod::Compare } else { PairMethod::Qr };
    let (qr_text, expires_in) = client.pair_start(arguments.connect.clone(), method, arguments.slot)?;
    match &qr_text {
        Some(text) => person.tell(&offer(text, expires_in)?),
        None => person.tell(&format!(
            "Open pairing on the phone within {} s; both will show six digits.\n",
            expires_in.as_secs()
        )),
    }
    let deadline = Instant::now() + expires_in + PATIENCE;
    let mut agreed = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match client.receive(Some(left))? {
            Reply::PairDigits { digits, phone_name } if agreed.is_none() => {
                let agree = decide(arguments, person, &digits, &phone_name)?;
                client.send(&Request::PairConfirm { agree })?;
                if !agree {
                    return Err(match arguments.yes_if_digits {
                        Some(_) => Failure::DigitsDiffer { shown: digits },
                        None => Failure::PairingRefused,
                    });
                }
                agreed = Some(());
                person.tell("Waiting for the phone's owner to confirm there, too.\n");
            }
            Reply::PairPhoneConfirmed {} if agreed.is_none() => person.tell("Confirmed on the phone.\n"),
            Reply::Paired { phone } => {
                person.tell(&format!("Paired: {} is in slot {} of the reader.\n", phone.name, phone.slot));
                return Ok(ExitCode::SUCCESS);
            }
            Reply::Error(failure) => return Err(ClientError::Failed(failure).into()),
            _ => {}
        }
    }
}

fn decide(arguments: &Arguments, person: &mut impl Person, digits: &str, phone: &str) -> Result<bool, Failure> {
    let shown = spaced(digits);
    person.tell(&format!("\n{phone}\n    {shown}\n\n"));
    match &arguments.yes_if_digits {
        Some(expected) => Ok(expected.chars().filter(|character| !character.is_whitespace()).eq(digits.chars())),
        None => person.ask("Does the phone show the same six digits and this computer's name?"),
    }
}

/// The code for a camera, and as text for a phone without one.
fn offer(text: &str, expires_in: Duration) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)?;
    // Dark on light also on a dark terminal: many cameras do not read the inverse.
    let picture = code.render::<Dense1x2>().dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).build();
    Ok(format!(
        "Scan this with the phone within {} s, or paste the text there. It is secret until then.\n\n{picture}\n\n{text}\n",
        expires_in.as_secs()
    ))
}

/// Six digits in two groups, as they are read aloud.
fn spaced(digits: &str) -> String {
    match digits.split_at_checked(3) {
        Some((first, second)) => format!("{first} {second}"),
        None => digits.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offer_has_the_code_and_the_text() {
        let text = format!("pocketcard:1:{}", "A".repeat(160));
        let shown = offer(&text, Duration::from_secs(120)).unwrap();
        assert!(shown.contains("within 120 s"));
        assert!(shown.ends_with(&format!("\n\n{text}\n")));
        let widest = shown.lines().filter(|line| line.contains('█')).map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 80, "the code is {widest} characters wide");
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(spaced("042137"), "042 137");
    }

    struct Nobody;
    impl Person for Nobody {
        fn tell(&mut self, _: &str) {}
        fn ask(&mut self, _: &str) -> Result<bool, Failure> {
            Err(Failure::NobodyToAsk)
        }
    }

    #[test]
    fn a_script_confirms_only_its_own_digits() {
        let arguments = |digits: Option<&str>| Arguments {
            connect: None,
            compare: false,
            slot: None,
            yes_if_digits: digits.map(str::to_owned),
        };
        assert!(decide(&arguments(Some("042137")), &mut Nobody, "042137", "Phone").unwrap());
        assert!(decide(&arguments(Some("042 137")), &mut Nobody, "042137", "Phone").unwrap());
        for wrong in ["042138", "", "0421371", "42137"] {
            assert!(!decide(&arguments(Some(wrong)), &mut Nobody, "042137", "Phone").unwrap(), "{wrong}");
        }
        assert!(matches!(decide(&arguments(None), &mut Nobody, "042137", "Phone"), Err(Failure::NobodyToAsk)));
    }
}
