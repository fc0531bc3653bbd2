//! Bytes become one typed command. Every check of P1, P2, lengths and templates is here, so that a handler deals with what a
//! command means and never with how it was written.

use pocketcard_protocol::apdu::{Command, StatusWord};
use pocketcard_protocol::tlv::{Reader, Tlv, TlvError};

use super::super::biometric::{BIOMETRIC, BiometricCommand};
use super::super::management_key::BLOCK;
use super::super::objects::ObjectTag;
use super::super::pin::Candidate;
use super::super::policy::{PinPolicy, RequestedPolicies, TouchPolicy, UnknownPolicy};
use super::super::reference::{
    ManagementAlgorithm, MetadataReference, PinReference, Shape, Slot, key_algorithm, shape,
};
use super::{KeyInput, PivCommand, instruction};
use crate::traits::KeyAlgorithm;

/// Longest digest that a curve signs: that of SHA-512.
const DIGEST_LIMIT: usize = 64;

impl<'a> PivCommand<'a> {
    /// Reads a command.
    ///
    /// # Errors
    /// The status word to refuse it with; nothing has happened then, and no try was spent.
    pub(crate) fn parse(command: &'a Command) -> Result<Self, StatusWord> {
        let (p1, p2, data) = (command.p1(), command.p2(), command.data());
        match command.ins() {
            instruction::GET_DATA => parse_get_data(p1, p2, data),
            instruction::PUT_DATA => parse_put_data(p1, p2, data),
            instruction::VERIFY => parse_verify(p1, p2, data),
            instruction::CHANGE_REFERENCE_DATA => parse_change(p1, p2, data),
            instruction::RESET_RETRY_COUNTER => parse_reset_retry_counter(p1, p2, data),
            instruction::GENERAL_AUTHENTICATE => parse_general_authenticate(p1, p2, data),
            instruction::GENERATE_ASYMMETRIC => parse_generate(p1, p2, data),
            instruction::GET_VERSION => bare(p1, p2, data).map(|()| Self::GetVersion),
            instruction::GET_SERIAL => bare(p1, p2, data).map(|()| Self::GetSerial),
            instruction::GET_METADATA => parse_get_metadata(p1, p2, data),
            instruction::SET_MANAGEMENT_KEY => parse_set_management_key(p1, p2, data),
            instruction::MOVE_KEY => parse_move_key(p1, p2, data),
            instruction::SET_PIN_RETRIES if !data.is_empty() => Err(StatusWord::WrongLength),
            instruction::SET_PIN_RETRIES if p1 == 0 || p2 == 0 => Err(StatusWord::WrongParameters),
            instruction::SET_PIN_RETRIES => Ok(Self::SetPinRetries { pin: p1, puk: p2 }),
            instruction::RESET => bare(p1, p2, data).map(|()| Self::Reset),
            _ => Err(StatusWord::InstructionNotSupported),
        }
    }
}

/// A command that has neither parameters nor data.
const fn bare(p1: u8, p2: u8, data: &[u8]) -> Result<(), StatusWord> {
    match (p1, p2, data) {
        (0, 0, []) => Ok(()),
        (0, 0, _) => Err(StatusWord::WrongLength),
        _ => Err(StatusWord::WrongParameters),
    }
}

fn malformed(_: TlvError) -> StatusWord {
    StatusWord::WrongData
}

/// The only data object in `data`.
fn only(data: &[u8], tag: u32) -> Result<&[u8], StatusWord> {
    pocketcard_protocol::tlv::only(data, tag).map_err(malformed)
}

fn parse_get_data<'a>(p1: u8, p2: u8, data: &'a [u8]) -> Result<PivCommand<'a>, StatusWord> {
    if (p1, p2) != (0x3F, 0xFF) {
        return Err(StatusWord::WrongParameters);
    }
    ObjectTag::from_bytes(only(data, 0x5C)?).map(PivCommand::GetData).ok_or(StatusWord::WrongData)
}

