//! The phone's half of Pocketcard: a PIV card, its state and the runtime that drives it. No transport, no user interface and
//! no executor in here; an app, the virtual phone or a binding for another language brings those.
//!
//! - [`card`]: the card as a pure state machine (dispatcher, PIV applet, PIN, card sessions).
//! - [`runtime`]: one future that owns links and card and drives them over the traits of [`traits`].
//! - [`traits`]: what a platform provides: [`StateStore`], [`KeyStore`], [`SealingKey`], [`Approver`], [`Clock`], [`Entropy`].
//! - [`keystore`]: the software key store (feature `software-keys`).
//! - [`store`]: state stores: durable (feature `redb`) and in memory.
//! - `enrolment`: keys and certificates made on the phone itself (feature `enrolment`).

pub mod card;
#[cfg(feature = "enrolment")]
pub mod enrolment;
#[cfg(any(feature = "software-keys", feature = "test-support"))]
mod entropy;
#[cfg(feature = "software-keys")]
pub mod keystore;
pub mod runtime;
pub mod store;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
pub mod traits;

#[cfg(any(feature = "software-keys", feature = "test-support"))]
pub use entropy::SystemEntropy;

pub use traits::{
    ApprovalDecision, ApprovalPurpose, ApprovalRequest, Approver, Batch, BatchEntry, Clock, EnteredPin, Entropy,
    EntropyError, HostId, KeyAlgorithm, KeyHandle, KeyStore, KeyStoreError, NewPin, OwnerCheck, OwnerDecision,
    PinAnswer, PinPurpose, PinRequest, PublicKeyData, SealingError, SealingKey, StateEntry, StateStore, StoreError,
};
