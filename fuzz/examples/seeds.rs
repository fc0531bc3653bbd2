//! Writes `seeds/`: small inputs that reach the middle of each target. `cargo run --example seeds`.

use std::fs;
use std::path::Path;

use pocketcard_ipc::control;
use pocketcard_ipc::driver::{PinEntry, PinOperation, PowerAction, Presence, Reply, Request, Role, Verdict};
use pocketcard_protocol::Timestamp;
use pocketcard_protocol::apdu::Command;
use pocketcard_protocol::messages::{CardState, Envelope, Open, Opened, Ping, Response, SecurityState, Transmit};
use prost::Message as _;

fn main() {
    fragment();
    stream();
    envelope();
    apdu();
    tlv();
    qr_text();
    driver_messages();
    control_messages();
    pin_entry();
    link();
    front();
    card();
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder).expect("a folder for the seeds");
    fs::write(folder.join(name), bytes).expect("a seed");
}

/// Bytes behind their length in one byte.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).expect("a short piece")], bytes].concat()
}

fn fragment() {
    let hostile = |fragments: &[&[u8]]| {
        let mut seed = vec![0, 0, 100];
        for fragment in fragments {
            seed.extend_from_slice(&[1, 0]);
            seed.extend_from_slice(&chunk(fragment));
        }
        seed
    };
    write("fragment", "whole", &hostile(&[&[3, 0, 0, 0, 0, 0, 0, 2, 9, 9], &[3, 1, 0, 0, 0, 0, 0, 1, 9]]));
    write("fragment", "two_early", &hostile(&[&[2, 0, 0, 2, 9], &[0, 0, 0, 1, 9], &[1, 0, 0, 0, 0, 0, 0, 3, 9]]));
    write("fragment", "twice", &hostile(&[&[1, 0, 0, 0, 0, 0, 0, 3, 9], &[1, 0, 0, 0, 0, 0, 0, 3, 9]]));
    write(
        "fragment",
        "mixed_up",
        &[1, 0, 20, 0, 100, 0, 2, 0, 1, 3, 0, 4, 3, 5, 1, 4, 2, 0, 0, 50, 2, 0, 244, 4, 7, 5, 0],
    );
}

fn stream() {
    write("stream", "two", &[0, 100, 2, 3, 7, 0, 0, 0, 2, 8, 9, 0, 0, 0, 1, 7]);
    write("stream", "cut", &[0, 100, 1, 0, 0, 0, 0, 9, 8, 9]);
    write("stream", "too_long", &[0, 1, 0, 0, 0, 0, 2, 8, 9]);
}

fn envelope() {
    let messages: [(&str, Envelope); 6] = [
        ("open", Open { resume_token: vec![7; 32], epoch: 3, software: "host 1\u{202E}".into() }.into()),
        (
            "opened",
            Opened {
                session: 1,
                token: vec![9; 32],
                resumed: true,
                last_request_id: 4,
                card_state: Some(CardState { present: true, atr: vec![0x3B], card_name: "a".into(), serial: 1 }),
                security_state: Some(SecurityState {
                    version: 2,
                    pin_verified: true,
                    pin_tries_left: 3,
                    epoch: 1,
                    snapshot_digest: vec![1; 32],
                }),
                software: "phone".into(),
            }
            .into(),
        ),
        ("transmit", Transmit { session: 1, request_id: 2, epoch: 3, command: vec![0, 0xA4, 4, 0] }.into()),
        (
            "response",
            Response {
                session: 1,
                request_id: 2,
                epoch: 3,
                response: vec![0x90, 0],
                security_version: 1,
                snapshot_digest: vec![1; 32],
            }
            .into(),
        ),
        ("ping", Ping { id: 7 }.into()),
        ("empty", Envelope { body: None }),
    ];
    for (name, message) in messages {
        write("envelope", name, &message.encode_to_vec());
    }
}