fn parse_put_data<'a>(p1: u8, p2: u8, data: &'a [u8]) -> Result<PivCommand<'a>, StatusWord> {
    if (p1, p2) != (0x3F, 0xFF) {
        return Err(StatusWord::WrongParameters);
    }
    let mut objects = Reader::new(data);
    let mut next = || objects.next().transpose().map_err(malformed);
    let (tag, content) = match (next()?, next()?, next()?) {
        (Some(Tlv { tag: 0x5C, value: tag }), Some(Tlv { tag: 0x53, value: content }), None) => {
            let tag = ObjectTag::from_bytes(tag).filter(|tag| !tag.is_bare()).ok_or(StatusWord::WrongData)?;
            (tag, content)
        }
        (Some(Tlv { tag: 0x7E, value }), None, None) => (ObjectTag::DISCOVERY, value),
        (Some(Tlv { tag: 0x7F61, value }), None, None) => (ObjectTag::BIOMETRIC_TEMPLATES, value),
        _ => return Err(StatusWord::WrongData),
    };
    Ok(PivCommand::PutData { tag, content })
}

fn parse_verify<'a>(p1: u8, p2: u8, data: &'a [u8]) -> Result<PivCommand<'a>, StatusWord> {
    if !matches!(p1, 0x00 | 0xFF) {
        return Err(StatusWord::WrongParameters);
    }
    if p2 == BIOMETRIC {
        return Ok(PivCommand::Biometric(BiometricCommand::parse(p1, data)));
    }
    // Global PIN, fingerprints on the card and pairing code are not offered, as the discovery object says.
    if p2 != 0x80 {
        return Err(StatusWord::ReferenceNotFound);
    }
    match (p1, data) {
        (0xFF, []) => Ok(PivCommand::VerifyLogout),
        (0xFF, _) => Err(StatusWord::WrongData),
        (_, []) => Ok(PivCommand::VerifyStatus),
        (_, data) => Ok(PivCommand::Verify { pin: data.try_into().map_err(|_| StatusWord::WrongData)? }),
    }
}

/// The two values of 8 octets in the data of CHANGE REFERENCE DATA and RESET RETRY COUNTER.
fn two_references(data: &[u8]) -> Result<(Candidate<'_>, Candidate<'_>), StatusWord> {
    let (first, second) = data.split_first_chunk().ok_or(StatusWord::WrongData)?;
    Ok((first, second.try_into().map_err(|_| StatusWord::WrongData)?))
}

fn parse_change<'a>(p1: u8, p2: u8, data: &'a [u8]) -> Result<PivCommand<'a>, StatusWord> {
    if p1 != 0 {
        return Err(StatusWord::WrongParameters);
    }
    let reference = match p2 {
        0x80 => PinReference::Pin,
        0x81 => PinReference::Puk,
        _ => return Err(StatusWord::ReferenceNotFound),
    };
    let (old, new) = two_references(data)?;
    Ok(PivCommand::Change { reference, old, new })
}

fn parse_reset_retry_counter<'a>(p1: u8, p2: u8, data: &'a [u8]) -> Result<PivCommand<'a>, StatusWord> {
    if p1 != 0 {
        return Err(StatusWord::WrongParameters);
    }
    if p2 != 0x80 {
        return Err(StatusWord::ReferenceNotFound);
    }
    let (puk, pin) = two_references(data)?;
    Ok(PivCommand::ResetRetryCounter { puk, pin })
}

/// The objects of a dynamic authentication template, each at most once, in any order.
#[derive(Default)]
struct AuthenticationTemplate<'a> {
    witness: Option<&'a [u8]>,
    challenge: Option<&'a [u8]>,
    response: Option<&'a [u8]>,
    exponentiation: Option<&'a [u8]>,
}

