//! Commands, and chaining against a simple model over another parser.

use iso7816::command::CommandView;
use pocketcard_protocol::apdu::{Chaining, Command, Response, StatusWord, Step};

use crate::Input;

/// What the model answers.
#[derive(Debug, PartialEq)]
enum Answer {
    Reply(Vec<u8>),
    Execute { header: [u8; 4], data: Vec<u8>, le: usize },
}

/// Chaining and windows as the specification tells them, without a thought for speed or secrets.
#[derive(Default)]
struct Model {
    chain: Option<([u8; 4], Vec<u8>)>,
    left: Option<(Vec<u8>, [u8; 2])>,
    window: usize,
}

impl Model {
    fn handle(&mut self, raw: &[u8]) -> Answer {
        let chain = self.chain.take();
        let left = self.left.take();
        let status = |sw1, sw2| Answer::Reply(vec![sw1, sw2]);
        // The other parser refuses class FF as part of parsing.
        let class_ff = raw.first() == Some(&0xFF);
        let mut plain = raw.to_vec();
        if class_ff {
            plain[0] = 0;
        }
        let Ok(view) = CommandView::try_from(&plain[..]) else { return status(0x67, 0) };
        if class_ff {
            return status(0x6E, 0);
        }
        let cla = view.class().into_inner();
        let header = [cla, u8::from(view.instruction()), view.p1, view.p2];
        let absent = view.expected() == 0;
        let window = match (absent, view.extended) {
            (true, false) => 256,
            (true, true) => 65_536,
            (false, _) => view.expected(),
        };
        let channel_bits = cla & 0xE3;
        if header[1] == 0xC0 && channel_bits == 0 {
            return match (cla & 0x10 != 0, view.p1 | view.p2, view.data(), left) {
                (true, ..) => status(0x68, 0x84),
                (_, 1.., ..) => status(0x6A, 0x86),
                (_, _, [_, ..], _) => status(0x67, 0),
                (.., None) => status(0x69, 0x85),
                (.., Some((data, end))) => Answer::Reply(self.cut(data, end, window)),
            };
        }
        let has_chaining_bit = cla < 0x20 || (0x40..0x80).contains(&cla);
        let is_part = has_chaining_bit && cla & 0x10 != 0;
        let shared = [if is_part { cla & 0xEF } else { cla }, header[1], view.p1, view.p2];
        let in_chain = chain.as_ref().is_some_and(|(first, _)| *first == shared);
        if !is_part && !in_chain {
            self.window = window;
            return Answer::Execute { header, data: view.data().to_vec(), le: view.expected() };
        }
        let mut data = chain.filter(|_| in_chain).map(|(_, data)| data).unwrap_or_default();
        data.extend_from_slice(view.data());
        if data.len() > 65_535 {
            return status(0x67, 0);
        }
        if is_part {
            self.chain = Some((shared, data));
            return status(0x90, 0);
        }
        self.window = window;
        Answer::Execute { header: shared, data, le: view.expected() }
    }

    fn respond(&mut self, data: Vec<u8>, end: [u8; 2]) -> Vec<u8> {
        let window = std::mem::replace(&mut self.window, 256);
        self.left = None;
        self.cut(data, end, window)
    }

    fn cut(&mut self, mut data: Vec<u8>, end: [u8; 2], window: usize) -> Vec<u8> {
        if data.len() <= window {
            data.extend_from_slice(&end);
            return data;
        }
        let rest = data.split_off(window);
        data.extend_from_slice(&[0x61, if rest.len() > 255 { 0 } else { rest.len() as u8 }]);
        self.left = Some((rest, end));
        data
    }
}

/// Each piece is a command, with the length and the end of its response; both sides must give the same.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut chaining = Chaining::new();
    let mut model = Model { window: 256, ..Model::default() };
    while !input.is_empty() {
        let control = input.byte();
        if control == 0xFF {
            chaining.reset();
            model = Model { window: 256, ..Model::default() };
            continue;
        }
        // Long chains cannot come out of short inputs: a few commands are padded.
        let mut raw = input.chunk().to_vec();
        if control == 0xFE && raw.len() >= 4 {
            let data = vec![control; usize::from(input.u16())];
            raw = Command::new(raw[0], raw[1], raw[2], raw[3], &data, None).expect("short enough").to_bytes().to_vec();
        }
        round_trip(&raw);
        let expected = model.handle(&raw);
        match chaining.handle(&raw) {
            Step::Reply(reply) => assert_eq!(Answer::Reply(reply.to_vec()), expected, "{raw:02X?}"),
            Step::Execute(command) => {
                let seen = Answer::Execute {
                    header: [command.cla(), command.ins(), command.p1(), command.p2()],
                    data: command.data().to_vec(),
                    le: command.le().unwrap_or(0) as usize,
                };
                assert_eq!(seen, expected, "{raw:02X?}");
                let answer: Vec<u8> = (0..=255).cycle().take(usize::from(input.u16())).collect();
                let end = [input.byte(), input.byte()];
                let response = Response::new(&answer, StatusWord::from(u16::from_be_bytes(end)));
                assert_eq!(chaining.respond(response).to_vec(), model.respond(answer, end));
            }
        }
        assert_eq!(chaining.is_in_chain(), model.chain.is_some());
    }
}

/// What is read is kept as it was; building it anew says the same.
fn round_trip(raw: &[u8]) {
    let Ok(command) = Command::parse(raw) else { return };
    assert_eq!(command.as_bytes(), raw);
    let built = Command::new(command.cla(), command.ins(), command.p1(), command.p2(), command.data(), command.le())
        .expect("all of it was coded before");
    assert_eq!((built.data(), built.le()), (command.data(), command.le()));
    if !command.is_extended() {
        assert_eq!(built.as_bytes(), raw, "the short form is the only one");
    }
    let parts: Vec<u8> = command.parts(200).flat_map(|part| part.data().to_vec()).collect();
    assert_eq!(parts, command.data());
}
