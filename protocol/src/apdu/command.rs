//! One command APDU.

use core::fmt;
use core::ops::Range;

use zeroize::Zeroizing;

use super::ApduError;
use crate::wipe::WipedBuffer;

/// Bit 5 of an interindustry class byte: more parts of this command follow.
const CHAINED: u8 = 0x10;
const HEADER: usize = 4;

/// A command to a card, kept byte for byte as it was sent.
///
/// It is wiped when dropped, and `Debug` shows the header and the lengths but never the data, which may be a PIN.
///
/// Spec: ISO/IEC 7816-3 section 12.1 (cases 1 to 4); SPEC.md section 7.2
#[derive(Clone)]
pub struct Command {
    header: [u8; HEADER],
    bytes: WipedBuffer,
    data: Range<usize>,
    le: Option<u32>,
    extended: bool,
}

impl Command {
    /// Builds a command, short if its lengths allow it and extended if not.
    ///
    /// - `data`: at most 65,535 bytes.
    /// - `le`: most bytes the answer may have, 1..=65,536; `None` sends no Le field, which is not the same as 256.
    ///
    /// # Errors
    /// [`ApduError::DataTooLong`], or [`ApduError::Le`] for an expected length that has no coding.
    ///
    /// Spec: ISO/IEC 7816-3 section 12.1.3
    pub fn new(cla: u8, ins: u8, p1: u8, p2: u8, data: &[u8], le: Option<u32>) -> Result<Self, ApduError> {
        let lc = u16::try_from(data.len()).map_err(|_| ApduError::DataTooLong { length: data.len() })?;
        if let Some(le) = le
            && !(1..=0x1_0000).contains(&le)
        {
            return Err(ApduError::Le { le });
        }
        let extended = lc > 0xFF || le.is_some_and(|le| le > 0x100);
        let header = [cla, ins, p1, p2];

        let mut bytes = WipedBuffer::with_capacity(HEADER + 3 + data.len() + 3);
        bytes.extend(&header);
        let [lc_high, lc_low] = lc.to_be_bytes();
        // The coding drops what does not fit, so that 256 and 65,536 become 0.
        let [.., le_high, le_low] = le.unwrap_or(0).to_be_bytes();
        match (extended, lc) {
            (_, 0) => {}
            (false, _) => bytes.extend(&[lc_low]),
            (true, _) => bytes.extend(&[0, lc_high, lc_low]),
        }
        let start = bytes.len();
        bytes.extend(data);
        let end = bytes.len();
        match (extended, le) {
            (_, None) => {}
            (false, Some(_)) => bytes.extend(&[le_low]),
            (true, Some(_)) if lc == 0 => bytes.extend(&[0, le_high, le_low]),
            (true, Some(_)) => bytes.extend(&[le_high, le_low]),
        }
        Ok(Self { header, bytes, data: start..end, le, extended })
    }

    /// Reads one command of any case, short or extended.
    ///
    /// Lenient in one point: an extended Lc of zero followed by a two-byte Le, which some programs send in place of
    /// case 2, is taken as what they mean.
    ///
    /// # Errors
    /// [`ApduError::Truncated`] and [`ApduError::Lengths`]; a card answers both `67 00`.
    ///
    /// Spec: ISO/IEC 7816-3 section 12.1.3
    pub fn parse(bytes: &[u8]) -> Result<Self, ApduError> {
        Self::from_bytes(Zeroizing::new(bytes.to_vec()))
    }

    /// Reads one command without copying it, as [`Command::parse`] does.
    ///
    /// # Errors
    /// As [`Command::parse`]; the bytes are wiped then.
    pub fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Result<Self, ApduError> {
        let bytes = WipedBuffer::from(bytes);
        let length = bytes.len();
        let Some((&header, body)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(ApduError::Truncated { length });
        };
        let Lengths { lc_field, lc, le, extended } = Lengths::parse(body).ok_or(ApduError::Lengths { length })?;
        let start = HEADER + lc_field;
        Ok(Self { header, bytes, data: start..start + lc, le, extended })
    }

    /// The class byte, raw: with its chaining bit, secure messaging bits and channel.
    pub fn cla(&self) -> u8 {
        self.header[0]
    }

    /// The instruction.
    pub fn ins(&self) -> u8 {
        self.header[1]
    }

    /// The first parameter.
    pub fn p1(&self) -> u8 {
        self.header[2]
    }

    /// The second parameter.
    pub fn p2(&self) -> u8 {
        self.header[3]
    }