impl<'a> AuthenticationTemplate<'a> {
    fn parse(data: &'a [u8]) -> Result<Self, StatusWord> {
        let mut template = Self::default();
        for object in Reader::new(only(data, 0x7C)?) {
            let Tlv { tag, value } = object.map_err(malformed)?;
            let place = match tag {
                0x80 => &mut template.witness,
                0x81 => &mut template.challenge,
                0x82 => &mut template.response,
                0x85 => &mut template.exponentiation,
                _ => return Err(StatusWord::WrongData),
            };
            if place.replace(value).is_some() {
                return Err(StatusWord::WrongData);
            }
        }
        Ok(template)
    }
}

fn parse_general_authenticate<'a>(p1: u8, p2: u8, data: &'a [u8]) -> Result<PivCommand<'a>, StatusWord> {
    if p2 == 0x9B {
        return parse_management(p1, &AuthenticationTemplate::parse(data)?);
    }
    let slot = Slot::from_reference(p2).ok_or(StatusWord::WrongParameters)?;
    let template = AuthenticationTemplate::parse(data)?;
    let algorithm = key_algorithm(p1).ok_or(StatusWord::WrongData)?;
    let input = key_input(algorithm, &template).ok_or(StatusWord::WrongData)?;
    Ok(PivCommand::UseKey { slot, algorithm, input })
}

/// What a private key is asked to do; `None` if the template asks for nothing that this algorithm does.
fn key_input<'a>(algorithm: KeyAlgorithm, template: &AuthenticationTemplate<'a>) -> Option<KeyInput<'a>> {
    let AuthenticationTemplate { witness: None, challenge, response, exponentiation } = *template else { return None };
    match (shape(algorithm), challenge, response, exponentiation) {
        (Shape::Modulus(length), Some(block), Some([]), None) => {
            (block.len() == length).then_some(KeyInput::Block(block))
        }
        (Shape::Curve(_), Some(digest), Some([]), None) => {
            (1..=DIGEST_LIMIT).contains(&digest.len()).then_some(KeyInput::Digest(digest))
        }
        // Some programs ask for the exponentiation with an empty 85 and send the point as the challenge.
        (Shape::Curve(field), None, Some([]), Some(point))
        | (Shape::Curve(field), Some(point), None | Some([]), Some([])) => {
            (point.len() == 2 * field + 1 && point.first() == Some(&0x04)).then_some(KeyInput::Point(point))
        }
        _ => None,
    }
}

fn parse_management<'a>(p1: u8, template: &AuthenticationTemplate<'a>) -> Result<PivCommand<'a>, StatusWord> {
    // 00 is whatever algorithm the key has: OpenSC asks for random numbers with it.
    let algorithm = match p1 {
        0x00 => None,
        identifier => Some(ManagementAlgorithm::from_identifier(identifier).ok_or(StatusWord::WrongData)?),
    };
    let block = |bytes: &'a [u8]| <&[u8; BLOCK]>::try_from(bytes).map_err(|_| StatusWord::WrongData);
    let AuthenticationTemplate { witness, challenge, response, exponentiation: None } = *template else {
        return Err(StatusWord::WrongData);
    };
    // A challenge of the host alone is not among these: encrypting it would answer the card's own challenge.
    match (witness, challenge, response) {
        (Some([]), None, None) => Ok(PivCommand::ManagementWitness { algorithm }),
        (None, Some([]), None) => Ok(PivCommand::ManagementChallenge { algorithm }),
        (Some(witness), Some(challenge), None | Some([])) => {
            Ok(PivCommand::ManagementMutual { algorithm, witness: block(witness)?, challenge: block(challenge)? })
        }
        (None, None, Some(response)) => Ok(PivCommand::ManagementResponse { algorithm, response: block(response)? }),
        _ => Err(StatusWord::WrongData),
    }
}

