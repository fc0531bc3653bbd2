//! Random commands of two hosts against a model of what each may do.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Verify,
    VerifyWrong,
    Logout,
    Status,
    ChangePin,
    Unblock,
    ProveManagement,
    Put,
    Use(&'static str),
    SelectPiv,
    SelectForeign,
    SelectConfiguration,
    Reset,
    Reconnect,
    Lock,
    Idle,
    Raw(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Verify),
        1 => Just(Step::VerifyWrong),
        1 => Just(Step::Logout),
        1 => Just(Step::Status),
        1 => Just(Step::ChangePin),
        1 => Just(Step::Unblock),
        1 => Just(Step::ProveManagement),
        1 => Just(Step::Put),
        8 => prop_oneof![Just("9A"), Just("9C"), Just("9D"), Just("9E")].prop_map(Step::Use),
        1 => Just(Step::SelectPiv),
        1 => Just(Step::SelectForeign),
        1 => Just(Step::SelectConfiguration),
        1 => Just(Step::Reset),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Lock),
        1 => Just(Step::Idle),
        2 => raw().prop_map(Step::Raw),
    ]
}

/// Bytes that look more or less like a command, and cannot verify a PIN or change a secret.
fn raw() -> impl Strategy<Value = Vec<u8>> {
    let ins = prop_oneof![
        Just(0x20_u8),
        Just(0x24),
        Just(0x2C),
        Just(0x47),
        Just(0x87),
        Just(0xCB),
        Just(0xDB),
        Just(0xA4),
        Just(0xF7),
        Just(0xF8),
        Just(0xFD),
        Just(0xC0),
        Just(0x1D),
        any::<u8>(),
    ];
    let p1 = prop_oneof![Just(0_u8), Just(0x3F), Just(0xFF), Just(0x11), Just(0x0A), any::<u8>()];
    let p2 = prop_oneof![Just(0x9A_u8), Just(0x9B), Just(0x9C), Just(0xFF), Just(0x81), any::<u8>()];
    let template = prop_oneof![
        Just(bytes("7C028100")),
        Just(bytes("7C028000")),
        Just(bytes("5C035FC102")),
        Just(bytes("7C0682008102ABCD")),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    let cla = prop_oneof![8 => Just(0_u8), 1 => any::<u8>()];
    (cla, ins, p1, p2, template).prop_filter_map("logs out", |(cla, ins, p1, p2, data)| {
        // What the model follows has steps of its own.
        if (ins == 0x20 && p2 == 0x80) || (ins == 0xA4) || (ins == 0x87 && (0x82..=0x9E).contains(&p2) && p2 != 0x9B) {
            return None;
        }
        let mut command = vec![cla, ins, p1, p2];
        if !data.is_empty() {
            command.push(data.len() as u8);
            command.extend(data);
        }
        Some(command)
    })
}

/// What a host has proven, as the model has it.
#[derive(Clone, Copy, Default)]
struct Proven {
    pin: bool,
    fresh: bool,
    configuration: bool,
}

const PINS: [&str; 2] = ["313233343536FFFF", "36353433323130FF"];

struct Model {
    proven: [Proven; 2],
    pin: usize,
    pin_tries: u8,
    puk_tries: u8,
}

fn apply(card: &mut TestBox, hosts: &mut [TestHost; 2], model: &mut Model, who: usize, step: &Step) {
    let tries = model.pin_tries;
    let other = 1 - who;
    if model.proven[who].configuration
        && !matches!(step, Step::SelectPiv | Step::Reset | Step::Reconnect | Step::Lock | Step::Idle | Step::Raw(_))
    {
        return;
    }
    let right = |model: &mut Model, status: &str, opens: bool| {
        if tries == 0 {
            assert_eq!(status, "6983");
            return false;
        }
        assert_eq!(status, "9000");
        model.pin_tries = 3;
        if opens {
            model.proven[who] = Proven { pin: true, fresh: true, configuration: false };
        }
        true
    };
    match step {
        Step::Verify => {
            let status = send(card, &mut hosts[who], &format!("00200080 08 {}", PINS[model.pin]));
            right(model, &status, true);
        }
        Step::VerifyWrong => {
            let status = send(card, &mut hosts[who], "00200080 08 3939393939393939");
            model.pin_tries = tries.saturating_sub(1);
            if tries == 0 {
                assert_eq!(status, "6983");
            } else {
                assert_eq!(status, format!("63C{}", model.pin_tries));
                model.proven[who] = Proven::default();
                if model.pin_tries == 0 {
                    // Blocked for one is blocked for all.
                    model.proven[other].pin = false;
                    model.proven[other].fresh = false;
                }
            }
        }
        Step::Logout => {
            assert_eq!(send(card, &mut hosts[who], "0020FF80"), "9000");
            model.proven[who] = Proven::default();
        }
        Step::Status => {
            let expected = match (model.proven[who].pin, tries) {
                (true, _) => "9000".to_owned(),
                (false, 0) => "6983".to_owned(),
                (false, tries) => format!("63C{tries}"),
            };
            assert_eq!(send(card, &mut hosts[who], STATUS), expected);
        }
        Step::ChangePin => {
            let next = 1 - model.pin;
            let command = format!("00240080 10 {}{}", PINS[model.pin], PINS[next]);
            let status = send(card, &mut hosts[who], &command);
            if right(model, &status, true) {
                model.pin = next;
                model.proven[other].pin = false;
                model.proven[other].fresh = false;
            }
        }
        Step::Unblock => {
            let command = format!("002C0080 10 3132333435363738{}", PINS[model.pin]);
            let status = send(card, &mut hosts[who], &command);
            assert_eq!(status, if model.puk_tries == 0 { "6983" } else { "9000" });
            if status == "9000" {
                model.pin_tries = 3;
                model.puk_tries = 3;
                model.proven[other].pin = false;
                model.proven[other].fresh = false;
            }
        }
        Step::ProveManagement => prove_management(card, &mut hosts[who]),
        Step::Put => {
            send(card, &mut hosts[who], "00DB3FFF 09 5C035FFF00 5302AABB");
        }
        Step::Use(slot) => {
            let proven = &mut model.proven[who];
            let allowed = match *slot {
                "9C" => proven.fresh,
                "9E" => true,
                _ => proven.pin,
            };
            let status = sign(card, &mut hosts[who], slot);
            assert_eq!(status, if allowed { "9000" } else { "6982" }, "{slot}");
            if allowed {
                proven.fresh = false;
            }
        }
        Step::SelectPiv => {
            send(card, &mut hosts[who], "00A4040005A000000308");
            model.proven[who].configuration = false;
        }
        Step::SelectForeign => assert_eq!(send(card, &mut hosts[who], "00A4040006D27600012401"), "6A82"),
        Step::SelectConfiguration => {
            send(card, &mut hosts[who], "00A4040008A000000527471117");
            model.proven[who] = Proven { configuration: true, ..Proven::default() };
        }
        Step::Reset => {
            hosts[who].reset(card);
            model.proven[who] = Proven::default();
        }
        Step::Reconnect => {
            hosts[who].disconnect(card);
            hosts[who] = card.host(who as u8 + 1);
            model.proven[who] = Proven::default();
        }
        Step::Lock => {
            card.handle(crate::card::Input::LockCard);
            card.handle(crate::card::Input::UnlockCard);
            model.proven = [Proven::default(); 2];
        }
        Step::Idle => {
            card.advance(std::time::Duration::from_secs(16 * 60));
            for proven in &mut model.proven {
                *proven = Proven { configuration: proven.configuration, ..Proven::default() };
            }
        }
        Step::Raw(command) => {
            hosts[who].raw(card, command);
            // A raw one may have been a wrong PUK; nothing else of what the model follows is among them.
            let puk = text(&hosts[who].transmit(card, &bytes("00F70081")));
            if let Some(left) = puk.strip_prefix("0101FF0501").and_then(|rest| rest.get(8..10)) {
                let left = u8::from_str_radix(left, 16).unwrap();
                if left < model.puk_tries {
                    model.puk_tries = left;
                    if command.get(1) == Some(&0x2C) {
                        model.proven[who].pin = false;
                        model.proven[who].fresh = false;
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// No PIN-protected key is used without a VERIFY after the last reset, and none is refused with one.
    #[test]
    fn a_key_is_used_exactly_when_its_pin_was_verified(steps in prop::collection::vec((0..2_usize, step()), 1..60)) {
        let (mut card, first) = card_with_keys();
        let mut hosts = [first, card.host(2)];
        let mut model = Model { proven: [Proven::default(); 2], pin: 0, pin_tries: 3, puk_tries: 3 };
        for (who, step) in &steps {
            apply(&mut card, &mut hosts, &mut model, *who, step);
            prop_assert!(card.out.closed.iter().all(|(_, reason)| *reason == pocketcard_protocol::messages::CloseReason::Replaced));
        }
    }

    /// Any bytes get an answer: at least a status word, and never an end of the link.
    #[test]
    fn any_bytes_are_answered(commands in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20)) {
        let (mut card, mut host) = card_with_keys();
        for command in &commands {
            let answer = host.transmit(&mut card, command);
            prop_assert!(answer.len() >= 2);
            prop_assert!(card.out.closed.is_empty());
        }
    }
}
