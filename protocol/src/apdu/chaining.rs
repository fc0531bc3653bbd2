//! From short pieces to logical commands, and from whole responses to the windows that were asked for.

use core::{fmt, mem};

use zeroize::Zeroizing;

use super::{Command, Response, StatusWord};
use crate::wipe::WipedBuffer;

const GET_RESPONSE: u8 = 0xC0;
/// Most data that the parts of one chain may have together: what an extended command can carry.
const LONGEST_CHAIN: usize = 0xFFFF;
/// What a short command without Le gets.
const SHORT_WINDOW: usize = 0x100;
/// What an extended command without Le gets.
const EXTENDED_WINDOW: usize = 0x1_0000;

/// What a piece that came in asks for.
#[derive(Debug)]
pub enum Step {
    /// The answer is known: send it.
    Reply(Zeroizing<Vec<u8>>),
    /// A logical command is complete: run it and give its whole response to [`Chaining::respond`].
    Execute(Command),
}

/// Undoes command chaining and cuts responses into windows, for whoever stands before a card.
///
/// - An intermediate part is answered `90 00`; the last one gives the logical command, with the chaining bit cleared,
///   the data of all parts and the Le of the last. Parts may carry an Le; only the last one's counts.
/// - A command with another class, instruction, P1 or P2 drops an unfinished chain and runs as if that chain had
///   never been sent. The parts of a chain together carry at most 65,535 bytes: one more is `67 00`, and drops it.
/// - A response that is longer than the command's Le comes in windows: as many bytes as asked for with `61 XX`, the
///   rest by GET RESPONSE, which has an Le of its own. Without Le, a short command gets up to 256 bytes and an
///   extended one everything.
/// - The remainder of a response is wiped by any other command and by [`Chaining::reset`]. GET RESPONSE with nothing
///   left is `69 85`; one with P1 or P2 is `6A 86`, one with data `67 00`, a chained one `68 84`.
/// - Bytes that are no command are `67 00`, class FF (not a class, ISO/IEC 7816-3) is `6E 00`; both drop an unfinished
///   chain and the remainder.
///
/// Spec: SPEC.md section 7.2; ISO/IEC 7816-4 sections 5.3.3 and 5.3.4
#[derive(Default)]
pub struct Chaining {
    chain: Option<Chain>,
    window: Window,
    remainder: Option<Remainder>,
}

/// The parts of an unfinished chain.
struct Chain {
    header: [u8; 4],
    data: WipedBuffer,
}

/// What a response has left.
struct Remainder {
    response: Response,
    sent: usize,
}

/// Most bytes that the command being answered takes at once.
struct Window(usize);

impl Default for Window {
    fn default() -> Self {
        Self(SHORT_WINDOW)
    }
}

impl From<&Command> for Window {
    fn from(command: &Command) -> Self {
        let unstated = if command.is_extended() { EXTENDED_WINDOW } else { SHORT_WINDOW };
        Self(command.le().and_then(|le| usize::try_from(le).ok()).unwrap_or(unstated))
    }
}

impl Chaining {
    /// No chain begun, nothing left of a response.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one command as a program sent it.
    pub fn handle(&mut self, raw: &[u8]) -> Step {
        // Taken out for the time of this call: every path that does not put them back has wiped them.
        let chain = self.chain.take();
        let remainder = self.remainder.take();

        let Ok(command) = Command::parse(raw) else {
            return reply(StatusWord::WrongLength);
        };
        if command.cla() == 0xFF {
            return reply(StatusWord::ClassNotSupported);
        }
        if is_get_response(&command) {
            drop(chain);
            return self.next_window(&command, remainder);
        }
        drop(remainder);

        let chain = chain.filter(|chain| chain.header == command.logical_header());
        match (chain, command.is_chained()) {
            (None, false) => self.execute(Window::from(&command), command),
            (chain, chained) => {
                let mut chain = chain.unwrap_or_else(|| Chain::begin(&command));
                if chain.data.len() + command.data().len() > LONGEST_CHAIN {
                    return reply(StatusWord::WrongLength);
                }
                chain.data.extend(command.data());
                if chained {
                    self.chain = Some(chain);
                    return reply(StatusWord::Success);
                }
                let [cla, ins, p1, p2] = chain.header;
                match Command::new(cla, ins, p1, p2, &chain.data, command.le()) {
                    Ok(logical) => self.execute(Window::from(&command), logical),
                    // Cannot happen: the data is bounded above and the Le was coded.
                    Err(_) => reply(StatusWord::WrongLength),
                }
            }
        }
    }

