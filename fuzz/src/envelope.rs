//! Messages of the channel, as a peer may send them.

use pocketcard_protocol::messages::{Body, Envelope, MESSAGE_LIMIT, NAME_LIMIT};
use pocketcard_protocol::snapshot::PAGE_LIMIT;
use prost::Message as _;

/// What is accepted keeps the limits, and is the same after it was sent on.
pub fn run(data: &[u8]) {
    let Ok(envelope) = Envelope::from_bytes(data) else { return };
    assert!(data.len() <= MESSAGE_LIMIT);
    match &envelope.body {
        Some(Body::Open(open)) => {
            name(&open.software);
            assert!(matches!(open.resume_token.len(), 0 | 32));
        }
        Some(Body::Opened(opened)) => {
            name(&opened.software);
            assert_eq!(opened.token.len(), 32);
            if let Some(card) = &opened.card_state {
                name(&card.card_name);
                assert!(card.atr.len() <= 33);
            }
        }
        Some(Body::CardState(card)) => {
            name(&card.card_name);
            assert!(card.atr.len() <= 33);
        }
        Some(Body::PairCommit(commit)) => {
            name(&commit.host_name);
            name(&commit.software);
            assert_eq!(commit.commitment.len(), 32);
        }
        Some(Body::PairNonce(nonce)) => {
            name(&nonce.phone_name);
            name(&nonce.software);
            assert_eq!(nonce.nonce.len(), 32);
        }
        Some(Body::Response(response)) => assert!(matches!(response.snapshot_digest.len(), 0 | 32)),
        Some(Body::SecurityState(state)) => assert!(matches!(state.snapshot_digest.len(), 0 | 32)),
        Some(Body::Fetch(fetch)) => assert_eq!(fetch.digest.len(), 32),
        Some(Body::SnapshotPage(page)) => assert!(page.page.len() <= PAGE_LIMIT && page.digest.len() == 32),
        Some(Body::PairOpen(open)) => assert_eq!(open.nonce.len(), 32),
        Some(Body::PairSecret(secret)) => assert_eq!(secret.secret.len(), 32),
        _ => {}
    }
    let bytes = envelope.encode_to_vec();
    assert_eq!(bytes.len(), envelope.length());
    assert_eq!(Envelope::from_bytes(&bytes).as_ref(), Ok(&envelope));
    let shown = format!("{envelope:?}");
    // A run of bytes is the only thing here that prints as a list: nothing that carries one shows it.
    if let Some(Body::Transmit(_) | Body::Response(_) | Body::PairSecret(_) | Body::Opened(_)) = &envelope.body {
        assert!(shown.len() < 4096, "{shown}");
    }
}

/// A peer's name must not be able to draw on a terminal or a prompt.
pub(crate) fn name(name: &str) {
    assert!(name.len() <= NAME_LIMIT);
    assert!(
        !name.chars().any(|c| c.is_control()
            || matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'))
    );
}