fn apdu() {
    let select = Command::new(0, 0xA4, 4, 0, &[0xA0, 0, 0, 3, 8], None).expect("an APDU").to_bytes();
    let get = |le| Command::new(0, 0xCB, 0x3F, 0xFF, &[0x5C, 1, 0x7E], le).expect("an APDU").to_bytes();
    let piece = |raw: &[u8], response: &[u8]| [&[0], &chunk(raw)[..], response].concat();
    let get_response: &[u8] = &[0, 0xC0, 0, 0, 0];
    write("apdu", "select", &piece(&select, &[1, 0, 0x90, 0]));
    let windows = [piece(&get(Some(8)), &[2, 0, 0x90, 0]), piece(get_response, &[]), piece(get_response, &[])];
    write("apdu", "windows", &windows.concat());
    let chain = [
        piece(&[0x10, 0x87, 7, 0x9A, 2, 1, 2, 0], &[]),
        piece(&[0x10, 0x87, 7, 0x9A, 1, 3], &[]),
        piece(&[0, 0x87, 7, 0x9A, 1, 4, 0], &[0, 4, 0x69, 0x82]),
    ];
    write("apdu", "chain", &chain.concat());
    write("apdu", "dropped_chain", &[&chain[0][..], &piece(&[0, 0x20, 0, 0x80], &[0, 0, 0x63, 0xC3])].concat());
    let long = [&[0xFE], &chunk(&[0x10, 0xDB, 0x3F, 0xFF])[..], &[0xFF, 0xF0]].concat();
    write("apdu", "too_long_chain", &[&long[..], &long].concat());
    write("apdu", "reset", &[&windows[0][..], &[0xFF], &windows[1]].concat());
    write("apdu", "extended", &piece(&[0, 0xCB, 0x3F, 0xFF, 0, 0, 1, 9, 0, 0], &[9, 0, 0x90, 0]));
}

fn tlv() {
    write("tlv", "nested", &[0x7C, 8, 0x82, 0, 0x81, 4, 1, 2, 3, 4]);
    write("tlv", "long_tags", &[0x5C, 3, 0x5F, 0xC1, 5, 0x7F, 0x49, 0x82, 0, 2, 0x86, 0, 0x5F, 0xC1, 2, 0x83, 0, 0, 0]);
    write("tlv", "cut", &[0x53, 0x81, 0x80, 1, 2, 3]);
}

fn qr_text() {
    use pocketcard_protocol::channel::StaticSecret;
    use pocketcard_protocol::pairing::{Attempts, Offer};
    use pocketcard_protocol::test_support::TestEntropy;

    let entropy = TestEntropy::new(1);
    let host = StaticSecret::generate(&entropy).expect("test entropy").public();
    let offer = Offer::new(&host, "desk", &entropy, &Attempts::new(), Timestamp::ZERO).expect("an offer");
    let text = offer.qr_text().expect("a code");
    write("qr_text", "good", &[b"\0", text.as_bytes()].concat());
    write("qr_text", "other", b"\0https://example.org/");
    write("qr_text", "changed", &[1, 0, 1, 4, b'd', b'e', b's', b'k', 20, b'7', 30, 0x85, 40, 0xA5]);
    write("qr_text", "spaced", &[1, 0, 1, 4, b'd', b'e', b's', b'k', 30, 0x85, 40, 0xA5]);
}

fn pin_entry() {
    write("pin_entry", "verify", &[2]);
    write("pin_entry", "change", &[3]);
    write("pin_entry", "unblock", &[7]);
    write("pin_entry", "put_data", &[2, 20, 0xDB, 21, 0x3F, 22, 0xFF]);
    write("pin_entry", "bcd", &[2, 2, 0x01]);
    write("pin_entry", "past_the_end", &[2, 2, 0xFA]);
    write("pin_entry", "offsets", &[3, 6, 0x10]);
    write("pin_entry", "cut", &[0, 30, 30, 2, 8, 0, 8, 4, 2, 0, 0, 0, 0, 0, 0, 0, 13, 0, 0, 0, 0, 32, 0, 128, 8]);
}