fn parse_generate<'a>(p1: u8, p2: u8, data: &'a [u8]) -> Result<PivCommand<'a>, StatusWord> {
    let slot = Slot::from_reference(p2).filter(|_| p1 == 0).ok_or(StatusWord::WrongParameters)?;
    let mut algorithm = None;
    let mut policies = RequestedPolicies::default();
    for object in Reader::new(only(data, 0xAC)?) {
        let object = object.map_err(malformed)?;
        let unknown = |_: UnknownPolicy| StatusWord::WrongData;
        match (object.tag, object.value) {
            (0x80, [identifier]) => algorithm = Some(key_algorithm(*identifier).ok_or(StatusWord::WrongData)?),
            // The parameter of the algorithm, an RSA exponent: ours is 65537 whatever is asked, as everybody's.
            (0x81, _) => {}
            (0xAA, [policy]) => policies.pin = PinPolicy::from_identifier(*policy).map_err(unknown)?,
            (0xAB, [policy]) => policies.touch = TouchPolicy::from_identifier(*policy).map_err(unknown)?,
            _ => return Err(StatusWord::WrongData),
        }
    }
    Ok(PivCommand::Generate { slot, algorithm: algorithm.ok_or(StatusWord::WrongData)?, policies })
}

fn parse_get_metadata<'a>(p1: u8, p2: u8, data: &'a [u8]) -> Result<PivCommand<'a>, StatusWord> {
    if p1 != 0 {
        return Err(StatusWord::WrongParameters);
    }
    if !data.is_empty() {
        return Err(StatusWord::WrongLength);
    }
    let reference = match p2 {
        0x80 => MetadataReference::Pin(PinReference::Pin),
        0x81 => MetadataReference::Pin(PinReference::Puk),
        0x9B => MetadataReference::Management,
        BIOMETRIC => MetadataReference::Biometric,
        _ => MetadataReference::Slot(Slot::from_reference(p2).ok_or(StatusWord::ReferenceNotFound)?),
    };
    Ok(PivCommand::GetMetadata(reference))
}

fn parse_set_management_key<'a>(p1: u8, p2: u8, data: &'a [u8]) -> Result<PivCommand<'a>, StatusWord> {
    let touch = match (p1, p2) {
        (0xFF, 0xFF) => TouchPolicy::Never,
        (0xFF, 0xFE) => TouchPolicy::Always,
        _ => return Err(StatusWord::WrongParameters),
    };
    let [algorithm, 0x9B, length, key @ ..] = data else { return Err(StatusWord::WrongData) };
    let algorithm = ManagementAlgorithm::from_identifier(*algorithm).ok_or(StatusWord::WrongData)?;
    if key.len() != usize::from(*length) || key.len() != algorithm.key_length() {
        return Err(StatusWord::WrongData);
    }
    Ok(PivCommand::SetManagementKey { algorithm, touch, key })
}