    /// The data field, empty when there is none.
    pub fn data(&self) -> &[u8] {
        self.bytes.get(self.data.clone()).unwrap_or_default()
    }

    /// Most bytes the sender takes as an answer: `None` without an Le field, else 1..=65,536.
    ///
    /// A coded 0 is 256 in a short command and 65,536 in an extended one.
    pub fn le(&self) -> Option<u32> {
        self.le
    }

    /// Whether the command was coded with extended lengths.
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// Whether more parts of the same logical command follow.
    ///
    /// Only interindustry classes have the chaining bit; in a proprietary class (80 to FE) and in the reserved ones
    /// (20 to 3F) the same bit means something else or nothing, so those commands are never parts of a chain.
    ///
    /// Spec: ISO/IEC 7816-4 section 5.4.1
    pub fn is_chained(&self) -> bool {
        let interindustry = self.cla() & 0xE0 == 0 || self.cla() & 0xC0 == 0x40;
        interindustry && self.cla() & CHAINED != 0
    }

    /// The command as sent, without a copy.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The command as sent, without a copy.
    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.bytes.into_bytes()
    }

    /// A copy of the command as sent.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.bytes.to_vec())
    }

    /// Splits a logical command into short parts with at most `size` bytes of data each (at most 255, at least 1), for
    /// a card that does not take extended lengths.
    ///
    /// All parts but the last carry the chaining bit and no Le. An Le above 256 becomes 256, the largest that a short
    /// command can ask for; the rest then comes by GET RESPONSE.
    ///
    /// Spec: ISO/IEC 7816-4 section 5.3.3
    pub fn parts(&self, size: usize) -> Parts<'_> {
        Parts { command: self, next: Some(0), size: size.clamp(1, 0xFF) }
    }

    pub(super) fn header(&self) -> [u8; HEADER] {
        self.header
    }

    /// The header that all parts of one logical command share: without the chaining bit.
    pub(super) fn logical_header(&self) -> [u8; HEADER] {
        let [cla, ins, p1, p2] = self.header();
        [if self.is_chained() { cla & !CHAINED } else { cla }, ins, p1, p2]
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [cla, ins, p1, p2] = self.header;
        f.debug_struct("Command")
            .field("header", &format_args!("{cla:02X} {ins:02X} {p1:02X} {p2:02X}"))
            .field("data_length", &self.data.len())
            .field("le", &self.le)
            .field("extended", &self.extended)
            .finish()
    }
}

/// The short commands that make up a logical one; see [`Command::parts`].
#[derive(Debug)]
pub struct Parts<'a> {
    command: &'a Command,
    /// Where the next part begins.
    next: Option<usize>,
    size: usize,
}

impl Iterator for Parts<'_> {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        let start = self.next.take()?;
        let rest = self.command.data().get(start..)?;
        let [cla, ins, p1, p2] = self.command.header();
        match rest.split_at_checked(self.size) {
            Some((part, more)) if !more.is_empty() => {
                self.next = Some(start + self.size);
                Command::new(cla | CHAINED, ins, p1, p2, part, None).ok()
            }
            _ => Command::new(cla, ins, p1, p2, rest, self.command.le.map(|le| le.min(0x100))).ok(),
        }
    }
}

/// What the bytes after the header say.
struct Lengths {
    /// Bytes of the Lc field.
    lc_field: usize,
    lc: usize,
    le: Option<u32>,
    extended: bool,
}

impl Lengths {
    fn parse(body: &[u8]) -> Option<Self> {
        let short = |lc_field, lc, le| Some(Self { lc_field, lc, le, extended: false });
        let extended = |lc_field, lc, le| Some(Self { lc_field, lc, le, extended: true });
        match *body {
            [] => short(0, 0, None),
            [le] => short(0, 0, Some(short_le(le))),
            [0, le_high, le_low] => extended(0, 0, Some(extended_le(le_high, le_low))),
            [0, lc_high, lc_low, ref rest @ ..] => {
                let lc = usize::from(u16::from_be_bytes([lc_high, lc_low]));
                match *rest.get(lc..)? {
                    // A zero Lc with nothing behind it is the three-byte Le above.
                    [] => extended(3, lc, None),
                    [le_high, le_low] => extended(3, lc, Some(extended_le(le_high, le_low))),
                    _ => None,
                }
            }
            [0, _] => None,
            [lc, ref rest @ ..] => {
                let lc = usize::from(lc);
                match *rest.get(lc..)? {
                    [] => short(1, lc, None),
                    [le] => short(1, lc, Some(short_le(le))),
                    _ => None,
                }
            }
        }
    }
}

