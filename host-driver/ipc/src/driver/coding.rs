//! How requests and replies are bytes.

use super::{
    Failure, FrameError, MAX_APDU, MAX_ATR, MessageError, PinEntry, PowerAction, Presence, Reply, Request, Role,
    Verdict, write_frame,
};
use crate::VERSION;

const HELLO: u8 = 0x01;
const POWER: u8 = 0x02;
const TRANSMIT: u8 = 0x03;
const CONTROL: u8 = 0x04;
const PIN_ENTRY: u8 = 0x05;
const HELLO_REPLY: u8 = 0x81;
const POWERED: u8 = 0x82;
const RESPONSE: u8 = 0x83;
const CONTROLLED: u8 = 0x84;
const FAILED: u8 = 0x8F;
const PRESENCE: u8 = 0xC0;

impl<'a> Request<'a> {
    /// The hello of this release.
    pub fn hello(role: Role, slot: u32) -> Self {
        Self::Hello { version: VERSION, role, slot }
    }

    /// Puts the message as one frame into `frame`, replacing (and wiping) what was there.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] if the APDU or control input is longer than any that can exist.
    pub fn encode(&self, frame: &mut Vec<u8>) -> Result<(), FrameError> {
        match self {
            Self::Hello { version, role, slot } => {
                let role = match role {
                    Role::Command => 0,
                    Role::Events => 1,
                };
                write_frame(frame, HELLO, &[&version.to_be_bytes(), &[role], &slot.to_be_bytes()])
            }
            Self::Power { action, generation } => {
                let action = match action {
                    PowerAction::Up => 0,
                    PowerAction::Down => 1,
                    PowerAction::Reset => 2,
                };
                write_frame(frame, POWER, &[&[action], &generation.to_be_bytes()])
            }
            Self::Transmit { apdu } => write_frame(frame, TRANSMIT, &[apdu]),
            Self::PinEntry(entry) => write_frame(frame, PIN_ENTRY, &[&entry.to_bytes()]),
            Self::Control { code, input } => write_frame(frame, CONTROL, &[&code.to_be_bytes(), input]),
        }
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`MessageError`]; close the connection then. A hello of another version still parses as far as its version, so
    /// that it can be answered.
    pub fn parse(body: &'a [u8]) -> Result<Self, MessageError> {
        let (kind, mut fields) = Fields::new(body)?;
        let request = match kind {
            HELLO => {
                let version = fields.u16()?;
                if version != VERSION {
                    return Ok(Self::Hello { version, role: Role::Command, slot: 0 });
                }
                let role = match fields.u8()? {
                    0 => Role::Command,
                    1 => Role::Events,
                    _ => return Err(MessageError::Field),
                };
                Self::Hello { version, role, slot: fields.u32()? }
            }
            POWER => {
                let action = match fields.u8()? {
                    0 => PowerAction::Up,
                    1 => PowerAction::Down,
                    2 => PowerAction::Reset,
                    _ => return Err(MessageError::Field),
                };
                Self::Power { action, generation: fields.u64()? }
            }
            TRANSMIT => Self::Transmit { apdu: fields.rest(MAX_APDU)? },
            PIN_ENTRY => Self::PinEntry(PinEntry::from_bytes(fields.array()?).ok_or(MessageError::Field)?),
            CONTROL => Self::Control { code: fields.u32()?, input: fields.rest(MAX_APDU)? },
            kind => return Err(MessageError::Kind(kind)),
        };
        fields.end()?;
        Ok(request)
    }
}

