//! What the platform provides to the phone core. `StateStore` and `Entropy` are synchronous, because the card does not
//! answer before they return; the others are asynchronous, because a person, a chip or a timer takes its time.

use std::fmt;

use async_trait::async_trait;
pub use pocketcard_protocol::entropy::{Entropy, EntropyError};
use pocketcard_protocol::time::Timestamp;
use zeroize::Zeroizing;

/// A paired host, named by its static public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId([u8; 32]);

impl HostId {
    /// The name of the host with this static public key.
    pub const fn new(public_key: [u8; 32]) -> Self {
        Self(public_key)
    }

    /// The host's static public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hexadecimal digits, as [`fmt::Display`] writes them.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut key = [0_u8; 32];
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(key))
    }
}

impl From<[u8; 32]> for HostId {
    fn from(public_key: [u8; 32]) -> Self {
        Self(public_key)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(formatter, "HostId({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// One change of a [`Batch`]. A value of `None` deletes the entry.
pub struct BatchEntry {
    /// Name of the entry, `namespace/name`.
    pub key: String,
    /// The new value; `None` deletes.
    pub value: Option<Zeroizing<Vec<u8>>>,
}

/// Changes that become durable together or not at all. Later changes of a key win over earlier ones. Values are wiped.
#[derive(Default)]
pub struct Batch {
    entries: Vec<BatchEntry>,
}

impl Batch {
    /// A batch that changes nothing.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Stores `value` under `key`.
    pub fn put(&mut self, key: &str, value: &[u8]) {
        self.entries.push(BatchEntry { key: key.to_owned(), value: Some(Zeroizing::new(value.to_vec())) });
    }

    /// Deletes `key`; it is no error if there is none.
    pub fn delete(&mut self, key: &str) {
        self.entries.push(BatchEntry { key: key.to_owned(), value: None });
    }

    /// Whether the batch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The changes in the order in which they were made.
    pub fn entries(&self) -> &[BatchEntry] {
        &self.entries
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.entries.iter().map(|entry| (&entry.key, entry.value.is_some()))).finish()
    }
}

/// The state could not be read or made durable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open.
    #[error("the phone's state is in use by another process; end that process first")]
    InUse,
    /// Other users may enter the folder of the store, or it belongs to somebody else.
    #[error(
        "the folder of the phone's state is open to other users; choose a new folder, or make it yours alone (chmod 700)"
    )]
    FolderNotPrivate,
    /// The store's file or folder could not be used.
    #[error("the phone's state could not be read or written")]
    Io(#[source] std::io::Error),
    /// The file is not a store of ours or is damaged.
    #[error("the phone's state is damaged or was written by a newer version")]
    Damaged,
    /// The store failed once and takes no more changes until it is opened again.
    #[error("the phone's state can no longer be written")]
    Failed,
}

/// The name of an entry, and its value.
pub type StateEntry = (String, Zeroizing<Vec<u8>>);

/// Durable state. Namespaces: `piv/` belongs to the card, `host/` and `identity/` to the runtime, `key/` to the software key store.
pub trait StateStore: Send + Sync {
    /// Every entry.
    ///
    /// # Errors
    /// [`StoreError`] if the entries cannot be read; the phone then does not start.
    fn load(&self) -> Result<Vec<StateEntry>, StoreError>;

    /// Makes all changes of `batch` durable, together: after a crash either all of them are there or none. Returns only when
    /// they would survive a loss of power.
    ///
    /// # Errors
    /// [`StoreError`]; the changes may or may not be there after the next start, and the card refuses what depended on them.
    fn commit(&self, batch: Batch) -> Result<(), StoreError>;
}

/// An algorithm of a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KeyAlgorithm {
    /// ECDSA and ECDH on P-256.
    EccP256,
    /// ECDSA and ECDH on P-384.
    EccP384,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
}

/// Names a private key inside a [`KeyStore`]; opaque to everybody else.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHandle(Vec<u8>);

impl KeyHandle {
    /// The handle with these bytes.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes as stored in the card's state.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyHandle(")?;
        self.0.iter().take(4).try_for_each(|byte| write!(formatter, "{byte:02x}"))?;
        formatter.write_str("..)")
    }
}

/// The public half of a generated key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublicKeyData {
    /// A point of the curve that the algorithm names.
    Ecc {
        /// `04 || X || Y`.
        point: Vec<u8>,
    },
    /// An RSA key; both numbers big endian, without leading zeros.
    Rsa {
        /// The modulus.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: Vec<u8>,
    },
}

