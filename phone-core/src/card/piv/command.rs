//! One typed command for every well-formed one of the applet, and its words for a log.
//!
//! Spec: SP 800-73-4 part 2, section 3; Yubico PIV extensions (docs.yubico.com, "PIV commands")

mod parse;

use pocketcard_protocol::apdu::StatusWord;

use super::biometric::BiometricCommand;
use super::management_key::BLOCK;
use super::objects::ObjectTag;
use super::pin::Candidate;
use super::policy::{RequestedPolicies, TouchPolicy};
use super::reference::{ManagementAlgorithm, MetadataReference, PinReference, Slot, algorithm_name};
use crate::card::event::CommandLine;
use crate::traits::KeyAlgorithm;

/// Instructions of the applet.
pub(crate) mod instruction {
    pub(crate) const VERIFY: u8 = 0x20;
    pub(crate) const CHANGE_REFERENCE_DATA: u8 = 0x24;
    pub(crate) const RESET_RETRY_COUNTER: u8 = 0x2C;
    pub(crate) const GENERATE_ASYMMETRIC: u8 = 0x47;
    pub(crate) const GENERAL_AUTHENTICATE: u8 = 0x87;
    pub(crate) const GET_DATA: u8 = 0xCB;
    pub(crate) const PUT_DATA: u8 = 0xDB;
    pub(crate) const MOVE_KEY: u8 = 0xF6;
    pub(crate) const GET_METADATA: u8 = 0xF7;
    pub(crate) const GET_SERIAL: u8 = 0xF8;
    pub(crate) const SET_PIN_RETRIES: u8 = 0xFA;
    pub(crate) const RESET: u8 = 0xFB;
    pub(crate) const GET_VERSION: u8 = 0xFD;
    pub(crate) const SET_MANAGEMENT_KEY: u8 = 0xFF;
}

/// One well-formed command. Borrowed from the APDU, which is wiped with its last use.
pub(crate) enum PivCommand<'a> {
    GetData(ObjectTag),
    /// Empty content deletes.
    PutData {
        tag: ObjectTag,
        content: &'a [u8],
    },
    VerifyStatus,
    VerifyLogout,
    Verify {
        pin: Candidate<'a>,
    },
    /// VERIFY with reference 96, which has no meaning on a card that cannot compare.
    Biometric(Result<BiometricCommand<'a>, StatusWord>),
    Change {
        reference: PinReference,
        old: Candidate<'a>,
        new: Candidate<'a>,
    },
    ResetRetryCounter {
        puk: Candidate<'a>,
        pin: Candidate<'a>,
    },
    /// A challenge for the management key; also everybody's source of random numbers.
    ManagementChallenge {
        algorithm: Option<ManagementAlgorithm>,
    },
    /// The encryption of that challenge.
    ManagementResponse {
        algorithm: Option<ManagementAlgorithm>,
        response: &'a [u8; BLOCK],
    },
    /// An encrypted witness, please.
    ManagementWitness {
        algorithm: Option<ManagementAlgorithm>,
    },
    /// The witness, decrypted, and a challenge for the card.
    ManagementMutual {
        algorithm: Option<ManagementAlgorithm>,
        witness: &'a [u8; BLOCK],
        challenge: &'a [u8; BLOCK],
    },
    /// A private-key operation.
    UseKey {
        slot: Slot,
        algorithm: KeyAlgorithm,
        input: KeyInput<'a>,
    },
    Generate {
        slot: Slot,
        algorithm: KeyAlgorithm,
        policies: RequestedPolicies,
    },
    GetVersion,
    GetSerial,
    GetMetadata(MetadataReference),
    SetManagementKey {
        algorithm: ManagementAlgorithm,
        touch: TouchPolicy,
        key: &'a [u8],
    },
    MoveKey {
        from: Slot,
        to: Slot,
    },
    DeleteKey {
        slot: Slot,
    },
    SetPinRetries {
        pin: u8,
        puk: u8,
    },
    Reset,
}

