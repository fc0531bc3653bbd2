//! BER-TLV data objects as smart cards use them: a borrowed reader and a nested writer.
//!
//! Tags are numbers that read like the standards print them: `0x5C`, `0x7F49`, `0x5FC105`.
//!
//! Spec: ISO/IEC 7816-4 section 5.2.2; ISO/IEC 8825-1 section 8.1

use core::fmt;

use zeroize::Zeroizing;

use crate::wipe::WipedBuffer;

/// Why bytes are not a sequence of data objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlvError {
    /// The bytes end inside of a tag, a length or a value.
    #[error("a data object ends too early")]
    Truncated,
    /// A tag of more than three bytes.
    #[error("a tag is longer than three bytes")]
    TagTooLong,
    /// An indefinite length, or a length field of more than four bytes.
    #[error("the length of a data object is coded in an unknown form ({first:#04x})")]
    LengthForm {
        /// The first byte of the length field.
        first: u8,
    },
    /// Another object stands where one with a certain tag had to.
    #[error("expected a data object with tag {expected:#x}")]
    UnexpectedTag {
        /// The tag that had to be there.
        expected: u32,
    },
    /// Bytes follow what had to be the last object.
    #[error("bytes follow the last data object")]
    TrailingBytes,
}

/// One data object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// The tag, all its bytes as one big-endian number.
    pub tag: u32,
    /// The value, without tag and length.
    pub value: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// Whether the value is itself a sequence of data objects, by bit 6 of the tag's first byte.
    pub fn is_constructed(&self) -> bool {
        let [_, a, b, c] = self.tag.to_be_bytes();
        let first = [a, b, c].into_iter().find(|byte| *byte != 0).unwrap_or(0);
        first & 0x20 != 0
    }

    /// Reads the objects inside of the value.
    pub fn nested(&self) -> Reader<'a> {
        Reader::new(self.value)
    }
}

impl fmt::Debug for Tlv<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tlv").field("tag", &format_args!("{:X}", self.tag)).field("length", &self.value.len()).finish()
    }
}

/// Reads data objects one after the other out of borrowed bytes.
///
/// Tags have 1 to 3 bytes; lengths the short form or 81 to 83, also where a shorter form would do. As an iterator it
/// ends after the first error.
#[derive(Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads the next object, whatever its tag.
    ///
    /// # Errors
    /// [`TlvError::Truncated`] also when nothing is left; the reader then stays where it is.
    pub fn read(&mut self) -> Result<Tlv<'a>, TlvError> {
        let (tag, rest) = read_tag(self.rest)?;
        let (length, rest) = read_length(rest)?;
        let (value, rest) = rest.split_at_checked(length).ok_or(TlvError::Truncated)?;
        self.rest = rest;
        Ok(Tlv { tag, value })
    }

    /// Reads the next object, which must have this tag, and gives its value.
    ///
    /// # Errors
    /// [`TlvError::UnexpectedTag`] for another tag and at the end; the reader then stays where it is.
    pub fn read_value(&mut self, tag: u32) -> Result<&'a [u8], TlvError> {
        self.read_value_if(tag)?.ok_or(TlvError::UnexpectedTag { expected: tag })
    }

    /// Reads the next object if it has this tag; `None` for another tag and at the end.
    ///
    /// # Errors
    /// What [`Reader::read`] finds wrong with the next object.
    pub fn read_value_if(&mut self, tag: u32) -> Result<Option<&'a [u8]>, TlvError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut ahead = self.clone();
        let object = ahead.read()?;
        if object.tag != tag {
            return Ok(None);
        }
        *self = ahead;
        Ok(Some(object.value))
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`TlvError::TrailingBytes`].
    pub fn finish(self) -> Result<(), TlvError> {
        if self.rest.is_empty() { Ok(()) } else { Err(TlvError::TrailingBytes) }
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Tlv<'a>, TlvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let object = self.read();
        if object.is_err() {
            self.rest = &[];
        }
        Some(object)
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("rest", &self.rest.len()).finish()
    }
}

/// Finds the first object with this tag among the outermost ones.
///
/// # Errors
/// The first fault, wherever it is: bytes that are not a sequence of objects to their end are never half understood.
pub fn find(bytes: &[u8], tag: u32) -> Result<Option<&[u8]>, TlvError> {
    let mut found = None;
    for object in Reader::new(bytes) {
        let object = object?;
        if found.is_none() && object.tag == tag {
            found = Some(object.value);
        }
    }
    Ok(found)
}