/// Why a private-key operation did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyStoreError {
    /// The store cannot hold or use a key of this algorithm.
    #[error("the key store does not know this algorithm")]
    UnsupportedAlgorithm,
    /// There is no key with this handle.
    #[error("the key is not in the key store")]
    UnknownKey,
    /// The input has a wrong length, or is a point that is not on the curve.
    #[error("the input does not fit the key")]
    InvalidInput,
    /// The owner declined, or the platform refused for now (phone locked, biometrics failed).
    #[error("the platform refused the use of the key")]
    Refused,
    /// The key is there but can no longer be used (device key lost, biometrics re-enrolled).
    #[error("the key can no longer be used")]
    Unusable,
    /// The platform's key store failed.
    #[error("the key store failed")]
    Failed,
}

/// Private keys and the operations with them. A key never leaves the store.
///
/// Every method may be cancelled by dropping its future; the operation may then have happened or not.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// The algorithms that [`KeyStore::generate`] accepts.
    fn algorithms(&self) -> Vec<KeyAlgorithm>;

    /// Whether the keys are held by hardware that people rely on; the virtual phone's `--auto-approve` refuses such a store.
    fn is_hardware(&self) -> bool {
        true
    }

    /// Generates a key; when this returns it is durable. A key that no state names is swept at the next start.
    ///
    /// # Errors
    /// [`KeyStoreError`]
    async fn generate(&self, algorithm: KeyAlgorithm) -> Result<(KeyHandle, PublicKeyData), KeyStoreError>;

    /// Signs. Elliptic curves: `input` is the digest, already exactly as long as the field; the result is a DER signature
    /// (ECDSA-Sig-Value). RSA: the raw private-key operation on exactly one modulus length, already padded.
    ///
    /// # Errors
    /// [`KeyStoreError`]
    async fn sign(
        &self,
        key: &KeyHandle,
        algorithm: KeyAlgorithm,
        input: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError>;

    /// The raw RSA private-key operation on exactly one modulus length; the padding is not removed.
    ///
    /// # Errors
    /// [`KeyStoreError`]
    async fn decrypt(
        &self,
        key: &KeyHandle,
        algorithm: KeyAlgorithm,
        input: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError>;

    /// The X coordinate of the Diffie-Hellman result with `peer_point` (`04 || X || Y`), as long as the field.
    ///
    /// # Errors
    /// [`KeyStoreError::InvalidInput`] if the point is not on the curve.
    async fn agree(
        &self,
        key: &KeyHandle,
        algorithm: KeyAlgorithm,
        peer_point: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError>;

    /// Destroys a key; one that is not there is no error.
    ///
    /// # Errors
    /// [`KeyStoreError`]
    async fn delete(&self, key: &KeyHandle) -> Result<(), KeyStoreError>;

    /// Every key of this store, so that the runtime can destroy those that nothing names.
    ///
    /// # Errors
    /// [`KeyStoreError`]
    async fn handles(&self) -> Result<Vec<KeyHandle>, KeyStoreError>;
}

/// The device key could not seal or open something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealingError {
    /// The bytes were not sealed by this device for this context.
    #[error("the sealed data does not belong to this device or is damaged")]
    Rejected,
    /// The platform refused for now, for example because the phone is locked.
    #[error("the device key is not available now")]
    Unavailable,
}

/// Seals bytes with a key that does not leave the device (Keychain, Keystore; a file of mode 0600 on the desktop).
#[async_trait]
pub trait SealingKey: Send + Sync {
    /// Seals `plain`; only [`SealingKey::unseal`] with the same `context` on this device opens it.
    ///
    /// # Errors
    /// [`SealingError`]
    async fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealingError>;

    /// Opens what [`SealingKey::seal`] made.
    ///
    /// # Errors
    /// [`SealingError`]
    async fn unseal(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealingError>;
}

/// What the owner is asked to approve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApprovalPurpose {
    /// A signature, or an authentication by one.
    Sign,
    /// A decryption.
    Decrypt,
    /// A key agreement.
    Agree,
    /// Management of the card: writing objects, making and deleting keys, or making the whole card new.
    Administer,
    /// To have the card in the host's reader, as long as it stays connected.
    Connect,
}

/// A question to the owner. Nothing in it but the host's name (stripped of control characters) comes from the computer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRequest {
    /// The host that asks.
    pub host: HostId,
    /// Its name as stored when it was paired.
    pub host_name: String,
    /// The key reference that would be used, such as `0x9A`.
    pub key: u8,
    /// What for.
    pub purpose: ApprovalPurpose,
    /// SHA-256 of the input, so that an approval can never serve another operation.
    pub input_digest: [u8; 32],
}

/// The owner's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApprovalDecision {
    /// Do it, this once.
    Approved,
    /// Do not.
    Denied,
    /// Nobody answered, or the question could not be shown.
    Unanswered,
}