impl<'a> Reply<'a> {
    /// Puts the message as one frame into `frame`, replacing (and wiping) what was there.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] if a field is longer than any that can exist.
    pub fn encode(&self, frame: &mut Vec<u8>) -> Result<(), FrameError> {
        match self {
            Self::Hello { version, verdict, pin_pad } => {
                let verdict = match verdict {
                    Verdict::Accepted => 0,
                    Verdict::Version => 1,
                    Verdict::NoSuchSlot => 2,
                };
                write_frame(frame, HELLO_REPLY, &[&version.to_be_bytes(), &[verdict, u8::from(*pin_pad)]])
            }
            Self::Powered { atr } => write_frame(frame, POWERED, &[atr]),
            Self::Response { apdu } => write_frame(frame, RESPONSE, &[apdu]),
            Self::Controlled { output } => write_frame(frame, CONTROLLED, &[output]),
            Self::Failed { failure } => {
                let failure = match failure {
                    Failure::NotPresent => 0,
                    Failure::TimedOut => 1,
                    Failure::BadRequest => 2,
                    Failure::Unsupported => 3,
                    Failure::Cancelled => 4,
                };
                write_frame(frame, FAILED, &[&[failure]])
            }
            Self::Presence(Presence { present, generation, atr }) => {
                write_frame(frame, PRESENCE, &[&[u8::from(*present)], &generation.to_be_bytes(), atr])
            }
        }
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`MessageError`]; close the connection then.
    pub fn parse(body: &'a [u8]) -> Result<Self, MessageError> {
        let (kind, mut fields) = Fields::new(body)?;
        let reply = match kind {
            HELLO_REPLY => {
                let version = fields.u16()?;
                if version != VERSION {
                    return Ok(Self::Hello { version, verdict: Verdict::Version, pin_pad: false });
                }
                let verdict = match fields.u8()? {
                    0 => Verdict::Accepted,
                    1 => Verdict::Version,
                    2 => Verdict::NoSuchSlot,
                    _ => return Err(MessageError::Field),
                };
                Self::Hello { version, verdict, pin_pad: fields.bool()? }
            }
            POWERED => Self::Powered { atr: fields.rest(MAX_ATR)? },
            RESPONSE => {
                let apdu = fields.rest(MAX_APDU)?;
                if apdu.len() < 2 {
                    return Err(MessageError::Short);
                }
                Self::Response { apdu }
            }
            CONTROLLED => Self::Controlled { output: fields.rest(MAX_APDU)? },
            FAILED => {
                let failure = match fields.u8()? {
                    0 => Failure::NotPresent,
                    1 => Failure::TimedOut,
                    2 => Failure::BadRequest,
                    3 => Failure::Unsupported,
                    4 => Failure::Cancelled,
                    _ => return Err(MessageError::Field),
                };
                Self::Failed { failure }
            }
            PRESENCE => {
                let present = fields.bool()?;
                let generation = fields.u64()?;
                let atr = fields.rest(MAX_ATR)?;
                if present == atr.is_empty() || (present && generation == 0) {
                    return Err(MessageError::Field);
                }
                Self::Presence(Presence { present, generation, atr })
            }
            kind => return Err(MessageError::Kind(kind)),
        };
        fields.end()?;
        Ok(reply)
    }
}

