//! PINs that the owner enters on the phone, and an owner who has had enough.

use pocketcard_phone::card::{Effect, EffectResult, Input as CardInput};
use pocketcard_phone::traits::{EnteredPin, NewPin, PinAnswer};
use pocketcard_protocol::apdu::{Command, Response, StatusWord};
use pocketcard_protocol::messages::PinOperation;

use super::World;
use crate::Input;

const SECRETS: [&str; 8] =
    ["123456", "654321", "12345678", "87654321", "999999", "12345", "123456789", "\u{FF11}\u{FF12}\u{FF13}456"];

impl World {
    /// A host asks for an entry, and something happens to it.
    pub(super) fn pin_entry(&mut self, who: usize, input: &mut Input<'_>) {
        let (asked, what, first, second) = (input.byte(), input.byte(), input.byte(), input.byte());
        let operation = [PinOperation::Verify, PinOperation::Change, PinOperation::Unblock, PinOperation::Unspecified];
        let operation = operation[usize::from(asked & 3)];
        let reference = [0x80, 0x81, 0x00, u32::from(asked)][usize::from(asked >> 2 & 3)];
        self.programs[who].chaining.reset();
        let before = self.tries();
        let host = &mut self.programs[who].host;
        host.last_request += 1;
        host.send_pin_entry(&mut self.card, host.last_request, operation, reference, u32::from(asked >> 4));
        assert!(self.card.out.held.len() <= 1, "one prompt at a time");
        let prompted = self.card.out.held.first().map(|(id, effect)| {
            assert!(matches!(effect, Effect::EnterPin(_)), "{effect:?}");
            *id
        });
        if let Some(id) = prompted {
            let secret = |byte: u8| SECRETS[usize::from(byte & 7)].to_owned().into();
            let new = (what & 8 != 0).then(|| NewPin { value: secret(second), repeated: secret(second >> 4) });
            let entered = PinAnswer::Entered(EnteredPin { current: secret(first), new });
            let late = match what & 7 {
                0..=3 => {
                    self.card.complete(EffectResult::Pin(entered));
                    None
                }
                4 => {
                    self.asked_in_vain[who] = true;
                    self.card.complete(EffectResult::Pin(PinAnswer::Cancelled));
                    None
                }
                5 => {
                    self.asked_in_vain[who] = true;
                    self.card.complete(EffectResult::Pin(PinAnswer::Unanswered));
                    None
                }
                6 => {
                    self.asked_in_vain[who] = true;
                    self.programs[who].host.cancel(&mut self.card);
                    Some(entered)
                }
                _ => {
                    self.asked_in_vain[who] = true;
                    self.card.advance(std::time::Duration::from_secs(26));
                    Some(entered)
                }
            };
            if let Some(entered) = late {
                self.card.out.held.clear();
                self.card.handle(CardInput::Completed { operation: id, result: EffectResult::Pin(entered) });
            }
        }
        let answer = self.programs[who].host.answer(&mut self.card).expect("an answer");
        let response = Response::parse(&answer).expect("a whole response");
        assert!(response.data().is_empty());
        let compared = matches!(response.status(), StatusWord::Success | StatusWord::RemainingTries(_))
            || matches!(response.status(), StatusWord::WrongData | StatusWord::MemoryFailure);
        assert!(compared || self.tries() == before, "{:?} has cost a try", response.status());
        assert!(prompted.is_some() || !compared, "a secret that nobody entered was compared");
        let ins = match operation {
            PinOperation::Verify => 0x20,
            PinOperation::Change => 0x24,
            _ => 0x2C,
        };
        if response.status().is_success() {
            *self.entries.entry(ins).or_default() += 1;
        }
        // From here on it is as if the host had sent the command.
        let p2 = u8::try_from(reference).expect("one byte");
        let command = [&[0, ins, 0, p2, 16][..], &[0; 16]].concat();
        self.learn(who, &Command::parse(&command).expect("a command"), &response);
        self.tries_come_first();
    }

    /// The owner opens the app: hosts that were held may ask again.
    pub(super) fn owner_comes(&mut self) {
        self.card.handle(CardInput::OwnerPresent);
        self.asked_in_vain = [false; 2];
    }

    fn tries(&mut self) -> [Vec<u8>; 2] {
        [0x80, 0x81].map(|reference| self.card.local(&[0, 0xF7, 0, reference, 0]))
    }
}