/// What a secret is entered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PinPurpose {
    /// The PIN, to open the keys that it protects.
    Verify,
    /// The PIN, and a new one twice.
    Change,
    /// The PUK, and a new one twice.
    ChangePuk,
    /// The PUK, and a new PIN twice.
    Unblock,
}

impl PinPurpose {
    /// Whether a new value is entered too.
    pub const fn asks_for_new(self) -> bool {
        !matches!(self, Self::Verify)
    }
}

/// Asks the owner to enter a secret. Nothing in it but the host's name (stripped of control characters) comes from the computer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRequest {
    /// The host that asks.
    pub host: HostId,
    /// Its name as stored when it was paired.
    pub host_name: String,
    /// What for.
    pub purpose: PinPurpose,
    /// Tries left of the secret that is asked first; on the phone itself all of them are the owner's.
    pub tries_left: u8,
}

/// What the owner entered. `Debug` shows nothing of it; wiped when dropped.
pub struct EnteredPin {
    /// The PIN or PUK of now.
    pub current: Zeroizing<String>,
    /// The new one, where [`PinPurpose::asks_for_new`].
    pub new: Option<NewPin>,
}

impl fmt::Debug for EnteredPin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.new.is_some() { "EnteredPin(with a new one)" } else { "EnteredPin" })
    }
}

/// A new PIN or PUK, entered twice; the card compares the two.
pub struct NewPin {
    /// As entered first.
    pub value: Zeroizing<String>,
    /// As entered again.
    pub repeated: Zeroizing<String>,
}

impl fmt::Debug for NewPin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("NewPin")
    }
}

/// How the entry of a secret ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum PinAnswer {
    /// The owner entered it.
    Entered(EnteredPin),
    /// The owner does not want to.
    Cancelled,
    /// Nobody answered, or the prompt could not be shown.
    Unanswered,
}

/// Asks whether the person at the phone is its owner, by what the platform has for that (face, fingerprint).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerCheck {
    /// The host that asks.
    pub host: HostId,
    /// Its name as stored when it was paired.
    pub host_name: String,
}

/// How an [`OwnerCheck`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnerDecision {
    /// It is the owner.
    Matched,
    /// It is somebody else, or the sensor was not sure.
    NotMatched,
    /// The owner does not want to.
    Cancelled,
    /// Nobody answered, or the platform cannot check now.
    Unavailable,
}

/// Asks the owner. Every future is dropped when the request is cancelled; the question must then go away.
#[async_trait]
pub trait Approver: Send + Sync {
    /// Shows `request` until the owner decides.
    async fn approve(&self, request: ApprovalRequest) -> ApprovalDecision;

    /// Lets the owner enter a PIN or PUK. The card checks its form and compares it.
    async fn enter_pin(&self, request: PinRequest) -> PinAnswer;

    /// Whether [`Approver::verify_owner`] can match: the platform has a sensor, and the owner has enrolled with it.
    fn has_owner_verification(&self) -> bool {
        false
    }

    /// Checks that the person at the phone is its owner.
    async fn verify_owner(&self, check: OwnerCheck) -> OwnerDecision {
        let _ = check;
        OwnerDecision::Unavailable
    }
}

/// Monotonic time that goes on while the device sleeps, if the platform has such a clock.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Time since an origin of the clock's own.
    fn now(&self) -> Timestamp;

    /// Returns at `deadline` or soon after.
    async fn sleep_until(&self, deadline: Timestamp);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_id_survives_its_text() {
        let host = HostId::new(std::array::from_fn(|index| u8::try_from(index * 7 % 256).unwrap()));
        assert_eq!(HostId::from_hex(&host.to_string()), Some(host));
        assert_eq!(HostId::from_hex("00"), None);
        assert_eq!(HostId::from_hex(&"zz".repeat(32)), None);
        assert_eq!(HostId::from_hex(&"é".repeat(32)), None);
    }

    #[test]
    fn debug_of_what_was_entered_shows_nothing_of_it() {
        let text = || Zeroizing::new("246813".to_owned());
        let new = Some(NewPin { value: text(), repeated: text() });
        let shown = format!("{:?}", PinAnswer::Entered(EnteredPin { current: text(), new }));
        assert!(!shown.contains("246813"), "{shown}");
    }

    #[test]
    fn debug_of_a_batch_shows_no_value() {
        let mut batch = Batch::new();
        batch.put("piv/pin", b"secret");
        batch.delete("piv/x");
        let text = format!("{batch:?}");
        assert!(text.contains("piv/pin"));
        assert!(!text.contains("secret") && !text.contains("115"));
    }
}