/// What a private key is applied to. The lengths are checked.
#[derive(Clone, Copy)]
pub(crate) enum KeyInput<'a> {
    /// A digest for a curve, 1 to 64 octets.
    Digest(&'a [u8]),
    /// A padded block or a cipher text for RSA, as long as the modulus.
    Block(&'a [u8]),
    /// A peer's point on the key's curve, `04 || X || Y`.
    Point(&'a [u8]),
}

impl PivCommand<'_> {
    /// The command in words.
    pub(crate) fn describe(&self) -> CommandLine {
        match self {
            Self::GetData(tag) => CommandLine::new("GET DATA", tag),
            Self::PutData { tag, .. } => CommandLine::new("PUT DATA", tag),
            Self::VerifyStatus => CommandLine::new("VERIFY", "status"),
            Self::VerifyLogout => CommandLine::new("VERIFY", "logout"),
            Self::Verify { .. } => CommandLine::new("VERIFY", "PIN"),
            Self::Biometric(Ok(BiometricCommand::Status)) => CommandLine::new("VERIFY", "owner status"),
            Self::Biometric(Ok(BiometricCommand::Logout)) => CommandLine::new("VERIFY", "owner logout"),
            Self::Biometric(Ok(BiometricCommand::TemporaryPin(_))) => CommandLine::new("VERIFY", "temporary PIN"),
            Self::Biometric(_) => CommandLine::new("VERIFY", "owner"),
            Self::Change { reference, .. } => CommandLine::new("CHANGE REFERENCE DATA", pin_name(*reference)),
            Self::ResetRetryCounter { .. } => CommandLine::new("RESET RETRY COUNTER", "PIN"),
            Self::ManagementChallenge { .. } => CommandLine::new("GENERAL AUTHENTICATE", "random challenge"),
            Self::ManagementResponse { .. } | Self::ManagementWitness { .. } | Self::ManagementMutual { .. } => {
                CommandLine::new("GENERAL AUTHENTICATE", "9B management key")
            }
            Self::UseKey { slot, algorithm, input } => {
                let purpose = match input {
                    KeyInput::Digest(_) => "sign",
                    KeyInput::Block(_) => "private-key operation",
                    KeyInput::Point(_) => "agree",
                };
                let subject = format!("{slot} {} {purpose}", algorithm_name(*algorithm));
                CommandLine::new("GENERAL AUTHENTICATE", subject)
            }
            Self::Generate { slot, algorithm, .. } => {
                CommandLine::new("GENERATE ASYMMETRIC KEY PAIR", format!("{slot} {}", algorithm_name(*algorithm)))
            }
            Self::GetVersion => CommandLine::bare("GET VERSION"),
            Self::GetSerial => CommandLine::bare("GET SERIAL"),
            Self::GetMetadata(MetadataReference::Slot(slot)) => CommandLine::new("GET METADATA", slot),
            Self::GetMetadata(MetadataReference::Pin(reference)) => {
                CommandLine::new("GET METADATA", pin_name(*reference))
            }
            Self::GetMetadata(MetadataReference::Biometric) => CommandLine::new("GET METADATA", "owner"),
            Self::GetMetadata(MetadataReference::Management) => CommandLine::new("GET METADATA", "9B"),
            Self::SetManagementKey { .. } => CommandLine::bare("SET MANAGEMENT KEY"),
            Self::MoveKey { from, to } => CommandLine::new("MOVE KEY", format!("{from} to {to}")),
            Self::DeleteKey { slot } => CommandLine::new("DELETE KEY", slot),
            Self::SetPinRetries { .. } => CommandLine::bare("SET PIN RETRIES"),
            Self::Reset => CommandLine::bare("RESET"),
        }
    }
}

/// Name of an instruction whose command could not be read.
pub(crate) const fn instruction_name(ins: u8) -> Option<&'static str> {
    Some(match ins {
        instruction::VERIFY => "VERIFY",
        instruction::CHANGE_REFERENCE_DATA => "CHANGE REFERENCE DATA",
        instruction::RESET_RETRY_COUNTER => "RESET RETRY COUNTER",
        instruction::GENERATE_ASYMMETRIC => "GENERATE ASYMMETRIC KEY PAIR",
        instruction::GENERAL_AUTHENTICATE => "GENERAL AUTHENTICATE",
        instruction::GET_DATA => "GET DATA",
        instruction::PUT_DATA => "PUT DATA",
        instruction::MOVE_KEY => "MOVE KEY",
        instruction::GET_METADATA => "GET METADATA",
        instruction::GET_SERIAL => "GET SERIAL",
        instruction::SET_PIN_RETRIES => "SET PIN RETRIES",
        instruction::RESET => "RESET",
        instruction::GET_VERSION => "GET VERSION",
        instruction::SET_MANAGEMENT_KEY => "SET MANAGEMENT KEY",
        _ => return None,
    })
}

const fn pin_name(reference: PinReference) -> &'static str {
    match reference {
        PinReference::Pin => "PIN",
        PinReference::Puk => "PUK",
    }
}

#[cfg(test)]
mod tests {
    use pocketcard_protocol::apdu::Command;

    use super::*;

    fn line(text: &str) -> String {
        PivCommand::parse(&Command::parse(&hex::decode(text.replace(' ', "")).unwrap()).unwrap())
            .map(|command| command.describe().to_string())
            .unwrap()
    }

    #[test]
    fn commands_in_words() {
        for (command, expected) in [
            ("00CB3FFF 05 5C035FC102 00", "GET DATA CHUID"),
            ("00CB3FFF 03 5C017E 08", "GET DATA discovery"),
            ("00DB3FFF 09 5C035FFF00 5302AABB", "PUT DATA object 5FFF00"),
            ("00200080", "VERIFY status"),
            ("0020008000", "VERIFY status"),
            ("0020FF80", "VERIFY logout"),
            ("00200080 08 313233343536FFFF", "VERIFY PIN"),
            ("00240081 10 31323334353637383132333435363738", "CHANGE REFERENCE DATA PUK"),
            ("0087009B 04 7C028100 00", "GENERAL AUTHENTICATE random challenge"),
            ("00870A9B 04 7C028000 00", "GENERAL AUTHENTICATE 9B management key"),
            ("0087119C 09 7C078200 8103AABBCC 00", "GENERAL AUTHENTICATE 9C P-256 sign"),
            ("0047009A 05 AC03800114 00", "GENERATE ASYMMETRIC KEY PAIR 9A P-384"),
            ("0047009A 0B AC09800111AA0102AB0101", "GENERATE ASYMMETRIC KEY PAIR 9A P-256"),
            ("00F7009B", "GET METADATA 9B"),
            ("00F6FF82", "DELETE KEY 82"),
            ("00F6829A", "MOVE KEY 9A to 82"),
            ("00FB0000", "RESET"),
        ] {
            assert_eq!(line(command), expected);
        }
    }
}
