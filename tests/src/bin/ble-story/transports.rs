//! What carries a link: L2CAP where both sides can, GATT else, and what either costs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use aes::Aes192;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use pocketcard_dev::{AIR_CARD_LIMIT, Card, DevError, Environment};
use pocketcard_ipc::control::Transport;
use pocketcard_tests::Client;
use pocketcard_tests::apdu::{RIGHT_PIN, SELECT_PIV, status_word, verify};

use crate::guest::{Context, Failure, RSA, radio, say, sign, step};
use crate::stories::{environment, paired, signs};
use crate::{others, ssh};

/// The facial image: everything of it comes from the phone each time, since it needs the PIN.
const FACE: [u8; 5] = [0x5C, 0x03, 0x5F, 0xC1, 0x08];
/// As much as such an object may hold. Spec: SP 800-73-4 part 1, table 7
const FACE_LENGTH: usize = 12_704;
/// The well-known key of a test card.
const MANAGEMENT_KEY: [u8; 24] = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8];
/// Reads of the object.
const READS: usize = 10;
/// Logins by ssh.
const LOGINS: usize = 3;
/// Between two connection events, in milliseconds: what `pocketcard doctor` advises.
const INTERVAL: &str = "15";

/// The same story over both transports.
pub(crate) fn l2cap() -> Result<(), Failure> {
    let mut environment = paired(Card::Rsa)?;
    expect(&environment, &Transport::L2cap {})?;
    step("an object of 12.7 KB is written over it", || {
        let mut client = Client::connected(&environment, 0);
        write_face(&mut client)
    })?;
    sign(&environment, &RSA)?;
    let ssh = ssh::Server::prepare(&environment)?;
    radio(&format!("interval {INTERVAL}"))?;
    measure(&mut environment, "l2cap", ssh.as_ref())?;
    turn_off(&mut environment)?;
    measure(&mut environment, "gatt", ssh.as_ref())?;
    match transport(&environment)? {
        Some(Transport::Gatt { mtu }) if mtu > 23 => Ok(()),
        other => Err(Failure::Wrong(format!("the link is carried by {other:?}"))),
    }
}

