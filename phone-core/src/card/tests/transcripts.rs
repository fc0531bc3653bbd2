//! What real programs send to a card with P-256 keys and certificates in the four slots: OpenSC 0.23.0, ykman 5.9.2 and
//! yubico-piv-tool 2.2.0, recorded through pcscd while they succeeded. An answer that changes here changes what they see.
//!
//! A line is a command and the status word of its answer, or an object that has to be there with the length of its content.

use super::*;

#[track_caller]
fn replay(recording: &str) {
    let (mut card, mut host) = card_with_keys();
    for line in recording.lines() {
        if let Some(object) = line.strip_prefix("object ") {
            let (tag, length) = object.split_once(' ').unwrap();
            let length: u16 = length.parse().unwrap();
            let mut data = bytes(&format!("5C03{tag}5382{length:04X}"));
            data.resize(data.len() + usize::from(length), 0x30);
            let put = [bytes("00DB3FFF00"), (data.len() as u16).to_be_bytes().to_vec(), data].concat();
            assert_eq!(text(&card.local(&put)), "9000");
            continue;
        }
        let (command, status) = line.split_once(' ').unwrap();
        let answer = send(&mut card, &mut host, command);
        assert!(answer.ends_with(status), "{command} was answered {answer}, not ..{status}");
    }
}

/// Other drivers' applications first, then the discovery object without any SELECT of PIV.
#[test]
fn opensc_signs_with_9a() {
    replay(include_str!("recordings/opensc-sign.txt"));
}

/// With a second VERIFY before the signature.
#[test]
fn opensc_signs_with_9c() {
    replay(include_str!("recordings/opensc-sign-9c.txt"));
}

#[test]
fn opensc_asks_for_random_numbers() {
    replay(include_str!("recordings/opensc-random.txt"));
}

/// The configuration applet, PIV by its provider alone, then metadata of everything.
#[test]
fn ykman_shows_the_card() {
    replay(include_str!("recordings/ykman-info.txt"));
}

/// A SELECT without Le, which must bring its answer with 9000.
#[test]
fn yubico_piv_tool_shows_the_card() {
    replay(include_str!("recordings/yubico-piv-tool-status.txt"));
}
