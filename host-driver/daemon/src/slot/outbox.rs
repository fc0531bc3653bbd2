//! Where a link's messages go: a socket or the radio.

use pocketcard_ipc::control::Transport;
use pocketcard_protocol::link::Link;

use crate::radio::RadioOutbox;
use crate::stream::Outbox;

/// Where a link's messages go.
#[derive(Debug, Clone)]
pub(crate) enum PhoneOutbox {
    /// To a socket, as frames.
    Stream(Outbox),
    /// To the radio's task, which cuts them into fragments.
    Radio(RadioOutbox),
}

impl PhoneOutbox {
    pub(crate) fn close(&self) {
        match self {
            Self::Stream(outbox) => outbox.close(),
            Self::Radio(outbox) => outbox.close(),
        }
    }

    /// What carries the link, for the status.
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Stream(_) => Transport::Stream {},
            Self::Radio(outbox) => outbox.transport(),
        }
    }
}

/// Sends everything that the link has to send; on a stream in one write.
pub(crate) fn send_frames(link: &mut Link, outbox: &PhoneOutbox, frames: &mut Vec<u8>) {
    let outbox = match outbox {
        PhoneOutbox::Stream(outbox) => outbox,
        PhoneOutbox::Radio(outbox) => {
            while let Some(message) = link.poll_transmit() {
                outbox.send(message);
            }
            return;
        }
    };
    frames.clear();
    while let Some(message) = link.poll_transmit() {
        // A link never makes a message that a stream cannot carry.
        let _ = pocketcard_protocol::stream::encode_into(&message, frames);
    }
    if !frames.is_empty() {
        outbox.send(frames);
    }
}
