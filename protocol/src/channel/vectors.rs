//! Our primitives against vectors from elsewhere, and against snow's own primitives.

use std::sync::Arc;

use serde::Deserialize;
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState, TransportState};

use super::resolver::Resolver;
use super::{Handshake, Pattern, Psk, StaticSecret};
use crate::entropy::{Entropy, EntropyError};
use crate::test_support::TestEntropy;
use crate::time::Timestamp;

/// The ephemeral key of a vector, in place of randomness.
struct Ephemeral([u8; 32]);

impl Entropy for Ephemeral {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        buffer.copy_from_slice(&self.0);
        Ok(())
    }
}

#[derive(Deserialize)]
struct File {
    source: String,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    protocol_name: String,
    #[serde(with = "hex::serde")]
    init_prologue: Vec<u8>,
    #[serde(with = "hex::serde")]
    init_static: [u8; 32],
    #[serde(with = "hex::serde")]
    init_ephemeral: [u8; 32],
    init_remote_static: Option<String>,
    #[serde(default)]
    init_psks: Vec<String>,
    #[serde(with = "hex::serde")]
    resp_static: [u8; 32],
    #[serde(with = "hex::serde")]
    resp_ephemeral: [u8; 32],
    #[serde(with = "hex::serde")]
    handshake_hash: [u8; 32],
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(with = "hex::serde")]
    payload: Vec<u8>,
    #[serde(with = "hex::serde")]
    ciphertext: Vec<u8>,
}

const PATTERNS: [Pattern; 3] = [Pattern::Connect, Pattern::PairScanned, Pattern::PairCompared];

fn builder<'a>(
    name: &str,
    ours: bool,
    entropy: [u8; 32],
    secret: &'a [u8; 32],
    remote: Option<&'a Vec<u8>>,
    psk: Option<&'a (u8, [u8; 32])>,
    prologue: &'a [u8],
) -> Builder<'a> {
    let parameters: NoiseParams = name.parse().expect("a pattern that snow knows");
    let mut builder = if ours {
        Builder::with_resolver(parameters, Box::new(Resolver(Arc::new(Ephemeral(entropy)))))
    } else {
        Builder::new(parameters)
    };
    builder = builder.local_private_key(secret).expect("once").prologue(prologue).expect("once");
    if let Some(remote) = remote {
        builder = builder.remote_public_key(remote).expect("once");
    }
    if let Some((position, psk)) = psk {
        builder = builder.psk(*position, psk).expect("once");
    }
    builder
}

#[test]
fn the_vectors_of_cacophony() {
    let file: File = serde_json::from_str(include_str!("../../tests/vectors/noise.json")).expect("the file of vectors");
    assert!(file.source.contains("cacophony"));
    let mut names: Vec<&str> = file.vectors.iter().map(|vector| vector.protocol_name.as_str()).collect();
    names.sort_unstable();
    let mut ours = PATTERNS.map(Pattern::name);
    ours.sort_unstable();
    assert_eq!(names, ours);
    for vector in &file.vectors {
        check(vector);
    }
}

fn check(vector: &Vector) {
    let name = &vector.protocol_name;
    let psk = vector.init_psks.first().map(|psk| {
        let pattern = PATTERNS.into_iter().find(|pattern| pattern.name() == name).expect("one of ours");
        let position = if pattern == Pattern::Connect { 2 } else { 3 };
        (position, hex::decode(psk).expect("hex").try_into().expect("32 bytes"))
    });
    let remote = vector.init_remote_static.as_ref().map(|key| hex::decode(key).expect("hex"));
    let prologue = &vector.init_prologue;
    let mut initiator =
        builder(name, true, vector.init_ephemeral, &vector.init_static, remote.as_ref(), psk.as_ref(), prologue)
            .build_initiator()
            .expect("keys");
    let mut responder = builder(name, true, vector.resp_ephemeral, &vector.resp_static, None, psk.as_ref(), prologue)
        .build_responder()
        .expect("keys");

    let (handshake, transport): (Vec<_>, Vec<_>) = {
        let count = if name.contains("XX") { 3 } else { 2 };
        let (handshake, transport) = vector.messages.split_at(count);
        (handshake.iter().collect(), transport.iter().collect())
    };
    let (mut sealed, mut opened) = ([0; 65_535], [0; 65_535]);
    let mut turn = |writer: &mut HandshakeState, reader: &mut HandshakeState, message: &Message| {
        let length = writer.write_message(&message.payload, &mut sealed).expect("written");
        assert_eq!(sealed[..length], message.ciphertext, "{name}");
        let length = reader.read_message(&sealed[..length], &mut opened).expect("read");
        assert_eq!(opened[..length], message.payload, "{name}");
    };
    for (index, message) in handshake.iter().enumerate() {
        if index % 2 == 0 {
            turn(&mut initiator, &mut responder, message);
        } else {
            turn(&mut responder, &mut initiator, message);
        }
    }
    assert_eq!(initiator.get_handshake_hash(), vector.handshake_hash, "{name}");
    assert_eq!(responder.get_handshake_hash(), vector.handshake_hash, "{name}");

    let mut initiator = initiator.into_transport_mode().expect("finished");
    let mut responder = responder.into_transport_mode().expect("finished");
    let mut turn = |writer: &mut TransportState, reader: &mut TransportState, message: &Message| {
        let length = writer.write_message(&message.payload, &mut sealed).expect("written");
        assert_eq!(sealed[..length], message.ciphertext, "{name}");
        let length = reader.read_message(&sealed[..length], &mut opened).expect("read");
        assert_eq!(opened[..length], message.payload, "{name}");
    };
    for (index, message) in transport.iter().enumerate() {
        if (handshake.len() + index).is_multiple_of(2) {
            turn(&mut initiator, &mut responder, message);
        } else {
            turn(&mut responder, &mut initiator, message);
        }
    }
}