fn driver_messages() {
    let apdu: &[u8] = &[0, 0xA4, 4, 0];
    let requests = [
        ("hello", Request::hello(Role::Events, 1)),
        ("power", Request::Power { action: PowerAction::Reset, generation: 7 }),
        ("transmit", Request::Transmit { apdu }),
        ("pin_entry", Request::PinEntry(PinEntry::new(PinOperation::Change, 0x81, None).expect("a PIN entry"))),
        ("control", Request::Control { code: 0x4200_0D48, input: &[] }),
    ];
    let mut stream = vec![1, 2, 3, 40];
    let mut frame = Vec::new();
    for (name, request) in requests {
        request.encode(&mut frame).expect("a frame");
        write("driver_messages", name, &[&[0], &frame[4..]].concat());
        stream.extend_from_slice(&frame);
    }
    let replies = [
        ("welcome", Reply::Hello { version: pocketcard_ipc::VERSION, verdict: Verdict::Accepted, pin_pad: true }),
        ("response", Reply::Response { apdu: &[0x90, 0] }),
        ("presence", Reply::Presence(Presence { present: true, generation: 1, atr: &[0x3B, 0] })),
    ];
    for (name, reply) in replies {
        reply.encode(&mut frame).expect("a frame");
        write("driver_messages", name, &[&[0], &frame[4..]].concat());
        stream.extend_from_slice(&frame);
    }
    write("driver_messages", "stream", &stream);
    write("driver_messages", "device_name", b"\x02/run/pocketcard/driver.sock:4:dev");
}

fn control_messages() {
    use control::Request as R;
    let address = "unix:/run/phone.sock".parse().expect("an address");
    let requests = [
        R::Hello { version: pocketcard_ipc::VERSION, software: "pocketcard 1".into() },
        R::PairStart { connect: Some(address), method: control::PairMethod::Compare, slot: Some(1) },
        R::PairConfirm { agree: true },
        R::Rename { phone: "ab".into(), name: "Pixel \u{1F4F1}".into() },
    ];
    let mut all = vec![0, 2, 1, 200];
    for request in &requests {
        all.extend_from_slice(&control::encode(request).expect("a line"));
    }
    write("control_messages", "requests", &all);
    let replies = [
        control::Reply::Done {},
        control::Reply::PairDigits { digits: "042137".into(), phone_name: "Pixel".into() },
        control::Reply::Event(control::Event::CardPresent { slot: 0 }),
    ];
    let mut all = vec![1, 1, 90];
    for reply in &replies {
        all.extend_from_slice(&control::encode(reply).expect("a line"));
    }
    all.extend_from_slice(b"{\"reply\":\"event\",\"event\":\"from_the_future\"}\nnot json\n{\"reply\":\"done\"}\n");
    write("control_messages", "replies", &all);
    write("control_messages", "unix", b"\x02unix:/run/phone.sock");
    write("control_messages", "tcp", b"\x02tcp:[::1]:7816");
}

/// Operations of `src/link.rs`, shifted past the bit that chooses the side.
mod op {
    pub const SETTLE: u8 = 0;
    pub const ADVANCE: u8 = 1 << 1;
    pub const FATE: u8 = 2 << 1;
    pub const INJECT: u8 = 3 << 1;
    pub const CONFIRM: u8 = 4 << 1;
    pub const STORED: u8 = 6 << 1;
    pub const CLOSE: u8 = 7 << 1;
    pub const SEND: u8 = 12 << 1;
    pub const PHONE: u8 = 1;
}