/// The least ATT MTU there is carries everything, only slower. BlueZ 5.66 cannot have so little; the other phone can.
pub(crate) fn least_mtu() -> Result<(), Failure> {
    let host = environment("host").over_the_air("hci0", &[]).start()?;
    step("the phone pairs by its camera with an MTU of 23, its card is in pcscd", || {
        radio("phone mtu 23")?;
        radio("phone keep")?;
        others::pair(&host)?;
        Ok(host.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    expect(&host, &Transport::Gatt { mtu: 23 })?;
    signs(&host, "over the least MTU")?;
    let mut client = Client::connected(&host, 0);
    step("an object of 12.7 KB is written over it", || write_face(&mut client))?;
    let begun = Instant::now();
    let object = step("the object is read", || {
        apdu(&mut client, "VERIFY", &verify(RIGHT_PIN))?;
        read_face(&mut client)
    })?;
    say(&format!("REPORT least-mtu: object of {} bytes {} ms", object.len(), begun.elapsed().as_millis()));
    if object.len() < FACE_LENGTH { Err(Failure::Wrong("a part of the object is missing".to_owned())) } else { Ok(()) }
}

/// Makes the daemon use GATT alone from its next start on.
fn turn_off(environment: &mut Environment) -> Result<(), Failure> {
    let config = environment.daemon().config().to_owned();
    let mut file = OpenOptions::new().append(true).open(config).context("opening the configuration")?;
    // The last table is that of Bluetooth.
    writeln!(file, "l2cap = false").context("writing the configuration")
}

/// Prints what a transport costs: to connect, to read a large object, to log in.
fn measure(environment: &mut Environment, name: &str, ssh: Option<&ssh::Server>) -> Result<(), Failure> {
    let begun = Instant::now();
    step(&format!("{name}: the computer comes back"), || {
        environment.daemon().restart()?;
        Ok(environment.wait_card(0, true, AIR_CARD_LIMIT)?)
    })?;
    let there = begun.elapsed();
    let connected = connected(environment)?;
    let mut reads = Vec::new();
    step(&format!("{name}: the object is read {READS} times"), || {
        let mut client = Client::connected(environment, 0);
        apdu(&mut client, "VERIFY", &verify(RIGHT_PIN))?;
        for _ in 0..READS {
            let begun = Instant::now();
            let object = read_face(&mut client)?;
            reads.push(begun.elapsed());
            if object.len() < FACE_LENGTH {
                return Err(Failure::Wrong(format!("the object has {} bytes", object.len())));
            }
        }
        Ok(())
    })?;
    let mut logins = Vec::new();
    for _ in 0..LOGINS {
        if let Some(ssh) = ssh {
            let begun = Instant::now();
            step(&format!("{name}: ssh logs in"), || ssh.login(environment))?;
            logins.push(begun.elapsed());
        }
    }
    let transport = transport(environment)?;
    say(&format!(
        "REPORT {name}: {transport:?}, {INTERVAL} ms between connection events: daemon's start to card {} ms; {connected}; \
         object of {FACE_LENGTH} bytes {}; ssh login {}",
        there.as_millis(),
        summary(reads),
        summary(logins),
    ));
    Ok(())
}

/// The least, the middle and the most of some times; of fewer than a hundred the most is also the 99th percentile.
pub(crate) fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |index: usize| times.get(index).map_or_else(|| "-".to_owned(), |time| time.as_millis().to_string());
    let last = times.len().saturating_sub(1);
    format!("min {} p50 {} p99 {} ms (n = {})", at(0), at(last / 2), at(last), times.len())
}

/// What the daemon's log says of its last connection.
fn connected(environment: &Environment) -> Result<String, Failure> {
    let log = fs::read_to_string(environment.logs().join("pocketcardd.log")).context("reading the daemon's log")?;
    let line = log.lines().rev().find_map(|line| line.split_once("connected to a phone ")).unwrap_or_default();
    Ok(line.1.to_owned())
}

/// What carries the link of the phone in slot 0.
pub(crate) fn transport(environment: &Environment) -> Result<Option<Transport>, Failure> {
    let mut control = environment.daemon_control()?;
    Ok(control.phones().map_err(DevError::from)?.first().and_then(|phone| phone.transport))
}

/// Fails unless this carries the link.
pub(crate) fn expect(environment: &Environment, wanted: &Transport) -> Result<(), Failure> {
    let carried = transport(environment)?;
    say(&format!("story: the link is carried by {carried:?}"));
    if carried.as_ref() == Some(wanted) {
        Ok(())
    } else {
        Err(Failure::Wrong(format!("the link was to be carried by {wanted:?}")))
    }
}

/// Sends a command that has to succeed, and returns its data.
pub(crate) fn apdu(client: &mut Client, what: &str, command: &[u8]) -> Result<Vec<u8>, Failure> {
    let failed = |how: String| Failure::Wrong(format!("{what}: {how}"));
    let mut data = Vec::new();
    let mut response = client.transmit(command).map_err(|error| failed(format!("{error:?}")))?;
    while let [part @ .., 0x61, length] = response.as_slice() {
        data.extend_from_slice(part);
        let more = [0x00, 0xC0, 0x00, 0x00, *length];
        response = client.transmit(&more).map_err(|error| failed(format!("{error:?}")))?;
    }
    match status_word(&response) {
        0x9000 => {
            data.extend_from_slice(response.strip_suffix(&[0x90, 0x00]).unwrap_or_default());
            Ok(data)
        }
        word => Err(failed(format!("{word:04X}"))),
    }
}

/// Writes the facial image, as the administrator.
pub(crate) fn write_face(client: &mut Client) -> Result<(), Failure> {
    apdu(client, "SELECT", SELECT_PIV)?;
    let asked = [0x00, 0x87, 0x0A, 0x9B, 0x04, 0x7C, 0x02, 0x81, 0x00, 0x00];
    let challenge = apdu(client, "a challenge", &asked)?;
    let block = challenge.get(4..).and_then(|block| <[u8; 16]>::try_from(block).ok());
    let mut block = block.ok_or_else(|| Failure::Wrong("this is no challenge".to_owned()))?.into();
    Aes192::new(&MANAGEMENT_KEY.into()).encrypt_block(&mut block);
    let answer = [&[0x00, 0x87, 0x0A, 0x9B, 0x14, 0x7C, 0x12, 0x82, 0x10], block.as_slice()].concat();
    apdu(client, "the answer to the challenge", &answer)?;
    let length = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let content: Vec<u8> = (0..FACE_LENGTH).map(|index| index.to_le_bytes()[0]).collect();
    let body = [FACE.as_slice(), &[0x53, 0x82], &length(FACE_LENGTH), &content].concat();
    let command = [&[0x00, 0xDB, 0x3F, 0xFF, 0x00], length(body.len()).as_slice(), &body].concat();
    apdu(client, "PUT DATA", &command).map(|_| ())
}

fn read_face(client: &mut Client) -> Result<Vec<u8>, Failure> {
    let command = [&[0x00, 0xCB, 0x3F, 0xFF, 0x00, 0x00, 0x05], FACE.as_slice(), &[0x00, 0x00]].concat();
    apdu(client, "GET DATA", &command)
}
