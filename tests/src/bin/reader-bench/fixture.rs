//! What is exchanged, the same on both sides.

use aes::Aes192;
use aes::cipher::{BlockCipherEncrypt, KeyInit};

use crate::run::Failure;

/// VERIFY of a reference that no card has, which nobody but the card can answer, and which costs no try: 10 bytes, 2 back.
pub(crate) const SMALL: [u8; 10] = [0x00, 0x20, 0x00, 0x81, 0x05, 0x01, 0x02, 0x03, 0x04, 0x05];
/// GET DATA of an object that only a verified PIN opens, so that the host may not answer it: 14 bytes, 4098 back.
pub(crate) const LARGE: [u8; 14] = [0x00, 0xCB, 0x3F, 0xFF, 0x00, 0x00, 0x05, 0x5C, 0x03, 0x5F, 0xC1, 0x08, 0x00, 0x00];
/// Length of the answer to [`LARGE`] with its status word.
pub(crate) const LARGE_ANSWER: usize = 4098;

/// GET DATA of the discovery object, which the host knows and answers itself: 9 bytes, 20 back.
pub(crate) const KNOWN: [u8; 9] = [0x00, 0xCB, 0x3F, 0xFF, 0x03, 0x5C, 0x01, 0x7E, 0x00];
/// Length of the answer to [`KNOWN`] with its status word.
pub(crate) const KNOWN_ANSWER: usize = 22;

const SELECT: [u8; 11] = [0x00, 0xA4, 0x04, 0x00, 0x05, 0xA0, 0x00, 0x00, 0x03, 0x08, 0x00];
const VERIFY: [u8; 13] = [0x00, 0x20, 0x00, 0x80, 0x08, b'1', b'2', b'3', b'4', b'5', b'6', 0xFF, 0xFF];
/// The test card's management key.
const MANAGEMENT_KEY: [u8; 24] = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8];

/// Puts the large object on a Pocketcard test card and verifies the PIN that opens it.
///
/// Spec: SP 800-73-4 part 2, sections 3.2 and 3.3; part 1, appendix A.1
pub(crate) fn prepare(card: &pcsc::Card) -> Result<(), Failure> {
    transmit(card, &SELECT)?;
    let challenge = transmit(card, &[0x00, 0x87, 0x0A, 0x9B, 0x04, 0x7C, 0x02, 0x81, 0x00, 0x00])?;
    // 7C 12 81 10 challenge
    let mut block: [u8; 16] =
        challenge.get(4..20).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| Failure::of("no challenge"))?;
    let mut array = block.into();
    Aes192::new(&MANAGEMENT_KEY.into()).encrypt_block(&mut array);
    block.copy_from_slice(&array);
    let mut answer = vec![0x00, 0x87, 0x0A, 0x9B, 0x14, 0x7C, 0x12, 0x82, 0x10];
    answer.extend(block);
    transmit(card, &answer)?;
    // 5C 03 5FC108 53 82 len content, in one extended command
    let content = LARGE_ANSWER - 2 - 4;
    let length = |length: usize| u16::try_from(length).unwrap_or(0).to_be_bytes();
    let mut put = vec![0x00, 0xDB, 0x3F, 0xFF, 0x00];
    put.extend(length(5 + 4 + content));
    put.extend([0x5C, 0x03, 0x5F, 0xC1, 0x08, 0x53, 0x82]);
    put.extend(length(content));
    put.resize(put.len() + content, 0xA5);
    transmit(card, &put)?;
    open(card)
}

/// Verifies the PIN, after a reset has closed the object.
pub(crate) fn open(card: &pcsc::Card) -> Result<(), Failure> {
    transmit(card, &SELECT)?;
    transmit(card, &VERIFY).map(|_| ())
}

fn transmit(card: &pcsc::Card, command: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut buffer = [0; 1024];
    let response = card.transmit(command, &mut buffer)?;
    match response {
        [data @ .., 0x90, 0x00] => Ok(data.to_vec()),
        _ => {
            let header = command.get(..4).unwrap_or_default();
            Err(Failure(format!("the card refuses the command {header:02X?}: {response:02X?}")))
        }
    }
}