fn link() {
    use op::*;
    let open: &[u8] = &[SEND, 0, 1, 0, SETTLE];
    let transmit: &[u8] = &[SEND, 1, 1, 1, 1, 0, SETTLE];
    let response: &[u8] = &[SEND | PHONE, 1, 1, 5, 2, 0, SETTLE];
    let connect: &[u8] = &[0, SETTLE];
    write("link", "connect", &[connect, open, transmit, response, &[ADVANCE, 255, CLOSE, SETTLE]].concat());
    write("link", "idle", &[connect, open, &[SEND | PHONE, 0, 1, 4, SETTLE], &[ADVANCE, 255].repeat(12)].concat());
    write("link", "two_records", &[connect, &[SEND, 1, 1, 1, 0xFF, 0xFF, SETTLE][..]].concat());
    write("link", "flipped_info", &[&[0, FATE, 3, 20, SETTLE], open].concat());
    write("link", "replayed_record", &[connect, &[FATE, 2, 0], open, transmit].concat());
    write("link", "reordered", &[connect, &[FATE, 5, 9], &open[..4], &transmit[..6], &[ADVANCE, 100]].concat());
    write("link", "injected", &[connect, open, &[INJECT | PHONE, 3, 2, 9, 9, INJECT, 2, 3, 1]].concat());
    let confirm: &[u8] = &[CONFIRM, CONFIRM | PHONE, SETTLE, STORED, STORED | PHONE, SETTLE];
    write("link", "pair_compare", &[&[2, SETTLE], confirm].concat());
    write("link", "pair_scanned", &[&[3, SETTLE], confirm].concat());
    write("link", "pair_flipped", &[&[2, FATE, 0, 0, FATE, 3, 40, SETTLE], confirm].concat());
}

