//! What a card says to everybody at any time, in one piece, so that a host can say it in the card's place.
//!
//! A [`Snapshot`] is one canonical byte string and the digest over it. The phone makes it, the host loads it from the
//! phone or from its disk; both go through the same code, so a digest that is equal means answers that are equal.
//!
//! Spec: SPEC.md section 7.7

use core::fmt;
use core::ops::Range;

use sha2::{Digest as _, Sha256};

use crate::messages::DIGEST_LENGTH;

/// Longest encoding of a snapshot. A card whose public objects are longer has none.
pub const SNAPSHOT_LIMIT: usize = 272 * 1024;

/// Most of a snapshot that one message carries: little enough that an answer behind it does not wait for long.
pub const PAGE_LIMIT: usize = 8 * 1024;

/// Most objects in a snapshot.
pub const OBJECTS_LIMIT: usize = 256;

/// First byte of every snapshot: the version of the encoding.
const ENCODING: u8 = 1;

/// Shortest and longest application identifier, ISO/IEC 7816-4 section 12.2.3.
const IDENTIFIER_LENGTHS: core::ops::RangeInclusive<usize> = 5..=16;

const ALWAYS: u8 = 0;
const PIN: u8 = 1;

/// Why bytes are no snapshot, or objects make none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Longer than [`SNAPSHOT_LIMIT`], more objects than [`OBJECTS_LIMIT`], or a part that is longer than its field
    /// can say.
    #[error("a snapshot is longer than its limits")]
    TooLong,
    /// The bytes end too early, or too late.
    #[error("a snapshot ends in the wrong place")]
    Length,
    /// An encoding of another version.
    #[error("a snapshot in an unknown encoding ({version})")]
    Encoding {
        /// Its first byte.
        version: u8,
    },
    /// Parts that are not in the one order, or not in the one form, in which they may be written.
    #[error("a snapshot that is not canonical")]
    NotCanonical,
}

/// SHA-256 over a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotDigest([u8; DIGEST_LENGTH]);

impl SnapshotDigest {
    /// Reads the field of a message; `None` if it is empty, or no digest.
    #[must_use]
    pub fn from_field(field: &[u8]) -> Option<Self> {
        field.try_into().map(Self).ok()
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; DIGEST_LENGTH] {
        &self.0
    }

    /// As a field of a message.
    #[must_use]
    pub fn to_field(self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn of(encoding: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"pocketcard v1 snapshot");
        hasher.update(encoding);
        Self(hasher.finalize().into())
    }
}

impl fmt::Debug for SnapshotDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a card answers without any object, the same to everybody.
#[derive(Clone, Copy, Debug)]
pub struct Profile<'a> {
    /// Data of the answer to a SELECT of the default application, the one that is selected after a reset.
    pub template: &'a [u8],
    /// Identifiers of all applications in the order in which a SELECT looks for them, the default one first.
    pub applications: &'a [&'a [u8]],
    /// The instructions that the default application knows, ascending.
    pub instructions: &'a [u8],
    /// Data of the answer to GET VERSION; empty to have it asked for.
    pub version: &'a [u8],
    /// Data of the answer to GET SERIAL; empty to have it asked for.
    pub serial: &'a [u8],
}

/// Who may read an object, and what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object<T> {
    /// Everybody, at any time: the data of the answer to GET DATA.
    Always(T),
    /// Whoever has verified the PIN; nothing is said of its content, nor whether it has any.
    Pin,
}

/// A snapshot of one state of a card.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    encoding: Vec<u8>,
    digest: SnapshotDigest,
    template: Range<usize>,
    applications: Vec<Range<usize>>,
    instructions: Range<usize>,
    version: Range<usize>,
    serial: Range<usize>,
    /// Ascending by tag.
    objects: Vec<(u32, Object<Range<usize>>)>,
}

impl Snapshot {
    /// Encodes what a card has to say.
    ///
    /// - `objects`: ascending by tag, each tag a number of one to three bytes as it is written; without those that
    ///   nobody wrote and that everybody may read.
    ///
    /// # Errors
    /// [`SnapshotError::TooLong`] if there is too much of it, [`SnapshotError::NotCanonical`] if it is out of order.
    pub fn new<T: AsRef<[u8]>>(profile: &Profile<'_>, objects: &[(u32, Object<T>)]) -> Result<Self, SnapshotError> {
        let mut writer = Writer(vec![ENCODING]);
        writer.field::<2>(profile.template)?;
        writer.count::<1>(profile.applications.len())?;
        for identifier in profile.applications {
            writer.field::<1>(identifier)?;
        }
        for part in [profile.instructions, profile.version, profile.serial] {
            writer.field::<1>(part)?;
        }
        writer.count::<2>(objects.len())?;
        for (tag, object) in objects {
            writer.count::<3>(usize::try_from(*tag).unwrap_or(usize::MAX))?;
            let (rule, content) = match object {
                Object::Always(content) => (ALWAYS, content.as_ref()),
                Object::Pin => (PIN, [].as_slice()),
            };
            writer.0.push(rule);
            writer.field::<2>(content)?;
        }
        Self::from_bytes(writer.0)
    }