/// Gives the value of the one object with this tag that `bytes` consist of, without anything behind it.
///
/// # Errors
/// [`TlvError::UnexpectedTag`], [`TlvError::TrailingBytes`], and what [`Reader::read`] finds.
pub fn only(bytes: &[u8], tag: u32) -> Result<&[u8], TlvError> {
    let mut reader = Reader::new(bytes);
    let value = reader.read_value(tag)?;
    reader.finish()?;
    Ok(value)
}

fn read_tag(bytes: &[u8]) -> Result<(u32, &[u8]), TlvError> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |tag, byte| tag << 8 | u32::from(*byte));
    let more = |byte: u8| byte & 0x80 != 0;
    match bytes {
        [first, rest @ ..] if first & 0x1F != 0x1F => Ok((u32::from(*first), rest)),
        [first, second, rest @ ..] if !more(*second) => Ok((number(&[*first, *second]), rest)),
        [first, second, third, rest @ ..] if !more(*third) => Ok((number(&[*first, *second, *third]), rest)),
        [_, _, _, ..] => Err(TlvError::TagTooLong),
        _ => Err(TlvError::Truncated),
    }
}

fn read_length(bytes: &[u8]) -> Result<(usize, &[u8]), TlvError> {
    let (first, rest) = bytes.split_first().ok_or(TlvError::Truncated)?;
    let count = match *first {
        length @ ..=0x7F => return Ok((usize::from(length), rest)),
        0x81 => 1,
        0x82 => 2,
        0x83 => 3,
        first => return Err(TlvError::LengthForm { first }),
    };
    let (length, rest) = rest.split_at_checked(count).ok_or(TlvError::Truncated)?;
    Ok((length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest))
}

/// Writes data objects with minimal lengths into a buffer that is wiped.
///
/// ```
/// use pocketcard_protocol::tlv::Writer;
///
/// let mut writer = Writer::new();
/// writer.nest(0x7C, |inner| {
///     inner.put(0x82, &[]);
///     inner.put(0x81, b"challenge");
/// });
/// assert_eq!(&writer.into_bytes()[..6], [0x7C, 13, 0x82, 0, 0x81, 9]);
/// ```
#[derive(Default)]
pub struct Writer {
    buffer: WipedBuffer,
}

impl Writer {
    /// Starts with nothing written.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes one object.
    ///
    /// - `tag`: a number whose bytes are a BER tag of at most three bytes; it is written as it is.
    /// - `value`: at most 16 MiB, the longest that the reader takes.
    pub fn put(&mut self, tag: u32, value: &[u8]) -> &mut Self {
        self.write_tag(tag);
        let (length, count) = length_field(value.len());
        self.buffer.extend(length.get(..count).unwrap_or(&length));
        self.buffer.extend(value);
        self
    }

    /// Writes one object around what `content` writes.
    pub fn nest(&mut self, tag: u32, content: impl FnOnce(&mut Self)) -> &mut Self {
        self.write_tag(tag);
        let start = self.buffer.len();
        content(self);
        let (length, count) = length_field(self.buffer.len().saturating_sub(start));
        self.buffer.insert(start, length.get(..count).unwrap_or(&length));
        self
    }

    /// Writes bytes that are data objects already, or the inside of one that is none.
    pub fn put_raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend(bytes);
        self
    }

    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// All that was written.
    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.buffer.into_bytes()
    }

    fn write_tag(&mut self, tag: u32) {
        let bytes = tag.to_be_bytes();
        let zeros = bytes.iter().take(3).take_while(|byte| **byte == 0).count();
        self.buffer.extend(bytes.get(zeros..).unwrap_or_default());
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("length", &self.buffer.len()).finish()
    }
}