fn front() {
    const UP: u8 = 0;
    const DOWN: u8 = 1;
    const POWER: u8 = 2;
    const TRANSMIT: u8 = 4;
    const ANSWER: u8 = 6;
    const OPENED: u8 = 7;
    let start: &[u8] = &[UP, OPENED, 1, 0, 0, 3, POWER, 0, 0];
    let command = |raw: &[u8]| [&[TRANSMIT], &chunk(raw)[..]].concat();
    let select = command(&[0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8]);
    let verify = command(b"\x00\x20\x00\x80\x08123456\xFF\xFF");
    let get_response = command(&[0, 0xC0, 0, 0, 0]);
    let reset: &[u8] = &[POWER, 2, 0];
    write("front", "exchange", &[start, &select, &[ANSWER, 0, 60, 0]].concat());
    write("front", "windows", &[start, &select, &[ANSWER, 2, 88, 0], &get_response, &get_response].concat());
    write("front", "reset_while_waiting", &[start, &verify, reset, &[ANSWER, 0, 0, 0], &select].concat());
    write("front", "lost_while_waiting", &[start, &verify, &[DOWN], start, &select, &[ANSWER, 0, 9, 0]].concat());
    let resumed: &[u8] = &[UP, OPENED, 1, 1, 1, 3];
    write("front", "resumed", &[start, &verify, &[DOWN], resumed, &[ANSWER, 0, 0, 0], &select].concat());
    write(
        "front",
        "reset_in_the_gap",
        &[start, &verify, &[DOWN], reset, &select, resumed, &[ANSWER, 0, 9, 0]].concat(),
    );
    write("front", "back_too_late", &[start, &verify, &[DOWN, UP, 10, 6, OPENED, 1, 1, 1, 3]].concat());
    write("front", "closed_while_waiting", &[start, &verify, &[12], start, &select, &[ANSWER, 0, 9, 0]].concat());
    write("front", "timeout", &[start, &verify, &[10, 60], &select].concat());
    write(
        "front",
        "chain",
        &[start, &command(&[0x10, 0x87, 7, 0x9A, 1, 1]), &command(&[0, 0x87, 7, 0x9A, 1, 2])].concat(),
    );
    write("front", "two_commands", &[start, &select, &select, &[ANSWER, 0, 9, 0, 3]].concat());
    write("front", "other_card", &[start, &[8, 0, 0, 9, POWER, 0, 0, 8, 0, 4, 0], &select].concat());
    write("front", "unasked_answer", &[start, &[8, 3, 1, 5, 0]].concat());
    const ENTER_PIN: u8 = 15;
    const CANCEL: u8 = 16;
    const UNSUPPORTED: u8 = 17;
    let enter: &[u8] = &[ENTER_PIN, 25, 0, 0x80];
    write("front", "pin_entry", &[start, enter, &[ANSWER, 0, 0, 0], reset, &select, &[ANSWER, 0, 9, 0]].concat());
    write("front", "pin_entry_resumed", &[start, enter, &[DOWN], resumed, &[ANSWER, 0, 0, 0], &select].concat());
    write("front", "pin_entry_too_late", &[start, enter, &[10, 60], &select].concat());
    write("front", "pin_entry_with_data", &[start, enter, &[ANSWER, 0, 9, 0]].concat());
    write("front", "pin_entry_unknown", &[start, enter, &[UNSUPPORTED], &select, &[ANSWER, 0, 9, 0]].concat());
    write("front", "cancelled", &[start, &[CANCEL], enter, &[CANCEL], &select, &[CANCEL], &select].concat());
    // The phone says which snapshot is its own (0 or 1), shows it page by page, and then another.
    const PAGE: u8 = 13;
    const OFFER: u8 = 14;
    let says = |snapshot: u8| vec![UP, OPENED, 1, 32, 0, 3, snapshot << 1, 3, POWER, 0, 0];
    let get_data = command(&[0, 0xCB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xC1, 2, 0]);
    let printed = command(&[0, 0xCB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xC1, 9, 0]);
    let status = command(&[0, 0x20, 0, 0x80]);
    let load: &[u8] = &[PAGE, 9, PAGE, 9];
    write("front", "snapshot", &[&says(0)[..], load, &select, &get_data, &printed, &status].concat());
    write("front", "long_snapshot", &[&says(1)[..], load, &get_data, &get_response, &get_data, &get_response].concat());
    write("front", "snapshot_changes", &[&says(0)[..], load, &get_data, &[8, 1, 2, 3], &get_data, load].concat());
    write("front", "snapshot_offered", &[&[OFFER, 0][..], &says(0), &get_data, &[OFFER, 9], &get_data].concat());
    write("front", "pin_pushed", &[&says(0)[..], load, &[8, 1, 16, 3], &status, reset, &status].concat());
    write("front", "wrong_page", &[&says(0)[..], &[PAGE, 2, 3, 1, 2, 3], &get_data, &[ANSWER, 0, 9, 0]].concat());
}

