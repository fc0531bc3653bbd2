//! What programs, readers, owners and other hosts do, at random.

use std::time::Duration;

use pocketcard_front::PinEntry;
use pocketcard_phone::{EnteredPin, NewPin, PinAnswer};
use pocketcard_protocol::messages::PinOperation;
use proptest::prelude::*;

/// What a program or the world does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Command(Vec<u8>),
    /// The owner is asked for a PIN.
    EnterPin(PinEntry, Owner),
    /// Proves the management key.
    Administer,
    Reset,
    PowerDownAndUp,
    /// The driver goes away and another one powers the card up.
    Driver,
    /// The driver goes away while a command runs.
    Interrupted {
        command: Vec<u8>,
        /// The card still works on it, if it takes a key; else its answer is on the way and comes too late.
        working: bool,
    },
    /// The link is lost with all that was on the way, and the phone comes back in time.
    LinkLost(Gap),
    /// Somebody else changes the card; what the phone says about it is on the way until it is delivered.
    Change(Change),
    /// So many messages of the phone arrive.
    Deliver(u8),
}

/// What the owner does when the phone asks for a PIN.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner {
    /// Enters this, and a new one twice where that is asked for.
    Enters(&'static str),
    /// Enters two new ones that differ.
    Mistypes,
    Cancels,
    Ignores,
}

impl Owner {
    pub(crate) fn answer(self, operation: PinOperation) -> PinAnswer {
        let entered = |current: &str, repeated: &str| {
            let new = NewPin { value: PIN.to_owned().into(), repeated: repeated.to_owned().into() };
            let new = (operation != PinOperation::Verify).then_some(new);
            PinAnswer::Entered(EnteredPin { current: current.to_owned().into(), new })
        };
        match self {
            Self::Enters(current) => entered(current, PIN),
            Self::Mistypes => entered(PIN, PUK),
            Self::Cancels => PinAnswer::Cancelled,
            Self::Ignores => PinAnswer::Unanswered,
        }
    }
}

const PIN: &str = "123456";
const PUK: &str = "12345678";

/// What happens while the phone is away.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gap {
    /// The card is reset before the phone is asked to go on with the session.
    pub(crate) reset_early: bool,
    /// The card is reset when it has been asked and has not answered.
    pub(crate) reset_late: bool,
    /// A program sends a command, after that.
    pub(crate) command: Option<Vec<u8>>,
}

