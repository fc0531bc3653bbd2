//! What a pair has cost so far.

use std::ops::Sub;

use pocketcard_protocol::link::Side;
use pocketcard_protocol::messages::Body;

/// Kind of a credit, which is as long as its header. Spec: SPEC.md section 4.1
const CREDIT: u8 = 0x80;
const CREDIT_LENGTH: usize = 3;

/// Counts of one pair, since it exists; the difference of two is what happened between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Commands that crossed the air.
    pub commands: usize,
    /// Pages of the card's snapshot that were fetched.
    pub pages: usize,
    /// Answers to them.
    pub answers: usize,
    /// Other messages of the host: resets, cancellations, sessions.
    pub others: usize,
    /// Fragments of the host and of the phone, credits left out.
    pub fragments: [usize; 2],
    /// Credits of the host and of the phone.
    pub credits: [usize; 2],
    /// Bytes of both in GATT values.
    pub bytes: [usize; 2],
    /// Encrypted channels that were opened.
    pub links: usize,
    /// Requests of the host's GATT client.
    pub procedures: usize,
}

impl Traffic {
    pub(crate) fn sent(&mut self, body: Option<&Body>) {
        match body {
            Some(Body::Transmit(_) | Body::PinEntry(_)) => self.commands += 1,
            Some(Body::Fetch(_)) => self.pages += 1,
            _ => self.others += 1,
        }
    }

    pub(crate) fn value(&mut self, from: Side, value: &[u8]) {
        let [host, phone] = if is_credit(value) { &mut self.credits } else { &mut self.fragments };
        *(if from == Side::Host { host } else { phone }) += 1;
        let [host, phone] = &mut self.bytes;
        *(if from == Side::Host { host } else { phone }) += value.len();
    }

    /// Messages of the host that the phone answers: the logical round trips of a flow.
    #[must_use]
    pub fn round_trips(&self) -> usize {
        self.commands + self.pages
    }

    /// Everything in GATT values, both ways.
    #[must_use]
    pub fn values(&self) -> usize {
        self.fragments.iter().chain(&self.credits).sum()
    }
}

fn is_credit(value: &[u8]) -> bool {
    value.len() == CREDIT_LENGTH && value.first() == Some(&CREDIT)
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let pair = |[host, phone]: [usize; 2], [host_before, phone_before]: [usize; 2]| {
            [host - host_before, phone - phone_before]
        };
        Self {
            commands: self.commands - earlier.commands,
            pages: self.pages - earlier.pages,
            answers: self.answers - earlier.answers,
            others: self.others - earlier.others,
            fragments: pair(self.fragments, earlier.fragments),
            credits: pair(self.credits, earlier.credits),
            bytes: pair(self.bytes, earlier.bytes),
            links: self.links - earlier.links,
            procedures: self.procedures - earlier.procedures,
        }
    }
}
