//! The limits of SPEC.md are those of the code: a change of either alone fails here.
#![allow(missing_docs, clippy::expect_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use pocketcard_protocol::channel::{
    HANDSHAKE_MESSAGE_LIMIT, RECORD_LIMIT, RECORD_PAYLOAD_LIMIT, REKEY_INTERVAL, REKEY_RECORDS,
};
use pocketcard_protocol::fragment::{FragmentSize, NEXT_FRAGMENT, WHOLE_MESSAGE, WINDOW};
use pocketcard_protocol::l2cap::{CHANNELS_LIMIT, DOUBT, OPEN_LIMIT, SDU_LIMIT, WAITING_LIMIT};
use pocketcard_protocol::link::{EARLY_MESSAGE_LIMIT, INFO_LIMIT_BYTES, LINK_MESSAGE_LIMIT, limits::*};
use pocketcard_protocol::messages::{ATR_LIMIT, DIGEST_LENGTH, KEYS_LIMIT, MESSAGE_LIMIT, NAME_LIMIT, TOKEN_LENGTH};
use pocketcard_protocol::pairing::{
    NONCE_LENGTH, OFFER_LIFETIME, TRIES_LIMIT, TRIES_WINDOW, UNCONFIRMED_PAIR_LIFETIME,
};
use pocketcard_protocol::snapshot::{OBJECTS_LIMIT, PAGE_LIMIT, SNAPSHOT_LIMIT};
use pocketcard_protocol::stream::{LONGEST_BEFORE_AUTHENTICATION, LONGEST_MESSAGE};

const SPEC: &str = include_str!("../SPEC.md");

/// The rows of the table below a heading: what is limited, and to what.
fn table(heading: &str) -> BTreeMap<&'static str, &'static str> {
    let (_, section) = SPEC.split_once(&format!("\n{heading}\n")).expect("the heading");
    let section = section.split("\n#").next().unwrap_or(section);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    rows.skip(1).collect()
}