/// Takes fields off the front of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn new(body: &'a [u8]) -> Result<(u8, Self), MessageError> {
        let (kind, rest) = body.split_first().ok_or(MessageError::Short)?;
        Ok((*kind, Self(rest)))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(MessageError::Short)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u8(&mut self) -> Result<u8, MessageError> {
        self.array().map(u8::from_be_bytes)
    }

    fn bool(&mut self) -> Result<bool, MessageError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(MessageError::Field),
        }
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, MessageError> {
        self.array().map(u64::from_be_bytes)
    }

    fn rest(&mut self, limit: usize) -> Result<&'a [u8], MessageError> {
        let rest = std::mem::take(&mut self.0);
        if rest.len() > limit { Err(MessageError::Long) } else { Ok(rest) }
    }

    fn end(&self) -> Result<(), MessageError> {
        if self.0.is_empty() { Ok(()) } else { Err(MessageError::Long) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::PinOperation;
    use super::*;

    fn body(frame: &[u8]) -> &[u8] {
        let (length, body) = frame.split_first_chunk::<4>().unwrap();
        assert_eq!(u32::from_be_bytes(*length) as usize, body.len());
        body
    }

    #[test]
    fn every_request_survives_its_own_encoding() {
        let long = vec![0x5A; MAX_APDU];
        let mut frame = Vec::new();
        for request in [
            Request::hello(Role::Command, 3),
            Request::hello(Role::Events, 0),
            Request::Power { action: PowerAction::Up, generation: 1 },
            Request::Power { action: PowerAction::Down, generation: u64::MAX },
            Request::Power { action: PowerAction::Reset, generation: 7 },
            Request::Transmit { apdu: &[] },
            Request::Transmit { apdu: &long },
            Request::Control { code: 0x4200_0D48, input: &[1, 2] },
            Request::PinEntry(PinEntry::new(PinOperation::Verify, 0x80, None).unwrap()),
            Request::PinEntry(PinEntry::new(PinOperation::Change, 0x81, Some(Duration::from_secs(7))).unwrap()),
        ] {
            request.encode(&mut frame).unwrap();
            assert_eq!(Request::parse(body(&frame)).unwrap(), request);
        }
    }

    #[test]
    fn every_reply_survives_its_own_encoding() {
        let long = vec![0x5A; MAX_APDU];
        let mut frame = Vec::new();
        for reply in [
            Reply::Hello { version: VERSION, verdict: Verdict::Accepted, pin_pad: true },
            Reply::Hello { version: VERSION, verdict: Verdict::NoSuchSlot, pin_pad: false },
            Reply::Hello { version: VERSION + 1, verdict: Verdict::Version, pin_pad: false },
            Reply::Powered { atr: &[0x3B, 0x80] },
            Reply::Response { apdu: &[0x90, 0] },
            Reply::Response { apdu: &long },
            Reply::Controlled { output: &[] },
            Reply::Failed { failure: Failure::NotPresent },
            Reply::Failed { failure: Failure::TimedOut },
            Reply::Failed { failure: Failure::BadRequest },
            Reply::Failed { failure: Failure::Unsupported },
            Reply::Failed { failure: Failure::Cancelled },
            Reply::Presence(Presence { present: true, generation: 9, atr: &[0x3B] }),
            Reply::Presence(Presence { present: false, generation: 0, atr: &[] }),
        ] {
            reply.encode(&mut frame).unwrap();
            assert_eq!(Reply::parse(body(&frame)).unwrap(), reply);
        }
    }

    #[test]
    fn messages_that_are_refused() {
        for (bytes, error) in [
            (&[][..], MessageError::Short),
            (&[0x55], MessageError::Kind(0x55)),
            (&[RESPONSE, 0x90], MessageError::Short),
            (&[FAILED, 9], MessageError::Field),
            (&[FAILED, 0, 0], MessageError::Long),
            (&[PRESENCE, 1, 0, 0, 0, 0, 0, 0, 0, 1], MessageError::Field),
            (&[PRESENCE, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x3B], MessageError::Field),
            (&[PRESENCE, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x3B], MessageError::Field),
            (&[POWERED; MAX_ATR + 2], MessageError::Long),
            (&[HELLO_REPLY, 0, 2, 0], MessageError::Short),
            (&[HELLO_REPLY, 0, 2, 0, 2], MessageError::Field),
        ] {
            assert_eq!(Reply::parse(bytes).unwrap_err(), error, "{bytes:02x?}");
        }
        for (bytes, error) in [
            (&[][..], MessageError::Short),
            (&[HELLO, 0], MessageError::Short),
            (&[HELLO, 0, 2, 7, 0, 0, 0, 0], MessageError::Field),
            (&[POWER, 3, 0, 0, 0, 0, 0, 0, 0, 0], MessageError::Field),
            (&[POWER, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], MessageError::Long),
            (&[HELLO_REPLY], MessageError::Kind(HELLO_REPLY)),
            (&[PIN_ENTRY, 1, 0x80], MessageError::Short),
            (&[PIN_ENTRY, 1, 0x80, 0, 0], MessageError::Long),
            (&[PIN_ENTRY, 1, 0x81, 0], MessageError::Field),
        ] {
            assert_eq!(Request::parse(bytes).unwrap_err(), error, "{bytes:02x?}");
        }
        assert_eq!(Request::parse(&[TRANSMIT; MAX_APDU + 2]).unwrap_err(), MessageError::Long);
    }

    #[test]
    fn a_hello_of_another_release_is_understood_as_far_as_its_version() {
        let future = [HELLO, 0, 99, 0xFF, 1, 2, 3, 4, 5, 6, 7];
        assert!(matches!(Request::parse(&future), Ok(Request::Hello { version: 99, .. })));
        let future = [HELLO_REPLY, 0, 99, 0xFF, 1];
        assert!(matches!(Reply::parse(&future), Ok(Reply::Hello { version: 99, verdict: Verdict::Version, .. })));
    }

    #[test]
    fn debug_shows_no_bytes() {
        let pin = b"\x00\x20\x00\x80\x08123456\xff\xff";
        assert_eq!(format!("{:?}", Request::Transmit { apdu: pin }), "Transmit(13 bytes)");
        assert_eq!(format!("{:?}", Reply::Response { apdu: pin }), "Response(13 bytes)");
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut frame = Vec::new();
            if let Ok(request) = Request::parse(&bytes) {
                request.encode(&mut frame).unwrap();
                if !matches!(request, Request::Hello { version, .. } if version != VERSION) {
                    prop_assert_eq!(body(&frame), &bytes[..]);
                }
            }
            if let Ok(reply) = Reply::parse(&bytes) {
                reply.encode(&mut frame).unwrap();
                if !matches!(reply, Reply::Hello { version, .. } if version != VERSION) {
                    prop_assert_eq!(body(&frame), &bytes[..]);
                }
            }
        }
    }
}
