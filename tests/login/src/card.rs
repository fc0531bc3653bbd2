//! What an administrator of the card does: writes objects, with the management key.

use aes::Aes192;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use pcsc::{Card, Context as PcscContext, Protocols, Scope, ShareMode};
use pocketcard_dev::TEST_MANAGEMENT_KEY;

use crate::failure::{Failure, expect};

const SELECT: &[u8] = &[0x00, 0xA4, 0x04, 0x00, 0x05, 0xA0, 0x00, 0x00, 0x03, 0x08, 0x00];
/// Asks for a challenge for the management key, AES-192. Spec: SP 800-73-4 part 2, section 3.2.4
const CHALLENGE: &[u8] = &[0x00, 0x87, 0x0A, 0x9B, 0x04, 0x7C, 0x02, 0x81, 0x00, 0x00];
/// What one command of a chain carries.
const PIECE: usize = 200;

/// Writes objects (tag, content with its own tag 53) to the card in a reader.
pub(crate) fn write(reader: usize, objects: &[(&[u8], Vec<u8>)]) -> Result<(), Failure> {
    let context = PcscContext::establish(Scope::User).map_err(wrong)?;
    let readers = context.list_readers_owned().map_err(wrong)?;
    let name = readers.get(reader).ok_or_else(|| Failure::Wrong(format!("no reader {reader}: {readers:?}")))?;
    let card = context.connect(name, ShareMode::Shared, Protocols::ANY).map_err(wrong)?;
    transmit(&card, SELECT)?;
    let answer = transmit(&card, CHALLENGE)?;
    let challenge = answer.strip_prefix(&[0x7C, 0x12, 0x81, 0x10]).and_then(|challenge| challenge.first_chunk::<16>());
    let mut block = (*challenge.ok_or_else(|| Failure::Wrong(format!("no challenge: {answer:02x?}")))?).into();
    let key: Vec<u8> = (0..TEST_MANAGEMENT_KEY.len() / 2)
        .filter_map(|index| u8::from_str_radix(TEST_MANAGEMENT_KEY.get(2 * index..2 * index + 2)?, 16).ok())
        .collect();
    Aes192::new_from_slice(&key).map_err(|_| Failure::Wrong("the key's length".to_owned()))?.encrypt_block(&mut block);
    transmit(&card, &[&[0x00, 0x87, 0x0A, 0x9B, 0x14, 0x7C, 0x12, 0x82, 0x10], block.as_slice(), &[0x00]].concat())?;
    for (tag, content) in objects {
        let length = u8::try_from(tag.len()).unwrap_or_default();
        let data = [&[0x5C, length], *tag, content.as_slice()].concat();
        let mut pieces = data.chunks(PIECE).peekable();
        while let Some(piece) = pieces.next() {
            let class = if pieces.peek().is_some() { 0x10 } else { 0x00 };
            let length = u8::try_from(piece.len()).unwrap_or_default();
            transmit(&card, &[&[class, 0xDB, 0x3F, 0xFF, length], piece].concat())?;
        }
    }
    Ok(())
}

fn transmit(card: &Card, apdu: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut buffer = [0; 258];
    let response = card.transmit(apdu, &mut buffer).map_err(wrong)?;
    let data = response.strip_suffix(&[0x90, 0x00]).map(<[u8]>::to_vec);
    let head = apdu.get(..4).unwrap_or_default();
    expect(data.is_some(), || format!("{head:02x?} is answered by {response:02x?}"))?;
    Ok(data.unwrap_or_default())
}

fn wrong(error: pcsc::Error) -> Failure {
    Failure::Wrong(format!("PC/SC: {error}"))
}

/// A certificate as its object holds it. Spec: SP 800-73-4 part 1, table 10
pub(crate) fn certificate(der: &[u8]) -> Vec<u8> {
    object(&[long(0x70, der).as_slice(), &[0x71, 0x01, 0x00], &[0xFE, 0x00]].concat())
}

/// A CHUID: FASC-N, GUID, expiry. Spec: SP 800-73-4 part 1, table 9
pub(crate) fn chuid() -> Vec<u8> {
    let mut chuid = vec![0x30, 25];
    chuid.extend([0xD4; 25]);
    chuid.extend([0x34, 16]);
    chuid.extend([0x11; 16]);
    chuid.extend([0x35, 8]);
    chuid.extend(b"20301231");
    chuid.extend([0x3E, 0, 0xFE, 0]);
    object(&chuid)
}

fn object(content: &[u8]) -> Vec<u8> {
    long(0x53, content)
}

fn long(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or_default().to_be_bytes();
    [&[tag, 0x82], length.as_slice(), content].concat()
}
