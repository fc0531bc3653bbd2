//! `pocketcard pair`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use pocketcard_ipc::Address;
use pocketcard_ipc::control::{Client, ClientError, PairMethod, Reply, Request};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::failure::Failure;
use crate::terminal::Person;

/// How much longer than a limit of its own the daemon may take to say that it has passed.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the phone's owner may take over the digits. Spec: protocol/SPEC.md, section 10.
const DECISION_LIMIT: Duration = Duration::from_secs(120);
/// Bright white on black: the code's background is light on every terminal. Many cameras do not read the inverse.
/// Spec: ECMA-48, SGR.
const LIGHT_ON_DARK: &str = "\x1b[97;40m";
/// Back to the terminal's own colours.
const PLAIN: &str = "\x1b[0m";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the phone listens, for phones that are reached by a socket: unix:/path or tcp:127.0.0.1:port. Without it the
    /// phone is looked for over Bluetooth, if the daemon uses that.
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
    // Asked before a code is used up.
    if arguments.yes_if_digits.is_none() && !person.can_answer() {
        return Err(Failure::NobodyToAsk);
    }
    lead(connect()?, arguments, person, PATIENCE)
}

fn lead(
    mut client: Client,
    arguments: &Arguments,
    person: &mut impl Person,
    patience: Duration,
) -> Result<ExitCode, Failure> {
    let method = if arguments.compare { PairMethod::Compare } else { PairMethod::Qr };
    let (qr_text, expires_in) = client.pair_start(arguments.connect.clone(), method, arguments.slot)?;
    match &qr_text {
        Some(text) => person.tell(&offer(text, expires_in, person.sees_colours())?),
        None => person.tell(&format!(
            "Open pairing on the phone within {} s; both will show six digits.\n",
            expires_in.as_secs()
        )),
    }
    let mut deadline = Instant::now() + expires_in + patience;
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
                // The code's own time is over by now, perhaps.
                deadline = Instant::now() + DECISION_LIMIT + patience;
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
fn offer(text: &str, expires_in: Duration, colours: bool) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)?;
    // The code's light squares are drawn and its dark ones are background (the renderer's `Dark` is what is drawn): right
    // on a dark terminal, and anywhere with colours.
    let mut picture = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    if colours {
        let lines: Vec<String> = picture.lines().map(|line| format!("{LIGHT_ON_DARK}{line}{PLAIN}")).collect();
        picture = lines.join("\n");
    }
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
    use std::io::Write;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    use pocketcard_ipc::VERSION;
    use pocketcard_ipc::control::{Limits, LineReader, encode};

    use super::*;
    use crate::fixtures;

    #[test]
    fn the_offer_has_the_code_and_the_text() {
        let text = format!("pocketcard:1:{}", "A".repeat(160));
        let shown = offer(&text, Duration::from_secs(120), false).unwrap();
        assert!(shown.contains("within 120 s"));
        assert!(shown.ends_with(&format!("\n\n{text}\n")));
        let widest = shown.lines().filter(|line| line.contains('█')).map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 80, "the code is {widest} characters wide");
        // The margin is light, so the light squares are the drawn ones; with colours they are so on any terminal.
        assert!(shown.lines().nth(2).unwrap().chars().all(|square| square == '█'), "{shown}");
        assert!(!shown.contains('\x1b'));
        let coloured = offer(&text, Duration::from_secs(120), true).unwrap();
        for line in coloured.lines().filter(|line| line.contains('█')) {
            assert!(line.starts_with(LIGHT_ON_DARK) && line.ends_with(PLAIN), "{line:?}");
        }
        assert_eq!(coloured.replace(LIGHT_ON_DARK, "").replace(PLAIN, ""), shown);
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(spaced("042137"), "042 137");
    }

    struct Nobody;
    impl Person for Nobody {
        fn can_answer(&self) -> bool {
            false
        }
        fn sees_colours(&self) -> bool {
            false
        }
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

    #[test]
    fn nobody_to_ask_is_told_before_a_code_is_used_up() {
        let arguments = Arguments { connect: None, compare: false, slot: None, yes_if_digits: None };
        let result = run(&arguments, &mut Nobody, || panic!("the daemon was asked"));
        assert!(matches!(result, Err(Failure::NobodyToAsk)));
    }

    /// Compares the digits for longer than the code lasts.
    struct Slow;
    impl Person for Slow {
        fn can_answer(&self) -> bool {
            true
        }
        fn sees_colours(&self) -> bool {
            false
        }
        fn tell(&mut self, _: &str) {}
        fn ask(&mut self, _: &str) -> Result<bool, Failure> {
            thread::sleep(Duration::from_millis(300));
            Ok(true)
        }
    }

    #[test]
    fn digits_may_be_compared_after_the_code_has_expired() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = LineReader::new();
            let mut exchange = |stream: &mut UnixStream, replies: &[Reply]| {
                let request: Request = lines.read_from(stream).unwrap();
                for reply in replies {
                    stream.write_all(&encode(reply).unwrap()).unwrap();
                }
                request
            };
            exchange(&mut stream, &[Reply::Hello { version: VERSION, software: "test".to_owned() }]);
            let offer = Reply::PairOffer { qr_text: None, expires_in_s: 0 };
            let digits = Reply::PairDigits { digits: "042137".to_owned(), phone_name: "Pixel".to_owned() };
            exchange(&mut stream, &[offer, digits]);
            assert_eq!(exchange(&mut stream, &[]), Request::PairConfirm { agree: true });
            // The phone's owner takes a moment, too.
            thread::sleep(Duration::from_millis(100));
            stream.write_all(&encode(&Reply::Paired { phone: fixtures::phone() }).unwrap()).unwrap();
        });
        let client = Client::connect(&path, "test", Limits::default()).unwrap();
        let arguments = Arguments { connect: None, compare: true, slot: None, yes_if_digits: None };
        lead(client, &arguments, &mut Slow, Duration::from_millis(200)).unwrap();
        daemon.join().unwrap();
    }
}
