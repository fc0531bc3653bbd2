//! The phone core for apps in Kotlin, Swift and Python: types and conversions, no logic.
//!
//! An app implements [`KeyStore`], [`SealingKey`] and [`Approver`] over what its platform has, starts a [`Phone`] with them,
//! and gives it a [`Transport`] for every link to a computer. The phone runs on a thread of its own; the traits are called
//! from there, so an implementation must not block it: the synchronous methods return at once, the asynchronous ones suspend.
//!
//! When the phone no longer wants the answer of an asynchronous method, it cancels it (a `CancellationException` in Kotlin, a
//! `CancelledError` in Python, a cancelled task in Swift). An implementation may be late to notice, or never do: its answer is
//! then dropped, and a key that it made meanwhile is destroyed. In the other direction a call may be given up at any time, and
//! what it asked for may then have happened or not.

mod advertising;
mod approver;
mod clock;
mod enrolment;
mod entropy;
mod error;
mod event;
mod host;
mod keystore;
mod link;
mod log;
mod permissions;
mod phone;
mod sealing;
#[cfg(feature = "test-host")]
mod test_host;

pub use advertising::Advertisements;
pub use approver::{
    ApprovalDecision, ApprovalPurpose, ApprovalRequest, Approver, ApproverError, NewPin, OwnerCheck, OwnerDecision,
    PinAnswer, PinPurpose, PinRequest,
};
pub use enrolment::{
    CertificateNames, CertificateRequest, EnrolmentError, KeyStage, NewKey, PinPolicy, Slot, SlotContent, TouchPolicy,
};
pub use error::{LinkError, PhoneError, ScanError, StartError};
pub use event::{Closing, Events, PhoneEvent, Side};
pub use host::Host;
pub use keystore::{GeneratedKey, KeyAlgorithm, KeyStore, KeyStoreError, PublicKey};
pub use link::{Link, SendOutcome, Transport, TransportError};
pub use log::LogEntry;
pub use permissions::{Permissions, permissions_of_a_new_host};
pub use phone::{Phone, PhoneSettings};
pub use sealing::{SealingError, SealingKey};
#[cfg(feature = "test-host")]
pub use test_host::{TestHost, TestHostError, TestHostEvent};

uniffi::setup_scaffolding!();