fn parse_move_key<'a>(p1: u8, p2: u8, data: &'a [u8]) -> Result<PivCommand<'a>, StatusWord> {
    if !data.is_empty() {
        return Err(StatusWord::WrongLength);
    }
    let from = Slot::from_reference(p2).ok_or(StatusWord::WrongParameters)?;
    if p1 == 0xFF {
        return Ok(PivCommand::DeleteKey { slot: from });
    }
    let to = Slot::from_reference(p1).filter(|to| *to != from).ok_or(StatusWord::WrongParameters)?;
    Ok(PivCommand::MoveKey { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bytes: &[u8]) -> Result<(), StatusWord> {
        PivCommand::parse(&Command::parse(bytes).unwrap()).map(|_| ())
    }

    #[test]
    fn refusals() {
        for (command, expected) in [
            ("00CB3FFE 05 5C035FC102", StatusWord::WrongParameters),
            ("00CB3FFF 05 5C025FC102", StatusWord::WrongData),
            ("00CB3FFF 06 5C045FC10200", StatusWord::WrongData),
            ("00CB3FFF 00", StatusWord::WrongData),
            ("00DB3FFF 05 5C035FC102", StatusWord::WrongData),
            ("00DB3FFF 07 5C017E 5302AABB", StatusWord::WrongData),
            ("00DB3FFF 0A 5C035FC1025300 5300 00", StatusWord::WrongData),
            ("00200180 00", StatusWord::WrongParameters),
            ("0020FF80 08 313233343536FFFF", StatusWord::WrongData),
            ("00200000 08 313233343536FFFF", StatusWord::ReferenceNotFound),
            ("00200081 08 313233343536FFFF", StatusWord::ReferenceNotFound),
            ("00200080 06 313233343536", StatusWord::WrongData),
            ("00240180 10 31323334353637383132333435363738", StatusWord::WrongParameters),
            ("00240000 10 31323334353637383132333435363738", StatusWord::ReferenceNotFound),
            ("00240080 0F 313233343536373831323334353637", StatusWord::WrongData),
            ("002C0081 10 31323334353637383132333435363738", StatusWord::ReferenceNotFound),
            ("00871104 06 7C0482008100", StatusWord::WrongParameters),
            ("0087FF9A 06 7C0482008100", StatusWord::WrongData),
            ("0087119A 04 7C028100", StatusWord::WrongData),
            ("0087119A 05 7C0382008100", StatusWord::WrongData),
            ("0087119A 08 7C06820081018200", StatusWord::WrongData),
            ("00870A9B 06 7C0480008100", StatusWord::WrongData),
            ("0087039B 04 7C028000", StatusWord::WrongData),
            // A host that sends a challenge alone would get its encryption, which answers the card's own challenge.
            ("00870A9B 16 7C1481100000000000000000000000000000000082 00", StatusWord::WrongData),
            ("0047009B 05 AC03800111", StatusWord::WrongParameters),
            ("0047019A 05 AC03800111", StatusWord::WrongParameters),
            ("0047009A 02 AC00", StatusWord::WrongData),
            ("0047009A 05 AC038001FF", StatusWord::WrongData),
            ("0047009A 08 AC06800111AA0106", StatusWord::WrongData),
            ("00F7009A 01 00", StatusWord::WrongLength),
            ("00FD0100", StatusWord::WrongParameters),
            ("00FFFFFD 13 089B10000102030405060708090A0B0C0D0E0F", StatusWord::WrongParameters),
            ("00FFFFFF 13 0A9B10000102030405060708090A0B0C0D0E0F", StatusWord::WrongData),
            ("00FFFFFF 12 089B10000102030405060708090A0B0C0D0E", StatusWord::WrongData),
            ("00F69A9A", StatusWord::WrongParameters),
            ("00FA0003", StatusWord::WrongParameters),
            ("001D0000", StatusWord::InstructionNotSupported),
            ("00CADF30", StatusWord::InstructionNotSupported),
            ("00FE119A", StatusWord::InstructionNotSupported),
            ("00F99A00", StatusWord::InstructionNotSupported),
        ] {
            let bytes = hex::decode(command.replace(' ', "")).unwrap();
            assert_eq!(status(&bytes), Err(expected), "{command}");
        }
    }

    #[test]
    fn a_point_comes_in_three_ways() {
        let mut point = vec![0x04];
        point.extend([7; 64]);
        let template = |parts: &[(u8, &[u8])]| {
            let content: Vec<u8> =
                parts.iter().flat_map(|(tag, value)| [&[*tag, value.len() as u8], *value].concat()).collect();
            let data = [&[0x7C, content.len() as u8], content.as_slice()].concat();
            let command = Command::new(0, 0x87, 0x11, 0x9D, &data, None).unwrap();
            PivCommand::parse(&command)
                .map(|command| matches!(command, PivCommand::UseKey { input: KeyInput::Point(_), .. }))
        };
        assert_eq!(template(&[(0x82, &[]), (0x85, &point)]), Ok(true));
        assert_eq!(template(&[(0x85, &point), (0x82, &[])]), Ok(true));
        assert_eq!(template(&[(0x85, &[]), (0x81, &point)]), Ok(true));
        assert_eq!(template(&[(0x82, &[]), (0x85, &point[1..])]), Err(StatusWord::WrongData));
        point[0] = 0x02;
        assert_eq!(template(&[(0x82, &[]), (0x85, &point)]), Err(StatusWord::WrongData));
    }
}