    /// Takes the whole response of the command executed last and gives its first window.
    pub fn respond(&mut self, response: Response) -> Zeroizing<Vec<u8>> {
        let Window(size) = mem::take(&mut self.window);
        if response.data().len() <= size {
            self.remainder = None;
            return response.into_bytes();
        }
        self.cut(Remainder { response, sent: 0 }, size)
    }

    /// Forgets an unfinished chain and what is left of a response: the card was reset, powered off or removed.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Whether a chain was begun and not ended.
    pub fn is_in_chain(&self) -> bool {
        self.chain.is_some()
    }

    fn execute(&mut self, window: Window, command: Command) -> Step {
        self.window = window;
        Step::Execute(command)
    }

    fn next_window(&mut self, command: &Command, remainder: Option<Remainder>) -> Step {
        if command.is_chained() {
            reply(StatusWord::ChainingNotSupported)
        } else if (command.p1(), command.p2()) != (0, 0) {
            reply(StatusWord::WrongParameters)
        } else if !command.data().is_empty() {
            reply(StatusWord::WrongLength)
        } else if let Some(remainder) = remainder {
            let Window(size) = Window::from(command);
            Step::Reply(self.cut(remainder, size))
        } else {
            reply(StatusWord::ConditionsNotSatisfied)
        }
    }

    /// The next window of at most `size` bytes; what is left after it is kept.
    fn cut(&mut self, remainder: Remainder, size: usize) -> Zeroizing<Vec<u8>> {
        let Remainder { response, sent } = remainder;
        let rest = response.data().get(sent..).unwrap_or_default();
        let (window, left) = rest.split_at_checked(size).unwrap_or((rest, &[]));
        if left.is_empty() {
            return Response::new(window, response.status()).into_bytes();
        }
        let bytes = Response::new(window, StatusWord::bytes_available(left.len())).into_bytes();
        let sent = sent + window.len();
        self.remainder = Some(Remainder { response, sent });
        bytes
    }
}

impl Chain {
    fn begin(first: &Command) -> Self {
        Self { header: first.logical_header(), data: WipedBuffer::with_capacity(2 * first.data().len()) }
    }
}

impl fmt::Debug for Chaining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.remainder.as_ref().map_or(0, |r| r.response.data().len().saturating_sub(r.sent));
        f.debug_struct("Chaining")
            .field("chain_length", &self.chain.as_ref().map(|chain| chain.data.len()))
            .field("response_left", &left)
            .finish()
    }
}

/// GET RESPONSE on the basic channel, with whatever secure messaging bits; one part of a chain too, to be refused.
fn is_get_response(command: &Command) -> bool {
    command.ins() == GET_RESPONSE && command.cla() & 0xE3 == 0
}

