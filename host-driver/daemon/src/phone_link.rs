//! Dials one phone, again and again, for as long as it is paired.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pocketcard_ipc::Address;
use pocketcard_protocol::link::HostConfig;
use pocketcard_protocol::pairing::PairKeys;
use pocketcard_protocol::stream::{FrameReader, LONGEST_BEFORE_AUTHENTICATION, LONGEST_MESSAGE};

use crate::pause::Pause;
use crate::slot::{LinkStep, PhoneOutbox, Slot};
use crate::stream::{Reader, dial};

/// After a phone that answered but did not let us in: asking again at once changes nothing, unless a card waits for it.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// A link that was up for so long is looked for again without a pause, since its phone may just have ended, which its
/// address tells: the card then leaves at once. A phone that keeps hanging up earlier costs no more than the pauses allow.
const SETTLED: Duration = Duration::from_millis(100);

/// So often it is looked for without a pause. The second time is for a phone that is being killed: the kernel may close the
/// link before the socket that takes new ones, which then hangs up, too.
const LOOKS: u8 = 2;

/// Keeps the link to a phone. Runs until its task is aborted.
///
/// - `opened`: called whenever the channel opened: the phone then has the pair too.
pub(crate) async fn keep(
    slot: Arc<Slot>,
    config: HostConfig,
    keys: Arc<PairKeys>,
    address: Address,
    opened: impl Fn() + Send,
) {
    let mut pause = Pause::new();
    let mut looks = Looks::default();
    loop {
        pause.watch(address.path());
        let dialled = Instant::now();
        let at_least = match dial(&address).await {
            Ok((mut reader, outbox)) => {
                let number = slot.link_up(config.clone(), &keys, PhoneOutbox::Stream(outbox));
                let was_open = carry(&slot, number, &mut reader, &opened).await;
                slot.link_lost(number);
                if was_open {
                    pause.reset();
                    looks.was_up(dialled.elapsed());
                }
                if looks.at_once() {
                    continue;
                }
                if was_open || slot.waits() { Duration::ZERO } else { REFUSED_PAUSE }
            }
            Err(error) => {
                slot.link_unreachable(format!("{address}: {error}"), is_gone(&error));
                looks = Looks::default();
                Duration::ZERO
            }
        };
        pause.wait(at_least).await;
    }
}

/// How often the phone of a link that was up is yet to be looked for without a pause.
#[derive(Debug, Default)]
struct Looks(u8);

impl Looks {
    /// A link that was open ended, so long after it was dialled.
    fn was_up(&mut self, time: Duration) {
        self.0 = if time >= SETTLED { LOOKS } else { 0 };
    }

    /// Whether to look now; the phone hung up just before.
    fn at_once(&mut self) -> bool {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// Whether nobody listens at the phone's address: then no program runs there that could still know of a card session.
/// Every other failure may be of the way to it.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// Carries the phone's messages to the slot until the stream or the link ends. Gives whether the channel was open.
async fn carry(slot: &Slot, number: u64, reader: &mut Reader, opened: &impl Fn()) -> bool {
    let mut frames = FrameReader::new(LONGEST_BEFORE_AUTHENTICATION);
    let mut was_open = false;
    loop {
        match reader.read(frames.read_buffer()).await {
            Ok(count) if count > 0 => frames.filled(count),
            _ => return was_open,
        }
        loop {
            let step = match frames.next_message() {
                Ok(Some(message)) => slot.link_message(number, message),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(slot = slot.number, %error, "the phone's stream is broken");
                    slot.link_broken(number);
                    return was_open;
                }
            };
            match step {
                LinkStep::Early => {}
                LinkStep::Open if was_open => {}
                LinkStep::Open => {
                    was_open = true;
                    frames.set_limit(LONGEST_MESSAGE);
                    opened();
                }
                LinkStep::Closed => return was_open,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_that_is_being_killed_is_looked_for_until_nobody_takes_links_any_more() {
        let mut looks = Looks::default();
        looks.was_up(SETTLED);
        // The link ended; then one that the dying phone's kernel still took; only then the pause of a phone that lives.
        assert!(looks.at_once());
        assert!(looks.at_once());
        assert!(!looks.at_once());
    }

    #[test]
    fn a_phone_that_keeps_hanging_up_costs_no_more_than_the_pauses_allow() {
        let mut looks = Looks::default();
        assert!(!looks.at_once(), "it never let us in");
        looks.was_up(SETTLED);
        looks.was_up(SETTLED - Duration::from_millis(1));
        assert!(!looks.at_once());
    }
}