/// Every pattern, either side ours and the other snow's own, through the handshake, messages and key changes.
#[test]
fn our_primitives_agree_with_those_of_snow() {
    let entropy = TestEntropy::new(5);
    for pattern in PATTERNS {
        for ours in [[true, false], [false, true], [true, true]] {
            let mut bytes = [[0; 32]; 5];
            for bytes in &mut bytes {
                entropy.fill(bytes).expect("test entropy");
            }
            let [host, phone, psk, e1, e2] = bytes;
            let remote = StaticSecret::from_bytes(&phone).public().as_bytes().to_vec();
            let psk = match pattern {
                Pattern::Connect => Some((2, psk)),
                Pattern::PairScanned => Some((3, psk)),
                Pattern::PairCompared => None,
            };
            let remote = (pattern == Pattern::Connect).then_some(&remote);
            let name = pattern.name();
            let mut sides = [
                builder(name, ours[0], e1, &host, remote, psk.as_ref(), b"prologue").build_initiator().expect("keys"),
                builder(name, ours[1], e2, &phone, None, psk.as_ref(), b"prologue").build_responder().expect("keys"),
            ];
            let (mut sealed, mut opened) = ([0; 65_535], [0; 65_535]);
            let mut writer = 0;
            while !sides[0].is_handshake_finished() || !sides[1].is_handshake_finished() {
                let length = sides[writer].write_message(b"payload", &mut sealed).expect("written");
                let length = sides[1 - writer].read_message(&sealed[..length], &mut opened).expect("read");
                assert_eq!(&opened[..length], b"payload");
                writer = 1 - writer;
            }
            assert_eq!(sides[0].get_handshake_hash(), sides[1].get_handshake_hash());
            let mut sides = sides.map(|side| side.into_transport_mode().expect("finished"));
            for round in 0..20_usize {
                let mut payload = vec![0; round * 97];
                entropy.fill(&mut payload).expect("test entropy");
                let writer = round % 2;
                let length = sides[writer].write_message(&payload, &mut sealed).expect("written");
                let length = sides[1 - writer].read_message(&sealed[..length], &mut opened).expect("read");
                assert_eq!(opened[..length], payload);
                if round % 5 == 4 {
                    sides[writer].rekey_outgoing();
                    sides[1 - writer].rekey_incoming();
                }
            }
        }
    }
}

#[test]
fn a_point_of_small_order_is_refused() {
    // Every u-coordinate of order 1, 2, 4 or 8, and those of the twist: RFC 7748 section 6.1, RFC 7748 errata.
    let points = [
        [0; 32],
        {
            let mut one = [0; 32];
            one[0] = 1;
            one
        },
        hex_literal::hex!("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex_literal::hex!("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        hex_literal::hex!("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        hex_literal::hex!("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        hex_literal::hex!("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ];
    let entropy: Arc<dyn Entropy> = Arc::new(TestEntropy::new(1));
    let secret = StaticSecret::from_bytes(&[7; 32]);
    for point in points {
        let mut phone = Handshake::responder(Pattern::PairCompared, b"", &secret, None, &entropy).expect("keys");
        phone.read(&point).expect("message 1 is only the point");
        assert_eq!(phone.write(&mut Vec::new()), Err(super::ChannelError::Decrypt), "{point:02x?}");
        let remote = super::PublicKey::from(point);
        let psk = Psk::from_bytes(&[1; 32]);
        let mut host =
            Handshake::initiator(Pattern::Connect, b"", &secret, Some(&remote), Some(&psk), &entropy).expect("keys");
        assert_eq!(host.write(&mut Vec::new()), Err(super::ChannelError::Decrypt), "{point:02x?}");
    }
}

#[test]
fn a_handshake_keeps_its_order() {
    let entropy: Arc<dyn Entropy> = Arc::new(TestEntropy::new(1));
    let secret = StaticSecret::from_bytes(&[7; 32]);
    let mut host = Handshake::initiator(Pattern::PairCompared, b"", &secret, None, None, &entropy).expect("keys");
    assert_eq!(host.read(&[0; 48]), Err(super::ChannelError::State));
    host.write(&mut Vec::new()).expect("message 1");
    assert_eq!(host.write(&mut Vec::new()), Err(super::ChannelError::State));
    assert!(host.finish(Timestamp::ZERO).is_err());
    let missing = Handshake::initiator(Pattern::Connect, b"", &secret, Some(&secret.public()), None, &entropy);
    assert_eq!(missing.err(), Some(super::ChannelError::State));
    let missing =
        Handshake::initiator(Pattern::Connect, b"", &secret, None, Some(&Psk::from_bytes(&[0; 32])), &entropy);
    assert_eq!(missing.err(), Some(super::ChannelError::State));
}

#[test]
fn a_payload_in_a_handshake_message_is_refused() {
    let secret = StaticSecret::from_bytes(&[7; 32]);
    let entropy: Arc<dyn Entropy> = Arc::new(TestEntropy::new(1));
    let longer = [secret.public().as_bytes().as_slice(), &[0]].concat();
    for message in [longer.as_slice(), &[0; 300], &[0; 31], &[]] {
        let mut phone = Handshake::responder(Pattern::PairCompared, b"", &secret, None, &entropy).expect("keys");
        assert_eq!(phone.read(message), Err(super::ChannelError::Length));
    }
}
