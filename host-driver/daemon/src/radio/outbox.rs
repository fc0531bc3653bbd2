//! The sending end of a link that is carried by the radio.

use std::sync::{Arc, Mutex};

use pocketcard_ipc::control::Transport;
use tokio::sync::mpsc;

use crate::locked;

/// Link messages that may wait for the radio. A link has one request at a time under way; more than this is a phone
/// that takes nothing while it asks.
const QUEUE: usize = 256;

/// Where a link's messages go, from any task. The radio's task takes them out.
#[derive(Debug, Clone)]
pub(crate) struct RadioOutbox {
    sender: Arc<Mutex<Option<mpsc::Sender<Vec<u8>>>>>,
    transport: Transport,
}

impl RadioOutbox {
    /// An outbox, and where its messages come out.
    pub(crate) fn new(transport: Transport) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender: Arc::new(Mutex::new(Some(sender))), transport }, receiver)
    }

    /// Sends a message. A phone that takes nothing while too many wait is cut off.
    pub(crate) fn send(&self, message: Vec<u8>) {
        let mut sender = locked(&self.sender);
        if sender.as_ref().is_some_and(|sender| sender.try_send(message).is_err()) {
            *sender = None;
        }
    }

    /// Ends the connection after what still waits was sent.
    pub(crate) fn close(&self) {
        *locked(&self.sender) = None;
    }

    /// What carries the link, for the status.
    pub(crate) const fn transport(&self) -> Transport {
        self.transport
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_at_the_end_still_comes_out() {
        let (outbox, mut queue) = RadioOutbox::new(Transport::L2cap {});
        outbox.send(vec![1]);
        outbox.close();
        outbox.send(vec![2]);
        assert_eq!((queue.recv().await, queue.recv().await), (Some(vec![1]), None));
    }

    #[tokio::test]
    async fn a_phone_that_takes_nothing_is_cut_off() {
        let (outbox, mut queue) = RadioOutbox::new(Transport::L2cap {});
        for _ in 0..=QUEUE {
            outbox.send(vec![1]);
        }
        for _ in 0..QUEUE {
            assert!(queue.recv().await.is_some());
        }
        assert_eq!(queue.recv().await, None);
    }
}
