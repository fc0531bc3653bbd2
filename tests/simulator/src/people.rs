//! The people who pair: they scan, compare digits, and say yes or no on both sides.

use std::time::Duration;

use pocketcard_phone::runtime::PhoneEvent;

use crate::world::{SlotNumber, World};

/// How long people wait for digits and for the end of a pairing: as long as an offer lives.
const PAIRING_LIMIT: Duration = pocketcard_protocol::pairing::OFFER_LIFETIME;

/// For what is still on the air when the host is done.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What the people do with the digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They compare the two screens and say yes on both if the digits are equal, else no on both.
    Compare,
    /// They look, and decide later: [`World::decide`].
    Look,
}

/// What became of a pairing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairingResult {
    /// The digits on the host's screen.
    pub host_digits: Option<String>,
    /// The digits on the phone's screen.
    pub phone_digits: Option<String>,
    /// The host has stored the pair and knows that the phone has.
    pub host_paired: bool,
    /// The phone has stored the pair and knows that the host has.
    pub phone_paired: bool,
}

impl World {
    /// Pairs the two of a slot by QR code.
    ///
    /// # Panics
    /// If that fails.
    pub fn pair(&mut self, slot: SlotNumber) {
        let result = self.try_pair(slot, true, Decision::Compare);
        assert!(result.host_paired && result.phone_paired, "{result:?}");
    }

    /// The owner of both pairs the two of a slot: the code is scanned (or no `camera` is used), the two connect, and the
    /// people decide.
    ///
    /// # Panics
    /// If the host makes no offer, or the phone does not take it.
    pub fn try_pair(&mut self, slot: SlotNumber, camera: bool, decision: Decision) -> PairingResult {
        let text = self.offer(slot, camera).expect("the first offers are free");
        let _ = (self.take_closed(slot), self.phone_of(slot).events());
        let phone = self.phone_of(slot);
        let ready = if camera {
            phone.ask(|phone| Box::pin(async move { phone.scan(&text).await.is_ok() }))
        } else {
            phone.ask(|phone| Box::pin(async move { phone.compare().await.is_ok() }))
        };
        assert_eq!(ready, Some(true), "the phone is ready to pair");
        self.connect(slot);
        let mut result = PairingResult::default();
        let mut decided = false;
        let look = decision == Decision::Look;
        self.run_until(PAIRING_LIMIT, |world| {
            world.look(slot, &mut result);
            if !decided && result.host_digits.is_some() && result.phone_digits.is_some() {
                if look {
                    return true;
                }
                decided = true;
                let agree = result.host_digits == result.phone_digits;
                world.decide(slot, agree, agree);
            }
            !world.is_connected(slot) && world.has_ended(slot)
        });
        // The phone hears last what the host said last.
        self.run(LAST_WORDS);
        self.look(slot, &mut result);
        result
    }

    /// The people say yes or no, at the host and on the phone.
    pub fn decide(&mut self, slot: SlotNumber, on_host: bool, on_phone: bool) {
        self.confirm_on_host(slot, on_host);
        // There may be nothing to confirm on the phone any more.
        self.phone_of(slot).ask(|phone| Box::pin(async move { phone.confirm_pairing(on_phone).await.is_ok() }));
    }

    /// What the two screens show.
    fn look(&mut self, slot: SlotNumber, result: &mut PairingResult) {
        let view = self.pairing_view(slot);
        result.host_digits.clone_from(&view.digits);
        result.host_paired = view.done;
        for event in self.phone_of(slot).events() {
            match event {
                PhoneEvent::PairingDigits { digits, .. } => result.phone_digits = Some(digits.to_string()),
                PhoneEvent::Paired { .. } => result.phone_paired = true,
                _ => {}
            }
        }
    }

    /// Whether the host's link of a pairing has ended.
    fn has_ended(&mut self, slot: SlotNumber) -> bool {
        !self.take_closed(slot).is_empty()
    }
}