fn short_le(le: u8) -> u32 {
    if le == 0 { 0x100 } else { u32::from(le) }
}

fn extended_le(high: u8, low: u8) -> u32 {
    match u16::from_be_bytes([high, low]) {
        0 => 0x1_0000,
        le => u32::from(le),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_no_command() {
        let refused: &[&[u8]] = &[
            &[],
            &[0x00, 0x20, 0x00],
            // Case 3 short with a byte too few and with two too many.
            &[0, 0x20, 0, 0x80, 3, 1, 2],
            &[0, 0x20, 0, 0x80, 1, 1, 2, 3],
            // A zero Lc has no short form.
            &[0, 0x20, 0, 0x80, 0, 0],
            // Extended: a byte too few, one too many, an Le of one byte, of three bytes.
            &[0, 0x20, 0, 0x80, 0, 0, 2, 1],
            &[0, 0x20, 0, 0x80, 0, 0, 2, 1, 2, 3],
            &[0, 0x20, 0, 0x80, 0, 0, 2, 1, 2, 0, 0, 0],
            // Short Lc with an extended Le.
            &[0, 0x20, 0, 0x80, 1, 9, 1, 0],
            &[0, 0x20, 0, 0x80, 1, 9, 0, 1, 0],
        ];
        for bytes in refused {
            assert!(Command::parse(bytes).is_err(), "{bytes:02X?}");
        }
        assert_eq!(Command::parse(&[0; 3]).unwrap_err(), ApduError::Truncated { length: 3 });
        assert_eq!(Command::new(0, 1, 2, 3, &[], Some(0)).unwrap_err(), ApduError::Le { le: 0 });
        assert_eq!(Command::new(0, 1, 2, 3, &[], Some(65537)).unwrap_err(), ApduError::Le { le: 65537 });
        let long = vec![0; 65536];
        assert_eq!(Command::new(0, 1, 2, 3, &long, None).unwrap_err(), ApduError::DataTooLong { length: 65536 });
    }

    #[test]
    fn reads_every_case() {
        type Row = (&'static [u8], &'static [u8], Option<u32>, bool);
        let rows: &[Row] = &[
            // The two ways to ask for the PIN's state differ, and stay different.
            (&[0x00, 0x20, 0x00, 0x80], &[], None, false),
            (&[0x00, 0x20, 0x00, 0x80, 0x00], &[], Some(256), false),
            (&[0, 0xCB, 0x3F, 0xFF, 8], &[], Some(8), false),
            (&[0, 0xCB, 0x3F, 0xFF, 3, 0x5C, 1, 0x7E], &[0x5C, 1, 0x7E], None, false),
            (&[0, 0xCB, 0x3F, 0xFF, 3, 0x5C, 1, 0x7E, 8], &[0x5C, 1, 0x7E], Some(8), false),
            (&[0, 0xCB, 0x3F, 0xFF, 3, 0x5C, 1, 0x7E, 0], &[0x5C, 1, 0x7E], Some(256), false),
            (&[0, 0xCB, 0x3F, 0xFF, 0, 0, 0], &[], Some(65536), true),
            (&[0, 0xCB, 0x3F, 0xFF, 0, 1, 0], &[], Some(256), true),
            (&[0, 0xCB, 0x3F, 0xFF, 0, 0, 1, 9], &[9], None, true),
            (&[0, 0xCB, 0x3F, 0xFF, 0, 0, 1, 9, 0, 0], &[9], Some(65536), true),
            (&[0, 0xCB, 0x3F, 0xFF, 0, 0, 1, 9, 1, 2], &[9], Some(0x0102), true),
            // Not a case of the standard, but sent by programs.
            (&[0, 0xCB, 0x3F, 0xFF, 0, 0, 0, 0, 5], &[], Some(5), true),
        ];
        for (bytes, data, le, extended) in rows {
            let command = Command::parse(bytes).unwrap();
            assert_eq!((command.data(), command.le(), command.is_extended()), (*data, *le, *extended), "{bytes:02X?}");
            assert_eq!(command.as_bytes(), *bytes);
            assert_eq!([command.cla(), command.ins(), command.p1(), command.p2()], bytes[..4]);
        }
    }

    #[test]
    fn knows_which_classes_chain() {
        for (cla, chained) in
            [(0x00, false), (0x10, true), (0x1C, true), (0x30, false), (0x50, true), (0x70, true), (0x90, false)]
        {
            assert_eq!(Command::new(cla, 0, 0, 0, &[], None).unwrap().is_chained(), chained, "{cla:02X}");
        }
    }

    #[test]
    fn debug_shows_no_data() {
        let command = Command::new(0, 0x20, 0, 0x80, b"123456\xFF\xFF", None).unwrap();
        let shown = format!("{command:?} {:?}", command.parts(3));
        assert!(shown.contains("00 20 00 80") && shown.contains("data_length: 8"), "{shown}");
        for secret in ["49, 50", "123456", "31, 32", "313233"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn parts_carry_the_chain() {
        let command = Command::new(0, 0xDB, 0x3F, 0xFF, &[7; 600], Some(65536)).unwrap();
        let parts: Vec<_> = command.parts(255).collect();
        let shape: Vec<_> = parts.iter().map(|part| (part.cla(), part.data().len(), part.le())).collect();
        assert_eq!(shape, [(0x10, 255, None), (0x10, 255, None), (0, 90, Some(256))]);
        assert!(parts.iter().all(|part| !part.is_extended()));

        let exact = Command::new(0, 0xDB, 0x3F, 0xFF, &[7; 510], None).unwrap();
        let shape: Vec<_> = exact.parts(255).map(|part| (part.cla(), part.data().len())).collect();
        assert_eq!(shape, [(0x10, 255), (0, 255)]);
        assert_eq!(Command::new(0, 1, 2, 3, &[], None).unwrap().parts(0).count(), 1);
    }

    fn command_bytes() -> impl Strategy<Value = Vec<u8>> {
        let well_formed =
            (
                any::<[u8; 4]>(),
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..300),
                    prop::collection::vec(any::<u8>(), 65_500..65_536),
                ],
                prop_oneof![Just(None), (1..=65_536u32).prop_map(Some), (1..=256u32).prop_map(Some)],
            )
                .prop_map(|([cla, ins, p1, p2], data, le)| {
                    Command::new(cla, ins, p1, p2, &data, le).unwrap().to_bytes().to_vec()
                });
        // Small values make the length fields agree with the length by chance often enough.
        let arbitrary = prop::collection::vec(prop_oneof![0..8u8, any::<u8>()], 0..20);
        prop_oneof![2 => well_formed, 3 => arbitrary]
    }

    proptest! {
        #[test]
        fn reads_what_iso7816_reads(bytes in command_bytes()) {
            // Class FF is refused by the oracle; here it is kept raw, and refused by `Chaining`.
            prop_assume!(bytes.first() != Some(&0xFF));
            let ours = Command::parse(&bytes);
            let oracle = iso7816::command::CommandView::try_from(&bytes[..]);
            prop_assert_eq!(ours.is_ok(), oracle.is_ok(), "{:?} {:?}", ours, oracle);
            if let (Ok(ours), Ok(oracle)) = (ours, oracle) {
                prop_assert_eq!(ours.cla(), oracle.class().into_inner());
                prop_assert_eq!(ours.ins(), u8::from(oracle.instruction()));
                prop_assert_eq!((ours.p1(), ours.p2()), (oracle.p1, oracle.p2));
                prop_assert_eq!(ours.data(), oracle.data());
                // The oracle cannot tell an absent Le; it calls it 0.
                prop_assert_eq!(ours.le().unwrap_or(0) as usize, oracle.expected());
                prop_assert_eq!(ours.is_extended(), oracle.extended);
                prop_assert_eq!(ours.as_bytes(), &bytes[..]);
            }
        }

        #[test]
        fn builds_what_iso7816_builds(
            [ins, p1, p2] in any::<[u8; 3]>(),
            data in prop::collection::vec(any::<u8>(), 0..600),
            le in prop_oneof![Just(0u16), 1..=256u16, any::<u16>()],
        ) {
            let class = iso7816::command::class::Class::try_from(0).unwrap();
            let oracle = iso7816::command::CommandBuilder::new(class, ins.into(), p1, p2, &data[..], le);
            let expected = oracle.serialize_to_vec();
            let le = (le != 0).then_some(u32::from(le));
            let ours = Command::new(0, ins, p1, p2, &data, le).unwrap();
            prop_assert_eq!(ours.as_bytes(), &expected[..]);
            let again = Command::parse(ours.as_bytes()).unwrap();
            prop_assert_eq!((again.data(), again.le()), (&data[..], le));
        }
    }
}