fn reply(status: StatusWord) -> Step {
    Step::Reply(Response::status_only(status).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What one piece leads to, in a form that can be compared.
    #[derive(Debug, PartialEq)]
    enum Seen {
        Reply(Vec<u8>),
        Execute(Vec<u8>),
    }

    fn see(chaining: &mut Chaining, raw: &[u8]) -> Seen {
        match chaining.handle(raw) {
            Step::Reply(bytes) => Seen::Reply(bytes.to_vec()),
            Step::Execute(command) => Seen::Execute(command.as_bytes().to_vec()),
        }
    }

    fn status(bytes: &[u8; 2]) -> Seen {
        Seen::Reply(bytes.to_vec())
    }

    /// A `Chaining` that holds both an unfinished response and, if asked for, an unfinished chain.
    fn with_remainder() -> Chaining {
        let mut chaining = Chaining::new();
        chaining.handle(&[0, 0xCB, 0x3F, 0xFF, 3, 0x5C, 1, 0x7E, 8]);
        let first = chaining.respond(Response::new(&[7; 20], StatusWord::Success));
        assert_eq!(first[8..], [0x61, 12]);
        chaining
    }

    #[test]
    fn refusals() {
        let rows: &[(&[u8], [u8; 2])] = &[
            (&[], [0x67, 0x00]),
            (&[0, 0x20, 0], [0x67, 0x00]),
            (&[0, 0x20, 0, 0x80, 3, 1], [0x67, 0x00]),
            (&[0xFF, 0xCA, 0, 0, 0], [0x6E, 0x00]),
            (&[0xFF, 0xC0, 0, 0, 0], [0x6E, 0x00]),
            (&[0, 0xC0, 0, 1, 0], [0x6A, 0x86]),
            (&[0, 0xC0, 1, 0, 0], [0x6A, 0x86]),
            (&[0, 0xC0, 0, 0, 1, 9], [0x67, 0x00]),
            (&[0x10, 0xC0, 0, 0, 0], [0x68, 0x84]),
        ];
        for (raw, expected) in rows {
            let mut chaining = with_remainder();
            assert_eq!(see(&mut chaining, raw), status(expected), "{raw:02X?}");
            // And what was left is gone.
            assert_eq!(see(&mut chaining, &[0, 0xC0, 0, 0, 0]), status(&[0x69, 0x85]), "{raw:02X?}");
        }
    }

    #[test]
    fn any_other_command_wipes_the_remainder() {
        let others: &[&[u8]] = &[
            &[0, 0x20, 0, 0x80],
            &[0x10, 0x87, 7, 0x9A, 1, 1],
            // On another channel or in a proprietary class it is not our GET RESPONSE.
            &[0x01, 0xC0, 0, 0, 0],
            &[0x80, 0xC0, 0, 0, 0],
        ];
        for raw in others {
            let mut chaining = with_remainder();
            chaining.handle(raw);
            assert_eq!(see(&mut chaining, &[0, 0xC0, 0, 0, 0]), status(&[0x69, 0x85]), "{raw:02X?}");
        }
        let mut chaining = with_remainder();
        chaining.reset();
        assert_eq!(see(&mut chaining, &[0, 0xC0, 0, 0, 0]), status(&[0x69, 0x85]));
    }

    #[test]
    fn too_long_a_chain_is_dropped() {
        let mut chaining = Chaining::new();
        let part = Command::new(0x10, 0xDB, 0x3F, 0xFF, &[1; 0x8000], None).unwrap().to_bytes();
        assert_eq!(see(&mut chaining, &part), status(&[0x90, 0]));
        assert_eq!(see(&mut chaining, &part), status(&[0x67, 0]));
        assert!(!chaining.is_in_chain());
        // Exactly the limit is a command.
        assert_eq!(see(&mut chaining, &part), status(&[0x90, 0]));
        let last = Command::new(0, 0xDB, 0x3F, 0xFF, &[1; 0x7FFF], None).unwrap().to_bytes();
        let Step::Execute(logical) = chaining.handle(&last) else { panic!("not executed") };
        assert_eq!(logical.data().len(), 0xFFFF);
    }

    #[test]
    fn another_command_drops_the_chain_and_runs() {
        let first: &[u8] = &[0x10, 0x87, 7, 0x9A, 2, 1, 2];
        let last: &[u8] = &[0, 0x87, 7, 0x9A, 1, 3];
        let others: &[&[u8]] = &[
            &[0, 0x87, 7, 0x9C, 1, 3],
            &[0, 0x87, 0x11, 0x9A, 1, 3],
            &[0, 0xCB, 7, 0x9A, 1, 3],
            &[1, 0x87, 7, 0x9A, 1, 3],
            &[0x0C, 0x87, 7, 0x9A, 1, 3],
        ];
        for other in others {
            let mut chaining = Chaining::new();
            assert_eq!(see(&mut chaining, first), status(&[0x90, 0]));
            assert_eq!(see(&mut chaining, other), Seen::Execute(other.to_vec()));
            // What looks like the end of the dropped chain is a command of its own.
            assert_eq!(see(&mut chaining, last), Seen::Execute(last.to_vec()));
        }
        // The first part of another chain drops the first chain as well.
        let mut chaining = Chaining::new();
        chaining.handle(first);
        assert_eq!(see(&mut chaining, &[0x10, 0xDB, 0x3F, 0xFF, 1, 9]), status(&[0x90, 0]));
        assert_eq!(see(&mut chaining, &[0, 0xDB, 0x3F, 0xFF, 1, 8]), Seen::Execute(vec![0, 0xDB, 0x3F, 0xFF, 2, 9, 8]));
        // So do GET RESPONSE, bytes that are no command, and a reset.
        for interruption in [&[0, 0xC0, 0, 0, 0][..], &[0], &[0xFF, 0, 0, 0]] {
            let mut chaining = Chaining::new();
            chaining.handle(first);
            chaining.handle(interruption);
            assert_eq!(see(&mut chaining, last), Seen::Execute(last.to_vec()));
        }
        let mut chaining = Chaining::new();
        chaining.handle(first);
        chaining.reset();
        assert_eq!(see(&mut chaining, last), Seen::Execute(last.to_vec()));
    }

    #[test]
    fn chains_become_one_command() {
        let mut chaining = Chaining::new();
        // A part may carry an Le, and be empty.
        assert_eq!(see(&mut chaining, &[0x10, 0x87, 7, 0x9A, 2, 1, 2, 0]), status(&[0x90, 0]));
        assert_eq!(see(&mut chaining, &[0x10, 0x87, 7, 0x9A]), status(&[0x90, 0]));
        assert_eq!(see(&mut chaining, &[0x10, 0x87, 7, 0x9A, 0, 0, 1, 3]), status(&[0x90, 0]));
        assert_eq!(
            see(&mut chaining, &[0, 0x87, 7, 0x9A, 1, 4, 0x10]),
            Seen::Execute(vec![0, 0x87, 7, 0x9A, 4, 1, 2, 3, 4, 0x10])
        );
        // Secure messaging and channel bits stay.
        assert_eq!(see(&mut chaining, &[0x1D, 0x87, 7, 0x9A, 1, 1]), status(&[0x90, 0]));
        assert_eq!(see(&mut chaining, &[0x0D, 0x87, 7, 0x9A, 1, 2]), Seen::Execute(vec![0x0D, 0x87, 7, 0x9A, 2, 1, 2]));
        // More than 255 bytes become extended, and an Le of 256 stays 256.
        chaining.handle(&Command::new(0x10, 0xDB, 0x3F, 0xFF, &[1; 255], None).unwrap().to_bytes());
        let last = Command::new(0, 0xDB, 0x3F, 0xFF, &[2], Some(256)).unwrap().to_bytes();
        let Step::Execute(logical) = chaining.handle(&last) else { panic!("not executed") };
        assert_eq!((logical.data().len(), logical.le(), logical.is_extended()), (256, Some(256), true));
        // The window is the one of the short command that the program sent.
        let first = chaining.respond(Response::new(&[3; 300], StatusWord::Success));
        assert_eq!((first.len(), &first[256..]), (258, &[0x61, 44][..]));
    }

    #[test]
    fn windows() {
        type Row = (&'static [u8], usize, usize, [u8; 2]);
        let rows: &[Row] = &[
            // Without Le: 256 bytes without 61 XX, because yubico-piv-tool takes that for an error.
            (&[0, 0xA4, 4, 0], 256, 256, [0x90, 0x00]),
            (&[0, 0xA4, 4, 0], 257, 256, [0x61, 0x01]),
            (&[0, 0xA4, 4, 0, 0], 256, 256, [0x90, 0x00]),
            (&[0, 0xA4, 4, 0, 0], 511, 256, [0x61, 0xFF]),
            (&[0, 0xA4, 4, 0, 0], 512, 256, [0x61, 0x00]),
            (&[0, 0xA4, 4, 0, 8], 20, 8, [0x61, 12]),
            (&[0, 0xA4, 4, 0, 8], 8, 8, [0x90, 0x00]),
            (&[0, 0xA4, 4, 0, 8], 3, 3, [0x90, 0x00]),
            (&[0, 0xA4, 4, 0, 0, 0, 0], 65_536, 65_536, [0x90, 0x00]),
            (&[0, 0xA4, 4, 0, 0, 1, 0], 300, 256, [0x61, 44]),
            (&[0, 0xA4, 4, 0, 0, 0, 1, 9], 3000, 3000, [0x90, 0x00]),
        ];
        for (raw, whole, window, expected) in rows {
            let mut chaining = Chaining::new();
            assert!(matches!(chaining.handle(raw), Step::Execute(_)));
            let answer = chaining.respond(Response::new(&vec![1; *whole], StatusWord::Success));
            assert_eq!((answer.len(), &answer[*window..]), (window + 2, &expected[..]), "{raw:02X?} {whole}");
        }
    }

    #[test]
    fn get_response_has_its_own_le() {
        let mut chaining = Chaining::new();
        let data: Vec<u8> = (0..=255).cycle().take(600).collect();
        chaining.handle(&[0, 0xCB, 0x3F, 0xFF, 8]);
        let mut seen = chaining.respond(Response::new(&data, StatusWord::EndOfData)).to_vec();
        for (raw, length, expected) in [
            (&[0, 0xC0, 0, 0, 5][..], 5, [0x61, 0x00]),
            (&[0x0C, 0xC0, 0, 0, 0], 256, [0x61, 0x00]),
            (&[0, 0xC0, 0, 0, 1], 1, [0x61, 0x00]),
            (&[0, 0xC0, 0, 0], 256, [0x61, 74]),
            (&[0, 0xC0, 0, 0, 0, 0, 0], 74, [0x62, 0x82]),
        ] {
            seen.truncate(seen.len() - 2);
            let Step::Reply(window) = chaining.handle(raw) else { panic!("executed") };
            assert_eq!((window.len(), &window[length..]), (length + 2, &expected[..]), "{raw:02X?}");
            seen.extend_from_slice(&window);
        }
        assert_eq!(seen[..600], data);
        assert_eq!(see(&mut chaining, &[0, 0xC0, 0, 0, 0]), status(&[0x69, 0x85]));
    }

    #[test]
    fn debug_shows_no_data() {
        let mut chaining = with_remainder();
        assert_eq!(format!("{chaining:?}"), "Chaining { chain_length: None, response_left: 12 }");
        chaining.handle(&[0x10, 0x20, 0, 0x80, 1, 0x31]);
        assert_eq!(format!("{chaining:?}"), "Chaining { chain_length: Some(1), response_left: 0 }");
    }

    proptest! {
        /// Whatever way a command is split and a response is fetched, both ends see the same two values.
        #[test]
        fn split_and_fetched_is_the_same_as_whole(
            data in prop::collection::vec(any::<u8>(), 0..2000),
            part in 1..=255usize,
            answer in prop::collection::vec(any::<u8>(), 0..2000),
            le in prop_oneof![Just(None), (1..=256u32).prop_map(Some)],
            fetch in 1..=256u32,
            status in any::<u16>(),
        ) {
            let logical = Command::new(0, 0x87, 7, 0x9A, &data, le).unwrap();
            let mut chaining = Chaining::new();
            let mut executed = Vec::new();
            for piece in logical.parts(part) {
                match chaining.handle(piece.as_bytes()) {
                    Step::Reply(reply) => prop_assert_eq!(&reply[..], &[0x90, 0][..]),
                    Step::Execute(command) => executed.push(command),
                }
            }
            prop_assert_eq!(executed.len(), 1);
            prop_assert_eq!(executed[0].data(), &data[..]);
            prop_assert_eq!(executed[0].le(), le);

            let mut window = chaining.respond(Response::new(&answer, status.into()));
            let mut fetched = Vec::new();
            let mut size = le.unwrap_or(256) as usize;
            let get_response = Command::new(0, 0xC0, 0, 0, &[], Some(fetch)).unwrap();
            loop {
                let (bytes, end) = window.split_at(window.len() - 2);
                prop_assert!(bytes.len() <= size);
                fetched.extend_from_slice(bytes);
                if fetched.len() == answer.len() {
                    prop_assert_eq!(end, &status.to_be_bytes()[..]);
                    break;
                }
                prop_assert_eq!(bytes.len(), size);
                let left = answer.len() - fetched.len();
                prop_assert_eq!(end, &[0x61, if left > 255 { 0 } else { left as u8 }][..]);
                let Step::Reply(next) = chaining.handle(get_response.as_bytes()) else { panic!("executed") };
                window = next;
                size = fetch as usize;
            }
            prop_assert_eq!(fetched, answer);
        }
    }
}
