//! The few APDUs that the tests send by hand. Spec: SP 800-73-4 part 2.

/// SELECT of the PIV application.
pub const SELECT_PIV: &[u8] = &[0x00, 0xA4, 0x04, 0x00, 0x05, 0xA0, 0x00, 0x00, 0x03, 0x08, 0x00];
/// GET DATA of the discovery object, which needs no PIN.
pub const DISCOVERY: &[u8] = &[0x00, 0xCB, 0x3F, 0xFF, 0x03, 0x5C, 0x01, 0x7E, 0x00];
/// VERIFY without data: is the PIN verified, and if not, how many tries are left?
pub const PIN_STATUS: &[u8] = &[0x00, 0x20, 0x00, 0x80];
/// The PIN of a test card.
pub const RIGHT_PIN: &str = "123456";
/// Any other PIN.
pub const WRONG_PIN: &str = "654321";

/// VERIFY with a PIN, padded to 8 octets.
pub fn verify(pin: &str) -> Vec<u8> {
    let mut block = pin.as_bytes().to_vec();
    block.resize(8, 0xFF);
    [&[0x00, 0x20, 0x00, 0x80, 0x08], block.as_slice()].concat()
}

/// GENERAL AUTHENTICATE: a signature over a P-256 prehash by the key in `slot`.
pub fn sign_p256(slot: u8, digest: &[u8; 32]) -> Vec<u8> {
    [&[0x00, 0x87, 0x11, slot, 0x26, 0x7C, 0x24, 0x82, 0x00, 0x81, 0x20], digest.as_slice(), &[0x00]].concat()
}

/// The last two octets of a response.
pub fn status_word(response: &[u8]) -> u16 {
    match response {
        [.., high, low] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

/// Tries left, out of the answer to [`PIN_STATUS`]; `None` if the PIN is verified.
pub fn tries_left(response: &[u8]) -> Option<u8> {
    match status_word(response) {
        0x6983 => Some(0),
        word if word & 0xFFF0 == 0x63C0 => u8::try_from(word & 0x0F).ok(),
        _ => None,
    }
}

/// The DER signature out of the answer to [`sign_p256`], if it is one: `7C len 82 len SIGNATURE 9000`.
pub fn signature(response: &[u8]) -> Option<&[u8]> {
    let template = response.strip_suffix(&[0x90, 0x00])?;
    let inner = template.strip_prefix(&[0x7C, u8::try_from(template.len().checked_sub(2)?).ok()?])?;
    inner.strip_prefix(&[0x82, u8::try_from(inner.len().checked_sub(2)?).ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_only_taken_whole() {
        let response = [0x7C, 0x04, 0x82, 0x02, 0x30, 0x00, 0x90, 0x00];
        assert_eq!(signature(&response), Some([0x30, 0x00].as_slice()));
        assert_eq!(signature(&[0x90, 0x00]), None);
        assert_eq!(signature(&[]), None);
        assert_eq!(signature(&[0x7C, 0x05, 0x82, 0x02, 0x30, 0x00, 0x90, 0x00]), None);
    }

    #[test]
    fn tries_are_read() {
        assert_eq!(tries_left(&[0x63, 0xC2]), Some(2));
        assert_eq!(tries_left(&[0x69, 0x83]), Some(0));
        assert_eq!(tries_left(&[0x90, 0x00]), None);
    }
}