/// A change that does not come from this host.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// The owner, on the phone.
    Owner(Vec<u8>),
    /// Another host gives a command.
    Host(Vec<u8>),
    /// Another host proves the management key.
    HostAdministers,
    /// The owner locks the card: it leaves the readers.
    Lock,
    Unlock,
    /// The PIN is forgotten in every session, because nobody did anything for long.
    Idle,
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.bytes().filter_map(|byte| char::from(byte).to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Commands of real programs, right and wrong, whole and in pieces.
const VOCABULARY: &[&str] = &[
    "00A4040009A00000030800001000",
    "00A4040005A000000308",
    "00A404000BA000000308000010000100",
    "00A404000BA00000030800001000010000",
    "00A4040C05A000000308",
    "00A4040006D27600012401",
    "00A4040C0FD23300000045737445494420763335",
    "00A404000CA00000030800001000010000",
    "00A4040004A0000003",
    "00A40000023F00",
    "00A40400",
    // The other application, and what it answers.
    "00A4040008A000000527471117",
    "00A4040C05A000000527",
    "001D0000",
    "00CADF3005",
    "0020008008313233343536FFFF",
    "0020008008393939393939FFFF",
    "00200080",
    "0020008000",
    "0020FF80",
    "00200081083132333435363738",
    "0024008010313233343536FFFF363534333231FFFF",
    "0024008010363534333231FFFF313233343536FFFF",
    "002C0080103132333435363738313233343536FFFF",
    "00CB3FFF035C017E00",
    "00CB3FFF035C017E08",
    "00CB3FFF045C027F6100",
    "00CB3FFF055C035FC10100",
    "00CB3FFF055C035FC10200",
    "00CB3FFF055C035FC10500",
    "00CB3FFF055C035FC10508",
    "00CB3FFF055C035FC105",
    "00CB3FFF055C035FC10A00",
    "00CB3FFF055C035FC10C00",
    "00CB3FFF055C035FC10D00",
    "00CB3FFF055C035FFF0000",
    "00CB3FFF055C035FC10900",
    "00CB3FFF055C035FC10300",
    "00CB3FFF055C035FC10800",
    "00CB3FFF055C035FC12100",
    "00CB3FFF055C035FC12300",
    "00CB3FFF055C035FC107",
    "00CB3FFF065C81035FC10500",
    "00CB3FFF065C045FC1050000",
    "00FD000000",
    "00FD000100",
    "00F8000000",
    "00F7009A00",
    "00F7008000",
    "00FB0000",
    "00C0000000",
    "00C0000010",
    "00C00000FF",
    "00C0010000",
    "0087039B047C02810000",
    "00870A9B047C02810000",
    "0047009A05AC0380011100",
    "0087119A267C24820081200102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F2000",
    "1087119A0E7C24820081200102030405060708",
    "0087119A18090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F2000",
    "10DB3FFF0B5C035FC1055308706101",
    "00DB3FFF03020304",
    "00DB3FFF0A5C035FC105530370016A",
    "10200080043132333400",
    "002000800435360000",
    "00",
    "FF000000",
    "00CB3FFF",
    "0020008009313233343536",
    "00CB3FFF0000055C035FC1050000",
    "00CB3FFF0000035C017E0004",
];

/// What changes objects.
const WRITES: &[&str] = &[
    "00DB3FFF0A5C035FC105530370016A",
    "00DB3FFF0A5C035FC1055303700161",
    "00DB3FFF075C035FC1055300",
    "00DB3FFF0A5C035FC10D5303700162",
    "00DB3FFF075C035FC10D5300",
    "00DB3FFF0A5C035FC1025303300163",
    "00DB3FFF0A5C035FC10A5303700164",
    "00DB3FFF0A5C035FFF005303800165",
    "00DB3FFF0A5C035FC1095303880166",
    "00DB3FFF047F610200",
    "00DB3FFF037E0100",
    "0047009A05AC0380011100",
    "00F6FF9A",
];

/// What changes the PIN, or what may be done with it.
const PINS: &[&str] = &[
    "0020008008313233343536FFFF",
    "0020008008393939393939FFFF",
    "0024008010313233343536FFFF363534333231FFFF",
    "0024008010363534333231FFFF313233343536FFFF",
    "002C0080103132333435363738313233343536FFFF",
    "002C0080103939393939393939313233343536FFFF",
];

fn word(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(words).prop_map(hex)
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => word(VOCABULARY),
        2 => word(WRITES),
        1 => prop::collection::vec(any::<u8>(), 0..20),
        // A word of the vocabulary with one byte changed.
        2 => (word(VOCABULARY), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut command, at, byte)| {
            let at = at.index(command.len());
            command[at] = byte;
            command
        }),
    ]
}

fn gap() -> impl Strategy<Value = Gap> {
    let reset = || prop::bool::weighted(0.3);
    (reset(), reset(), prop::option::of(command())).prop_map(|(reset_early, reset_late, command)| Gap {
        reset_early,
        reset_late,
        command,
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => word(WRITES).prop_map(Change::Owner),
        1 => Just(Change::Owner(hex("00FB0000"))),
        3 => word(WRITES).prop_map(Change::Host),
        4 => word(PINS).prop_map(Change::Host),
        1 => command().prop_map(Change::Host),
        1 => Just(Change::HostAdministers),
        1 => Just(Change::Lock),
        2 => Just(Change::Unlock),
        1 => Just(Change::Idle),
    ]
}

/// Right and wrong ones, of secrets that there are and that there are not.
fn pin_entry() -> impl Strategy<Value = Step> {
    let operation = prop::sample::select(vec![PinOperation::Verify, PinOperation::Change, PinOperation::Unblock]);
    let reference = prop::sample::select(vec![0x80, 0x80, 0x80, 0x00, 0x81]);
    let owner = prop_oneof![
        6 => prop::sample::select(vec![PIN, PIN, PUK, "999999", "1234"]).prop_map(Owner::Enters),
        1 => Just(Owner::Mistypes),
        1 => Just(Owner::Cancels),
        1 => Just(Owner::Ignores),
    ];
    (operation, reference, owner).prop_map(|(operation, key_reference, owner)| {
        let entry = PinEntry { operation, key_reference, time_limit: Duration::from_secs(25) };
        Step::EnterPin(entry, owner)
    })
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => command().prop_map(Step::Command),
        4 => pin_entry(),
        1 => Just(Step::Administer),
        3 => Just(Step::Reset),
        3 => Just(Step::PowerDownAndUp),
        2 => Just(Step::Driver),
        4 => (command(), any::<bool>()).prop_map(|(command, working)| Step::Interrupted { command, working }),
        2 => gap().prop_map(Step::LinkLost),
        8 => change().prop_map(Step::Change),
        8 => any::<u8>().prop_map(|count| Step::Deliver(count % 4)),
    ]
}
