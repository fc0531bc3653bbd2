//! Every PIN policy with every touch policy and every end of the question: one table.

use std::time::Duration;

use super::*;
use crate::card::piv::{PinPolicy, TouchPolicy};
use crate::card::prompts::REFUSAL_LASTS;
use crate::traits::OwnerDecision;

const PIN_POLICIES: [PinPolicy; 5] =
    [PinPolicy::Never, PinPolicy::Once, PinPolicy::Always, PinPolicy::MatchOnce, PinPolicy::MatchAlways];

/// What happens while the key is to be used: while the owner is asked, or while the key store works where nobody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Approved,
    Denied,
    TimedOut,
    /// The link is lost, the owner agrees, the host comes back within the grace.
    LinkBack,
    /// The link is lost and the host does not come back in time.
    LinkGone,
    Reset,
}

/// What another use of the same key meets afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The key is used, nobody is asked.
    Runs,
    /// The owner is asked.
    Asks,
    /// `69 82`: first comes the PIN, or a match.
    Proof,
}

/// Answer to the command, questions to the owner, and what the next use meets for each of [`PIN_POLICIES`].
type Row = (TouchPolicy, End, &'static str, usize, [Next; 5]);

const NO_ANSWER: &str = "";

#[rustfmt::skip]
const TABLE: [Row; 18] = {
    use End::*;
    use Next::*;
    use TouchPolicy::*;
    [
        //  touch   end       answer     asked  never once  always match once, always
        (Never,  Approved, "9000",    0, [Runs, Runs,  Proof, Runs,  Proof]),
        (Never,  Denied,   "9000",    0, [Runs, Runs,  Proof, Runs,  Proof]),
        (Never,  TimedOut, "6F00",    0, [Runs, Runs,  Proof, Runs,  Proof]),
        (Never,  LinkBack, "9000",    0, [Runs, Runs,  Proof, Runs,  Proof]),
        (Never,  LinkGone, NO_ANSWER, 0, [Runs, Proof, Proof, Proof, Proof]),
        (Never,  Reset,    "6F00",    0, [Runs, Proof, Proof, Proof, Proof]),
        (Always, Approved, "9000",    1, [Asks, Asks,  Proof, Asks,  Proof]),
        (Always, Denied,   "6982",    1, [Asks, Asks,  Proof, Asks,  Proof]),
        (Always, TimedOut, "6985",    1, [Asks, Asks,  Proof, Asks,  Proof]),
        (Always, LinkBack, "9000",    1, [Asks, Asks,  Proof, Asks,  Proof]),
        (Always, LinkGone, NO_ANSWER, 1, [Asks, Proof, Proof, Proof, Proof]),
        (Always, Reset,    "6F00",    1, [Asks, Proof, Proof, Proof, Proof]),
        (Cached, Approved, "9000",    1, [Runs, Runs,  Proof, Runs,  Proof]),
        (Cached, Denied,   "6982",    1, [Asks, Asks,  Proof, Asks,  Proof]),
        (Cached, TimedOut, "6985",    1, [Asks, Asks,  Proof, Asks,  Proof]),
        (Cached, LinkBack, "9000",    1, [Runs, Runs,  Proof, Runs,  Proof]),
        (Cached, LinkGone, NO_ANSWER, 1, [Asks, Proof, Proof, Proof, Proof]),
        (Cached, Reset,    "6F00",    1, [Asks, Proof, Proof, Proof, Proof]),
    ]
};

const SIGN: &str = "0087119A 08 7C0682008102ABCD 00";

/// An owner's card with one key of these policies, and a host that has shown what the key asks for.
fn card(pin: PinPolicy, touch: TouchPolicy) -> (TestBox, TestHost) {
    let config = CardConfig { owner_verification: true, ..CardConfig::default() };
    let mut card = TestBox::with(config, TestStore::new());
    card.handle(Input::Enrol { request: 1, pin: (*b"123456\xFF\xFF").into(), puk: (*b"12345678").into() });
    let command = format!("0047009A 0B AC09800111AA01{:02X}AB01{:02X} 00", pin.identifier(), touch.identifier());
    assert!(text(&card.local(&bytes(&command))).ends_with("9000"));
    let mut host = card.host(1);
    card.hold = true;
    assert_eq!(sign_status(&mut card, &mut host), if pin == PinPolicy::Never { NO_ANSWER } else { "6982" });
    host.reset(&mut card);
    card.handle(Input::OwnerPresent);
    match pin {
        PinPolicy::Never => {}
        PinPolicy::Once | PinPolicy::Always => assert_eq!(send(&mut card, &mut host, VERIFY), "9000"),
        PinPolicy::MatchOnce | PinPolicy::MatchAlways => {
            assert_eq!(send(&mut card, &mut host, "00200096 02 0300"), "");
            assert!(card.complete(EffectResult::Owner(OwnerDecision::Matched)));
            assert_eq!(answer(&mut card, &host), "9000");
        }
    }
    card.out.sent.clear();
    card.out.cancelled.clear();
    (card, host)
}

fn sign_status(card: &mut TestBox, host: &mut TestHost) -> String {
    status(&send(card, host, SIGN))
}

fn status(answer: &str) -> String {
    answer[answer.len().saturating_sub(4)..].to_owned()
}

/// Does what is held: the owner agrees, the key store works. Gives how often the owner was asked.
fn agree(card: &mut TestBox) -> usize {
    let mut asked = 0;
    while let Some((_, effect)) = card.out.held.first() {
        asked += usize::from(matches!(effect, Effect::Approve(_)));
        card.release();
    }
    asked
}

#[test]
fn every_cell() {
    let mut cells = 0;
    for (touch, end, expected, prompts, next) in TABLE {
        for (pin, next) in PIN_POLICIES.into_iter().zip(next) {
            let cell = format!("{pin:?}, {touch:?}, {end:?}");
            let (mut card, mut host) = card(pin, touch);
            assert_eq!(sign_status(&mut card, &mut host), "", "{cell}");
            assert_eq!(card.out.held.len(), 1, "{cell}");
            let asks = matches!(card.out.held[0].1, Effect::Approve(_));
            let mut asked = usize::from(asks);
            let operation = card.out.held[0].0;
            match end {
                End::Approved => asked = agree(&mut card),
                End::Denied if asks => decide(&mut card, ApprovalDecision::Denied),
                End::Denied => asked = agree(&mut card),
                End::TimedOut => card.advance(Duration::from_secs(if asks { 50 } else { 60 })),
                End::LinkBack => {
                    host.disconnect(&mut card);
                    asked = agree(&mut card);
                    host.come_back(&mut card);
                    assert!(host.resumed, "{cell}");
                    host.send(&mut card, host.last_request, &bytes(SIGN));
                }
                End::LinkGone => {
                    host.disconnect(&mut card);
                    card.advance(Duration::from_secs(5));
                }
                End::Reset => host.reset(&mut card),
            }
            assert_eq!(asked, prompts, "{cell}");
            let answered = host.answer(&mut card).map(|answer| status(&text(&answer))).unwrap_or_default();
            assert_eq!(answered, expected, "{cell}");
            let gone = matches!(end, End::TimedOut | End::LinkGone | End::Reset);
            assert_eq!(card.out.cancelled, if gone { vec![operation] } else { vec![] }, "{cell}");
            // An answer that comes now is late and used for nothing.
            assert!(card.out.held.is_empty(), "{cell}");
            card.handle(Input::Completed { operation, result: EffectResult::Approval(ApprovalDecision::Approved) });
            assert!(card.out.held.is_empty(), "{cell}");
            if end == End::LinkGone {
                host.come_back(&mut card);
                assert!(!host.resumed, "{cell}");
            }
            card.advance(REFUSAL_LASTS);
            let met = match (sign_status(&mut card, &mut host).as_str(), card.out.held.first()) {
                ("", Some((_, Effect::Sign { .. }))) => Next::Runs,
                ("", Some((_, Effect::Approve(_)))) => Next::Asks,
                ("6982", None) => Next::Proof,
                other => panic!("{cell}: {other:?}"),
            };
            assert_eq!(met, next, "{cell}");
            cells += 1;
        }
    }
    assert_eq!(cells, 3 * 6 * 5);
}
