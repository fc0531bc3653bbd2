//! A host that may use keys and nothing else, with everything it can send, and an owner who never agrees.

use std::time::Duration;

use pocketcard_protocol::messages::PinOperation;
use proptest::prelude::*;

use super::*;
use crate::card::Deed;
use crate::card::piv::Slot;
use crate::traits::{OwnerDecision, StateStore as _};

/// The host knows the management key, but not the PUK. It has the PIN verified and never changed: whoever types the old PIN and
/// a new one at a computer wants it changed.
#[derive(Clone, Debug)]
enum Step {
    Send(&'static str),
    Raw(Vec<u8>),
    /// Proves the management key by a challenge, with the right response.
    Prove,
    EnterPin(u8, u32, u32),
    /// The owner decides about the oldest question, which is never yes.
    Decide(bool),
    Cancel,
    Reset,
    LinkLost(u16),
    NewSession,
    Wait(u16),
    OwnerPresent,
}

const USES: [&str; 3] =
    ["0087119A 08 7C0682008102ABCD 00", "0087119C 08 7C0682008102ABCD 00", "0087119E 08 7C0682008102ABCD 00"];

const COMMANDS: [&str; 28] = [
    "00200080 08 323436383130FFFF",
    "00200080 08 363534333231FFFF",
    "00200080 08 0000000000000000",
    "00200080",
    "0020FF80",
    "00200081 08 3132333435363738",
    "00200096 02 0300",
    "00200096 02 0200",
    "00200096 12 0110 00000000000000000000000000000000",
    "00240080 10 363534333231FFFF 363534333231FFFF",
    "00240081 10 3030303030303030 3030303030303030",
    "002C0080 10 3030303030303030 363534333231FFFF",
    "002C0080 10 3030303030303030 0000000000000000",
    "00FA0303",
    "00FA0101",
    "00FA0000",
    "00FB0000",
    "00FF FFFF 1B 0A9B18 0807060504030201 0807060504030201 0807060504030201",
    "00DB3FFF 09 5C035FC105 5302 0102",
    "00DB3FFF 07 5C035FC102 5300",
    "00DB3FFF 02 7E00",
    "0047009A 08 AC06800111AB0101 00",
    "0047009E 05 AC03800111 00",
    "00F69A9E",
    "00F6FF9A",
    "00F6829E",
    "00870A9B 04 7C028000 00",
    "00A4040008 A000000527471117",
];

fn step() -> impl Strategy<Value = Step> {
    let ins = prop_oneof![
        prop::sample::select(vec![0x20_u8, 0x24, 0x2C, 0x47, 0x87, 0xDB, 0xF6, 0xFA, 0xFB, 0xFE, 0xFF]),
        any::<u8>()
    ];
    let reference =
        prop_oneof![prop::sample::select(vec![0x80_u8, 0x81, 0x96, 0x9A, 0x9B, 0x9C, 0x9E, 0xFF, 0x00]), any::<u8>()];
    let raw = (ins, reference.clone(), reference, prop::collection::vec(any::<u8>(), 0..20)).prop_map(
        |(ins, p1, p2, data)| {
            let mut command = vec![0, ins, p1, p2];
            if !data.is_empty() {
                command.push(data.len() as u8);
                command.extend(data);
            }
            command
        },
    );
    prop_oneof![
        4 => Just(Step::Send(COMMANDS[0])),
        6 => prop::sample::select(&USES[..]).prop_map(Step::Send),
        12 => prop::sample::select(&COMMANDS[..]).prop_map(Step::Send),
        3 => raw.prop_map(Step::Raw),
        3 => Just(Step::Prove),
        4 => (0_u8..4, prop_oneof![Just(0x80_u32), Just(0x81), 0..256_u32], 0..40_u32)
            .prop_map(|(operation, reference, limit)| Step::EnterPin(operation, reference, limit)),
        4 => any::<bool>().prop_map(Step::Decide),
        2 => Just(Step::Cancel),
        2 => Just(Step::Reset),
        2 => (0_u16..8000).prop_map(Step::LinkLost),
        1 => Just(Step::NewSession),
        2 => (0_u16..60_000).prop_map(Step::Wait),
        1 => Just(Step::OwnerPresent),
    ]
}

fn operation(number: u8) -> PinOperation {
    PinOperation::try_from(i32::from(number)).unwrap()
}

/// Ends the oldest question without the owner's agreement. Work of the key store is done.
fn refuse(card: &mut TestBox, says_so: bool) {
    let result = match card.out.held.first() {
        None => return,
        Some((_, Effect::Approve(_))) if says_so => EffectResult::Approval(ApprovalDecision::Denied),
        Some((_, Effect::Approve(_))) => EffectResult::Approval(ApprovalDecision::Unanswered),
        Some((_, Effect::EnterPin(_))) if says_so => EffectResult::Pin(PinAnswer::Cancelled),
        Some((_, Effect::EnterPin(_))) => EffectResult::Pin(PinAnswer::Unanswered),
        Some((_, Effect::VerifyOwner(_))) if says_so => EffectResult::Owner(OwnerDecision::Cancelled),
        Some((_, Effect::VerifyOwner(_))) => EffectResult::Owner(OwnerDecision::NotMatched),
        Some((_, Effect::Sign { .. } | Effect::Agree { .. } | Effect::Decrypt { .. })) => {
            card.release();
            return;
        }
        Some((_, effect)) => panic!("{effect:?}"),
    };
    card.complete(result);
}

fn apply(card: &mut TestBox, host: &mut TestHost, step: &Step) {
    match step {
        // While a request waits only its end may follow.
        Step::Send(_) | Step::Raw(_) | Step::Prove | Step::EnterPin(..) if !card.out.held.is_empty() => {}
        Step::Send(command) => drop(send(card, host, command)),
        Step::Raw(command) => drop(host.raw(card, command)),
        Step::Prove => {
            let answer = send(card, host, "00870A9B 04 7C028100 00");
            if let Some(challenge) = answer.strip_prefix("7C128110").and_then(|rest| rest.strip_suffix("9000")) {
                let response = text(&aes192(&bytes(challenge)));
                send(card, host, &format!("00870A9B 14 7C128210{response}"));
            }
        }
        Step::EnterPin(number, reference, limit) => {
            host.last_request += 1;
            host.send_pin_entry(card, host.last_request, operation(*number), *reference, *limit);
        }
        Step::Decide(says_so) => refuse(card, *says_so),
        Step::Cancel => host.cancel(card),
        Step::Reset => host.reset(card),
        Step::LinkLost(ms) => {
            host.disconnect(card);
            card.advance(Duration::from_millis(u64::from(*ms)));
            host.come_back(card);
        }
        Step::NewSession => {
            host.token = Vec::new();
            host.come_back(card);
        }
        Step::Wait(ms) => card.advance(Duration::from_millis(u64::from(*ms))),
        Step::OwnerPresent => card.handle(Input::OwnerPresent),
    }
}

/// Everything durable, but for the tries that are left of PIN and PUK.
fn state(card: &TestBox) -> Vec<(String, Vec<u8>)> {
    let entries = card.store.load().unwrap().into_iter().map(|(name, value)| (name, value.to_vec()));
    entries
        .map(|(name, mut value)| {
            if matches!(name.as_str(), "piv/pin" | "piv/puk") {
                assert_ne!(value[3], 0, "{name} is blocked");
                value[3] = 0;
            }
            (name, value)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn administers_nothing_blocks_nothing_and_resets_nothing(
        typed_pin in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let config = CardConfig { owner_verification: true, ..CardConfig::default() };
        let mut card = TestBox::with(config, TestStore::new());
        card.handle(Input::Enrol { request: 1, pin: (*b"246810\xFF\xFF").into(), puk: (*b"97531975").into() });
        for (slot, policies) in [("9A", ""), ("9C", ""), ("9E", "AA0101AB0101")] {
            let length = 3 + policies.len() / 2;
            let generate = format!("004700{slot} {:02X} AC{length:02X}800111{policies} 00", length + 2);
            prop_assert!(text(&card.local(&bytes(&generate))).ends_with("9000"));
        }
        // The management key that every tool knows.
        let set = "00FFFFFF 1B 0A9B18 010203040506070801020304050607080102030405060708";
        prop_assert_eq!(text(&card.local(&bytes(set))), "9000");
        card.permit(1, Permissions { typed_pin, ..Permissions::new_host() });
        let mut host = card.host(1);
        card.hold = true;
        let (before, keys) = (state(&card), card.keys.handles());
        for step in &steps {
            apply(&mut card, &mut host, step);
            prop_assert!(card.out.held.len() <= 1, "one prompt at a time");
            prop_assert_eq!(&state(&card), &before, "{:?}", step);
            prop_assert_eq!(&card.keys.handles(), &keys);
        }
        while !card.out.held.is_empty() {
            refuse(&mut card, true);
        }
        // The owner finds everything as it was.
        card.hold = false;
        let unlocked = [
            ("00200080 08 323436383130FFFF", "9000"),
            ("00240081 10 3937353331393735 3937353331393735", "9000"),
        ];
        for (command, expected) in unlocked {
            prop_assert_eq!(text(&card.local(&bytes(command))), expected);
        }
        // Of the keys it used the one that asks nobody.
        let used = card.out.events.iter().filter_map(|event| match event {
            CardEvent::Command { command, status, .. } if status.is_success() => command.deed.and_then(Deed::used_key),
            _ => None,
        });
        prop_assert!(used.into_iter().all(|slot| slot == Slot::CardAuthentication));
    }
}