fn check(heading: &str, rows: &[(&'static str, String)]) {
    let code: BTreeMap<_, _> = rows.iter().map(|(what, limit)| (*what, limit.as_str())).collect();
    assert_eq!(table(heading), code, "{heading}");
}

/// With a comma before every three digits, as in the text.
fn number(value: usize) -> String {
    let digits = value.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

fn bytes(length: usize) -> String {
    format!("{} bytes", number(length))
}

fn seconds(limit: Duration) -> String {
    assert_eq!(limit.subsec_nanos(), 0);
    format!("{} s", limit.as_secs())
}

fn minutes(limit: Duration) -> String {
    assert_eq!(limit.as_secs() % 60, 0);
    format!("{} min", limit.as_secs() / 60)
}

#[test]
fn section_10() {
    let early = format!(
        "{} here; {} in the transport (sections 4.4 and 5)",
        bytes(EARLY_MESSAGE_LIMIT),
        number(LONGEST_BEFORE_AUTHENTICATION)
    );
    assert_eq!((MESSAGE_LIMIT, NONCE_LENGTH), (65_536 + 1024, TOKEN_LENGTH));
    check(
        "## 10. Limits",
        &[
            ("`Info`", bytes(INFO_LIMIT_BYTES)),
            ("Noise message of a handshake", bytes(HANDSHAKE_MESSAGE_LIMIT)),
            ("link message before the channel is open", early),
            ("record", bytes(RECORD_LIMIT)),
            ("piece of a message in one record", bytes(RECORD_PAYLOAD_LIMIT)),
            ("message", format!("{}: 64 KiB and 1 KiB for the envelope", bytes(MESSAGE_LIMIT))),
            ("name", bytes(NAME_LIMIT)),
            ("answer to reset", bytes(ATR_LIMIT)),
            ("token, commitment, nonce, pairing secret", format!("{} exactly", bytes(TOKEN_LENGTH))),
            ("snapshot digest", format!("0 or {}", bytes(DIGEST_LENGTH))),
            ("snapshot", format!("{} and {OBJECTS_LIMIT} objects", bytes(SNAPSHOT_LIMIT))),
            ("page of a snapshot", bytes(PAGE_LIMIT)),
            ("records under one key", number(REKEY_RECORDS as usize)),
            ("age of a key, checked when sending", minutes(REKEY_INTERVAL)),
            ("host waits for the first `Info`", seconds(INFO_LIMIT)),
            (
                "phone keeps a link on which no handshake begins, since the link began or its owner last chose how to pair",
                seconds(WAIT_LIMIT),
            ),
            ("first handshake message to the first record, or to the digits", seconds(HANDSHAKE_LIMIT)),
            ("digits to both confirmations", seconds(DECISION_LIMIT)),
            ("both confirmations to `PairStored` of both", seconds(STORE_LIMIT)),
            ("`PairStored` of both to the host's `Close`", seconds(CLOSE_LIMIT)),
            ("QR code and any other offer", seconds(OFFER_LIFETIME)),
            ("tries", format!("{TRIES_LIMIT} in {}", minutes(TRIES_WINDOW))),
            ("a pair that only one side stored", minutes(UNCONFIRMED_PAIR_LIFETIME)),
            (
                "request without `Response` or `Pending`, ping without `Pong`; on GATT, also without a fragment or credit that goes on",
                seconds(REQUEST_LIMIT),
            ),
            ("`Pending`", format!("every {} ms", PENDING_INTERVAL.as_millis())),
            ("key references in `Permissions`", number(KEYS_LIMIT)),
            // The host's own and the card's own: tests in their crates compare them with the code.
            ("host cancels a `Transmit` after", "55 s".into()),
            ("host cancels a `PinEntry` that has had no answer", "1.5 s after its `time_limit_s`".into()),
            ("request that nobody cancels", "60 s".into()),
            ("question whether a key may be used", "50 s".into()),
            ("question whether a host gets the card", "60 s".into()),
            ("a refused use of a key is refused again without a question", "for 10 s".into()),
            ("entry of a PIN on the phone", "25 s, or less if the host says so".into()),
            ("denials before a host may not prompt", "2 in 1 min".into()),
            ("questions of a host that nobody answers", "6 in 1 min".into()),
            ("idle link is pinged", format!("after {}", seconds(IDLE_INTERVAL))),
            ("phone gives up a silent host", seconds(SILENCE_LIMIT)),
            ("link messages waiting to be sent when the peer still asks", number(QUEUE_LIMIT)),
            ("grace of a session without a link", seconds(GRACE_LIMIT)),
        ],
    );
}

#[test]
fn section_4() {
    assert_eq!(LINK_MESSAGE_LIMIT, LONGEST_MESSAGE);
    check(
        "### 4.4 Bounds",
        &[
            ("message before the channel is open", bytes(LONGEST_BEFORE_AUTHENTICATION)),
            ("message in an open channel", bytes(LONGEST_MESSAGE)),
            ("fragments kept ahead of the next one in order", number(WINDOW - 1)),
            ("message ids ahead of the one in progress", number(WINDOW - 1)),
            (
                "wait for the next fragment of a message, or for a credit that fragments wait for",
                seconds(NEXT_FRAGMENT),
            ),
            ("from the first fragment of a message to its last", seconds(WHOLE_MESSAGE)),
        ],
    );
    let sizes = [FragmentSize::DEFAULT, FragmentSize::SMALLEST, FragmentSize::LARGEST].map(FragmentSize::bytes);
    assert_eq!((sizes, WINDOW), ([244, 20, 509], 4), "sections 4.2 and 4.3");
}

#[test]
fn section_11() {
    check(
        "### 11.4 Limits",
        &[
            ("a host waits for a channel of L2CAP and the phone's first message on it", seconds(OPEN_LIMIT)),
            (
                "a host uses GATT alone with a phone at the radio address at which a channel of L2CAP went wrong",
                minutes(DOUBT),
            ),
            ("channels of L2CAP that a phone takes at once", number(CHANNELS_LIMIT)),
            ("bytes that wait to be sent on a channel of L2CAP; with more it is closed", number(WAITING_LIMIT)),
            // Of the radios' two ends: tests beside them compare these with the code.
            ("a phone keeps an instance for a host that read `Info` and does not subscribe", "5 s".into()),
            ("last fragments of a link that is over", "2 s".into()),
            ("a host waits for the connection and the discovery of services", "20 s".into()),
            ("a host waits for a read, a subscription, a write", "5 s".into()),
        ],
    );
    let channel = table("### 11.3 L2CAP channels");
    let mtu = channel.get("MTU, the longest SDU that a side takes").copied().unwrap_or_default();
    assert!(mtu.starts_with(&bytes(SDU_LIMIT.into())), "{mtu}");
}