    /// Reads a snapshot, and computes its digest.
    ///
    /// # Errors
    /// [`SnapshotError`]: there is one encoding of each snapshot and nothing else is taken.
    pub fn from_bytes(encoding: Vec<u8>) -> Result<Self, SnapshotError> {
        if encoding.len() > SNAPSHOT_LIMIT {
            return Err(SnapshotError::TooLong);
        }
        let mut reader = Reader { bytes: &encoding, at: 0 };
        let version = reader.count::<1>()?;
        if version != usize::from(ENCODING) {
            return Err(SnapshotError::Encoding { version: u8::try_from(version).unwrap_or(u8::MAX) });
        }
        let template = reader.field::<2>()?;
        let mut applications = Vec::new();
        for _ in 0..reader.count::<1>()? {
            let identifier = reader.field::<1>()?;
            canonical(IDENTIFIER_LENGTHS.contains(&identifier.len()))?;
            applications.push(identifier);
        }
        canonical(!applications.is_empty())?;
        let instructions = reader.field::<1>()?;
        canonical(reader.part(&instructions).is_sorted_by(|a, b| a < b))?;
        let (version, serial) = (reader.field::<1>()?, reader.field::<1>()?);
        let count = reader.count::<2>()?;
        if count > OBJECTS_LIMIT {
            return Err(SnapshotError::TooLong);
        }
        let mut objects = Vec::with_capacity(count);
        let mut last = 0;
        for _ in 0..count {
            let tag = u32::try_from(reader.count::<3>()?).unwrap_or(u32::MAX);
            canonical(tag > last)?;
            last = tag;
            let object = match (reader.count::<1>()?, reader.field::<2>()?) {
                (0, content) if !content.is_empty() => Object::Always(content),
                (1, content) if content.is_empty() => Object::Pin,
                _ => return Err(SnapshotError::NotCanonical),
            };
            objects.push((tag, object));
        }
        if reader.at != encoding.len() {
            return Err(SnapshotError::Length);
        }
        let digest = SnapshotDigest::of(&encoding);
        Ok(Self { encoding, digest, template, applications, instructions, version, serial, objects })
    }

    /// What tells it from every other.
    #[must_use]
    pub const fn digest(&self) -> SnapshotDigest {
        self.digest
    }

    /// Its encoding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoding
    }

    /// At most [`PAGE_LIMIT`] bytes of the encoding from `offset` on; empty from its end on.
    #[must_use]
    pub fn page(&self, offset: usize) -> &[u8] {
        let rest = self.encoding.get(offset..).unwrap_or_default();
        rest.get(..PAGE_LIMIT).unwrap_or(rest)
    }

    /// Data of the answer to a SELECT of the default application.
    #[must_use]
    pub fn template(&self) -> &[u8] {
        self.part(&self.template)
    }

    /// Which application a SELECT by `name` finds: 0 is the default one; `None` if the card has none of that name.
    #[must_use]
    pub fn application(&self, name: &[u8]) -> Option<usize> {
        self.applications.iter().position(|identifier| self.part(identifier).starts_with(name))
    }

    /// Whether the default application has an instruction.
    #[must_use]
    pub fn knows(&self, instruction: u8) -> bool {
        self.part(&self.instructions).binary_search(&instruction).is_ok()
    }

    /// Data of the answer to GET VERSION; empty if it has to be asked for.
    #[must_use]
    pub fn version(&self) -> &[u8] {
        self.part(&self.version)
    }

    /// Data of the answer to GET SERIAL; empty if it has to be asked for.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        self.part(&self.serial)
    }

    /// The object with this tag; `None` if everybody may read it and nobody wrote it.
    #[must_use]
    pub fn object(&self, tag: u32) -> Option<Object<&[u8]>> {
        let at = self.objects.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        Some(match &self.objects.get(at)?.1 {
            Object::Always(content) => Object::Always(self.part(content)),
            Object::Pin => Object::Pin,
        })
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.encoding.get(range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (objects, length) = (self.objects.len(), self.encoding.len());
        write!(f, "Snapshot({:?}, {objects} objects, {length} bytes)", self.digest)
    }
}

const fn canonical(condition: bool) -> Result<(), SnapshotError> {
    if condition { Ok(()) } else { Err(SnapshotError::NotCanonical) }
}

/// Writes numbers of `N` bytes, and byte strings after their lengths.
struct Writer(Vec<u8>);

impl Writer {
    fn count<const N: usize>(&mut self, count: usize) -> Result<(), SnapshotError> {
        let bytes = count.to_be_bytes();
        let (high, low) = bytes.split_at(bytes.len() - N);
        if high.iter().any(|byte| *byte != 0) {
            return Err(SnapshotError::TooLong);
        }
        self.0.extend_from_slice(low);
        Ok(())
    }

    fn field<const N: usize>(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.count::<N>(bytes.len())?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads what [`Writer`] writes, as ranges.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Result<Range<usize>, SnapshotError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(SnapshotError::Length)?;
        Ok(core::mem::replace(&mut self.at, end)..end)
    }

    fn count<const N: usize>(&mut self) -> Result<usize, SnapshotError> {
        let range = self.take(N)?;
        Ok(self.part(&range).iter().fold(0, |count, byte| count << 8 | usize::from(*byte)))
    }

    fn field<const N: usize>(&mut self) -> Result<Range<usize>, SnapshotError> {
        let length = self.count::<N>()?;
        self.take(length)
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
