//! How long a link waits for what.
//!
//! Spec: SPEC.md section 10

use std::time::Duration;

/// From the start of a host's link to the phone's `Info`.
pub const INFO_LIMIT: Duration = Duration::from_secs(5);

/// How long a phone keeps a link on which no handshake begins. A host that offers to pair may connect before the owner
/// scans its code, so this is as long as an offer lives.
pub const WAIT_LIMIT: Duration = crate::pairing::OFFER_LIFETIME;

/// From the first handshake message to the first record (connection) or to the digits (pairing).
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// From the digits to both confirmations.
pub const DECISION_LIMIT: Duration = Duration::from_secs(120);

/// From both confirmations until both sides have stored the pair.
pub const STORE_LIMIT: Duration = Duration::from_secs(10);

/// From `PairStored` of both to the host's `Close`.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How long a host waits for `Opened`, `Response`, `Pending` or `Pong`; each `Pending` starts it again.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(2);

/// A phone sends `Pending` this often while a request waits.
pub const PENDING_INTERVAL: Duration = Duration::from_millis(500);

/// A host pings a link that carried nothing for this long.
pub const IDLE_INTERVAL: Duration = Duration::from_secs(60);

/// A phone gives up a link on which the host said nothing for this long: two pings and the time to answer one.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(125);

/// A phone may keep a card session whose link is gone for at most this long.
pub const GRACE_LIMIT: Duration = Duration::from_secs(5);

/// Link messages that may wait to be sent. A peer that makes this side answer without reading the answers is cut off.
pub const QUEUE_LIMIT: usize = 256;