/// The shortest length field, and how many of the bytes it has.
fn length_field(length: usize) -> ([u8; 5], usize) {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    match length {
        0..=0x7F => ([d, 0, 0, 0, 0], 1),
        0x80..=0xFF => ([0x81, d, 0, 0, 0], 2),
        0x100..=0xFFFF => ([0x82, c, d, 0, 0], 3),
        0x1_0000..=0xFF_FFFF => ([0x83, b, c, d, 0], 4),
        _ => ([0x84, a, b, c, d], 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_no_object() {
        let rows: &[(&[u8], TlvError)] = &[
            (&hex!("5C"), TlvError::Truncated),
            (&hex!("5C 02 01"), TlvError::Truncated),
            (&hex!("5F"), TlvError::Truncated),
            (&hex!("5F C1"), TlvError::Truncated),
            (&hex!("5F C1 85"), TlvError::TagTooLong),
            (&hex!("5F C1 85 01 00"), TlvError::TagTooLong),
            (&hex!("53 80 00 00"), TlvError::LengthForm { first: 0x80 }),
            (&hex!("53 84 00 00 00 01 00"), TlvError::LengthForm { first: 0x84 }),
            (&hex!("53 FF"), TlvError::LengthForm { first: 0xFF }),
            (&hex!("53 81"), TlvError::Truncated),
            (&hex!("53 82 01"), TlvError::Truncated),
            (&hex!("53 83 FF FF FF 00"), TlvError::Truncated),
        ];
        for (bytes, error) in rows {
            assert_eq!(Reader::new(bytes).read(), Err(*error), "{bytes:02X?}");
            assert_eq!(Reader::new(bytes).collect::<Vec<_>>(), [Err(*error)], "{bytes:02X?}");
            assert_eq!(find(bytes, 0x99), Err(*error), "{bytes:02X?}");
        }
        assert_eq!(Reader::new(&[]).read(), Err(TlvError::Truncated));
        // A fault behind what was looked for is still a fault.
        assert_eq!(find(&hex!("5C 00 53"), 0x5C), Err(TlvError::Truncated));
        assert_eq!(only(&hex!("5C 00 53 00"), 0x5C), Err(TlvError::TrailingBytes));
        assert_eq!(only(&hex!("53 00"), 0x5C), Err(TlvError::UnexpectedTag { expected: 0x5C }));
        assert_eq!(only(&[], 0x5C), Err(TlvError::UnexpectedTag { expected: 0x5C }));
    }

    #[test]
    fn reads_tags_and_lengths_of_every_form() {
        let rows: &[(&[u8], u32, &[u8])] = &[
            (&hex!("5C 00"), 0x5C, &[]),
            (&hex!("7E 01 AA"), 0x7E, &[0xAA]),
            (&hex!("5F50 01 AA"), 0x5F50, &[0xAA]),
            (&hex!("7F49 01 AA"), 0x7F49, &[0xAA]),
            (&hex!("5FC105 01 AA"), 0x5F_C105, &[0xAA]),
            // Not minimal, and accepted.
            (&hex!("53 81 01 AA"), 0x53, &[0xAA]),
            (&hex!("53 82 0001 AA"), 0x53, &[0xAA]),
            (&hex!("53 83 000001 AA"), 0x53, &[0xAA]),
        ];
        for (bytes, tag, value) in rows {
            assert_eq!(Reader::new(bytes).read(), Ok(Tlv { tag: *tag, value }), "{bytes:02X?}");
            assert_eq!(only(bytes, *tag), Ok(*value));
        }
    }

    #[test]
    fn walks_a_sequence() {
        let bytes = hex!("5C 03 5FC105 53 02 70 00");
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.read_value(0x53), Err(TlvError::UnexpectedTag { expected: 0x53 }));
        assert_eq!(reader.read_value(0x5C), Ok(&hex!("5FC105")[..]));
        assert_eq!(reader.read_value_if(0x5C), Ok(None));
        assert_eq!(reader.rest(), &hex!("53 02 70 00"));
        let object = reader.read().unwrap();
        assert_eq!(only(object.value, 0x70), Ok(&[][..]));
        assert_eq!(reader.read_value_if(0x5C), Ok(None));
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(find(&bytes, 0x53), Ok(Some(&hex!("70 00")[..])));
        assert_eq!(find(&bytes, 0x70), Ok(None));
        for (tag, constructed) in [(0x7C, true), (0x5C, false), (0x7F49, true), (0x5F_C105, false), (0xAC, true)] {
            assert_eq!(Tlv { tag, value: &[] }.is_constructed(), constructed, "{tag:X}");
        }
    }

    #[test]
    fn lengths_are_minimal() {
        for (length, field) in [
            (0, &hex!("00")[..]),
            (0x7F, &hex!("7F")),
            (0x80, &hex!("81 80")),
            (0xFF, &hex!("81 FF")),
            (0x100, &hex!("82 0100")),
            (0xFFFF, &hex!("82 FFFF")),
            (0x10000, &hex!("83 010000")),
        ] {
            let value = vec![9; length];
            let mut put = Writer::new();
            put.put(0x53, &value);
            let mut nested = Writer::new();
            nested.put(0x5C, &[1]).nest(0x53, |writer| {
                writer.put_raw(&value);
            });
            let (put, nested) = (put.into_bytes(), nested.into_bytes());
            assert_eq!(put[1..=field.len()], *field);
            assert_eq!(nested[3..], put[..]);
            assert_eq!(only(&put, 0x53), Ok(&value[..]));
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let mut writer = Writer::new();
        writer.put(0x80, b"\xAB\xAB");
        assert_eq!(format!("{writer:?}"), "Writer { length: 4 }");
        let bytes = writer.into_bytes();
        let reader = Reader::new(&bytes);
        assert_eq!(format!("{reader:?}"), "Reader { rest: 4 }");
        assert_eq!(format!("{:?}", reader.clone().read().unwrap()), "Tlv { tag: 80, length: 2 }");
    }

    /// A tree of objects with every form of tag.
    #[derive(Clone, Debug, PartialEq)]
    enum Object {
        Leaf(u32, Vec<u8>),
        Node(u32, Vec<Object>),
    }

    impl Object {
        fn write(&self, writer: &mut Writer) {
            match self {
                Self::Leaf(tag, value) => writer.put(*tag, value),
                Self::Node(tag, inner) => writer.nest(*tag, |w| inner.iter().for_each(|object| object.write(w))),
            };
        }

        fn read_all(bytes: &[u8]) -> Vec<Self> {
            Reader::new(bytes)
                .map(|object| {
                    let object = object.unwrap();
                    if object.is_constructed() {
                        Self::Node(object.tag, Self::read_all(object.value))
                    } else {
                        Self::Leaf(object.tag, object.value.to_vec())
                    }
                })
                .collect()
        }
    }

    fn object() -> impl Strategy<Value = Object> {
        let tags = |tags: &'static [u32]| prop::sample::select(tags);
        let leaf = (tags(&[0x01, 0x5C, 0x80, 0x9E, 0x5F50, 0x5F_C105]), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(tag, value)| Object::Leaf(tag, value));
        leaf.prop_recursive(4, 32, 4, move |inner| {
            (tags(&[0x30, 0x61, 0x7C, 0xAC, 0x7F49, 0x7F_C105]), prop::collection::vec(inner, 0..4))
                .prop_map(|(tag, inner)| Object::Node(tag, inner))
        })
    }

    proptest! {
        #[test]
        fn writes_what_it_reads(objects in prop::collection::vec(object(), 0..4)) {
            let mut writer = Writer::new();
            objects.iter().for_each(|object| object.write(&mut writer));
            let length = writer.len();
            let bytes = writer.into_bytes();
            prop_assert_eq!(bytes.len(), length);
            prop_assert_eq!(Object::read_all(&bytes), objects);
        }

        #[test]
        fn reads_like_iso7816(
            tag in prop::sample::select(&[0x5Cu16, 0x7C, 0x5F50, 0x7F49][..]),
            value in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut writer = Writer::new();
            writer.put(u32::from(tag), &value);
            let bytes = writer.into_bytes();
            let oracle_tag = iso7816::tlv::Tag::from(tag);
            let (oracle_read, oracle, rest) = iso7816::tlv::take_data_object(&bytes).unwrap();
            prop_assert_eq!((oracle_read, oracle, rest), (oracle_tag, &value[..], &[][..]));
        }

        #[test]
        fn never_goes_past_the_end(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            let mut read = 0;
            while let Ok(object) = reader.read() {
                let consumed = bytes.len() - read - reader.rest().len();
                prop_assert!(consumed >= 2 + object.value.len() && consumed <= 7 + object.value.len());
                read += consumed;
                let ends_before_rest = bytes[..read].ends_with(object.value);
                prop_assert!(ends_before_rest);
            }
        }
    }
}
