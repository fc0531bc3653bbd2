//! What the tests show.

use pocketcard_ipc::control::{DriverState, LinkState, Phone, PinPlace, SlotStatus, Status};

/// A connected phone in slot 0.
pub(crate) fn phone() -> Phone {
    Phone {
        id: "00112233445566778899aabbccddeeff".to_owned(),
        name: "Pixel".to_owned(),
        slot: 0,
        address: None,
        link: LinkState::Connected {},
        transport: None,
        software: None,
        card_name: None,
        permissions: None,
    }
}

/// Slot 0 without a phone.
pub(crate) fn slot() -> SlotStatus {
    SlotStatus {
        slot: 0,
        driver: DriverState::Waiting,
        card_present: false,
        powered: false,
        pin_verified: false,
        pin_tries_left: None,
        snapshot_age_s: None,
        pin_entry: PinPlace::Keyboard,
        waiting: None,
        operation: None,
        last_refusal: None,
        phone: None,
    }
}

/// A daemon without slots.
pub(crate) fn status() -> Status {
    Status {
        software: String::new(),
        host_id: String::new(),
        host_name: String::new(),
        dev: false,
        pairing: false,
        bluetooth: None,
        slots: Vec::new(),
    }
}