fn card() {
    const RESET: u8 = 0;
    const RECONNECT: u8 = 1 << 1;
    const LOCK: u8 = 2 << 1;
    const STORE_FAILS: u8 = 4 << 1;
    const RAW: u8 = 7 << 1;
    const KNOWN: u8 = 10 << 1;
    let known = |numbers: &[u8]| numbers.iter().flat_map(|number| [KNOWN, *number]).collect::<Vec<_>>();
    write("card", "login", &known(&[0, 2, 10, 11, 12, 13]));
    write("card", "always", &known(&[2, 11, 11, 2, 11, 10]));
    write("card", "wrong_pin", &known(&[3, 10, 3, 3, 2, 8, 2, 10]));
    write("card", "change_pin", &known(&[6, 10, 5, 2, 7, 12]));
    write("card", "chained_sign", &known(&[2, 14, 15, 14, 16]));
    write("card", "reset", &[known(&[2, 10]), vec![RESET], known(&[10, 4])].concat());
    write(
        "card",
        "other_host",
        &[known(&[2]), vec![KNOWN | 1, 10, KNOWN | 1, 2, KNOWN | 1, 10, RECONNECT, LOCK]].concat(),
    );
    write(
        "card",
        "store_fails",
        &[vec![STORE_FAILS, 1], known(&[3, 2, 10]), vec![STORE_FAILS, 0], known(&[2, 10])].concat(),
    );
    write("card", "raw", &[&[RAW], &chunk(&[0, 0xCB, 0x3F, 0xFF, 0, 0, 3, 0x5C, 1, 0x7E, 0, 0])[..]].concat());
    write("card", "objects", &known(&[16, 17, 18, 19, 20, 21, 22, 23, 24]));
    const WITNESS: u8 = 11 << 1;
    const CHALLENGE: u8 = 12 << 1;
    const PRETEND: u8 = 13 << 1;
    const ADVANCE: u8 = 3 << 1;
    let with_key = |parts: &[&[u8]]| [&[WITNESS], &parts.concat()[..]].concat();
    write("card", "administer_objects", &with_key(&[&known(&[25, 32, 27, 18, 2, 18, 28, 33, 29, 30, 31, 26, 32])]));
    write("card", "administer_keys", &with_key(&[&known(&[22, 2, 10, 34, 2, 10, 10, 35, 11, 36, 37, 12, 40, 13])]));
    write("card", "move_keys", &with_key(&[&known(&[38, 42, 2, 42, 22, 39, 41, 42, 38, 40])]));
    write(
        "card",
        "management_key",
        &with_key(&[&known(&[44, 25]), &[WITNESS | 1], &known(&[43, 25]), &[CHALLENGE, 0, WITNESS]]),
    );
    write("card", "management_asks", &with_key(&[&known(&[43]), &[0, STORE_FAILS, 2, WITNESS], &known(&[25])]));
    write("card", "retries", &with_key(&[&known(&[45, 2, 45, 10, 3, 3, 2])]));
    write("card", "pretend", &(0..16).flat_map(|how| [PRETEND, how]).chain(known(&[25])).collect::<Vec<_>>());
    write(
        "card",
        "made_new",
        &with_key(&[&known(&[3, 3, 3, 9, 9, 9, 25, 21, 25, 32]), &[CHALLENGE], &known(&[22, 2, 10, 25])]),
    );
    write(
        "card",
        "store_fails_for_administration",
        &with_key(&[&[STORE_FAILS, 1], &known(&[22, 25, 38, 44, 26]), &[STORE_FAILS, 0], &known(&[22, 25, 38, 44])]),
    );
    write("card", "idle", &with_key(&[&known(&[2]), &[ADVANCE, 255].repeat(4), &known(&[10, 25])]));
    // What is asked for, what happens to it, what is entered, and the new one twice.
    const PIN_ENTRY: u8 = 14 << 1;
    const OWNER_COMES: u8 = 15 << 1;
    let enter = |asked, what, current, new: u8| [PIN_ENTRY, asked, what, current, new << 4 | new];
    let (verify, change, change_puk, unblock) = (0, 1, 5, 2);
    write("card", "pin_entry", &[&enter(verify, 0, 4, 0)[..], &enter(verify, 0, 0, 0), &known(&[10, 11, 11])].concat());
    write(
        "card",
        "pin_entry_changes",
        &[enter(change, 8, 0, 1), enter(change_puk, 8, 2, 3), enter(unblock, 8, 3, 0), enter(verify, 0, 0, 0)].concat(),
    );
    write(
        "card",
        "pin_entry_ends",
        &(0..8).flat_map(|what| enter(verify, what, 5, 0)).chain([OWNER_COMES]).collect::<Vec<_>>(),
    );
    write(
        "card",
        "pin_entry_floods",
        &[enter(verify, 6, 0, 0).repeat(8), known(&[2]), vec![OWNER_COMES], enter(verify, 0, 0, 0).to_vec()].concat(),
    );
    write("card", "pin_entry_blocks", &[enter(verify, 0, 4, 0).repeat(4), enter(unblock, 8, 2, 0).to_vec()].concat());
    write("card", "other_applet", &with_key(&[&known(&[2, 46, 10, 25, 0, 10, 25])]));
}
