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
    let mut looks = 0;
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
                    looks = if dialled.elapsed() >= SETTLED { LOOKS } else { 0 };
                }
                if looks > 0 {
                    looks -= 1;
                    continue;
                }
                if was_open || slot.waits() { Duration::ZERO } else { REFUSED_PAUSE }
            }
            Err(error) => {
                slot.link_unreachable(format!("{address}: {error}"), is_gone(&error));
                looks = 0;
                Duration::ZERO
            }
        };
        pause.wait(at_least).await;
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
