//! Channels with real hosts, over a socket in the place of the radio: the bytes are the same.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use clap::Parser;
use pocketcard_phone::runtime::PhoneEvent;
use pocketcard_protocol::{
    Timestamp,
    fragment::NEXT_FRAGMENT,
    link::{LINK_MESSAGE_LIMIT, Link, VersionRange},
    messages::Fetch,
    pairing::{Attempts, Offer, PairKeys},
    stream::{self, FrameReader},
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::*;
use crate::{
    arguments::Arguments,
    host::{self, Host, host_config},
    setup::{self, Started},
};

/// A computer whose channel the phone serves, and the end of that.
fn channel(phone: &Phone, link: Link) -> (Host, JoinHandle<Result<(), Over>>) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let near = tokio::net::UnixStream::from_std(near).unwrap();
    let phone = phone.clone();
    let served = tokio::spawn(async move {
        let shared = Arc::new(Shared::default());
        let link = phone.link_up(Box::new(ChannelTransport(Arc::clone(&shared))));
        exchange(near, &shared, &link).await
    });
    let host = Host { stream: far, frames: FrameReader::new(LINK_MESSAGE_LIMIT), link, origin: Instant::now() };
    (host, served)
}

async fn paired(phone: &Phone) -> PairKeys {
    let config = host_config(VersionRange::SUPPORTED);
    let key = config.identity.public();
    let offer =
        Offer::new(&key, &config.name, &pocketcard_phone::SystemEntropy, &Attempts::new(), Timestamp::ZERO).unwrap();
    let events = phone.events();
    phone.scan(&offer.qr_text().unwrap()).await.unwrap();
    let (mut host, _served) = channel(phone, Link::host_pair(config, offer, Timestamp::ZERO));
    let host = spawn_blocking(move || {
        host::digits(&mut host);
        host
    });
    let host = host.await.unwrap();
    while !matches!(events.recv().await.unwrap(), PhoneEvent::PairingDigits { .. }) {}
    phone.confirm_pairing(true).await.unwrap();
    spawn_blocking(move || host::confirm(host)).await.unwrap()
}

#[tokio::test]
async fn a_host_that_asks_and_does_not_read_is_given_up_in_time() {
    use std::os::unix::fs::PermissionsExt;
    let private = std::fs::Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().permissions(private).tempdir().unwrap();
    let (state, socket) = (folder.path().join("state"), folder.path().join("phone.sock"));
    let (state, listen) = (state.display().to_string(), format!("unix:{}", socket.display()));
    let arguments = Arguments::parse_from(["virtual-phone", "--state", &state, "--listen", &listen]);
    let (output, _writer) = Output::start(false, None).unwrap();
    let Started { phone, .. } = setup::start(&arguments, &output).await.unwrap();
    let pair = paired(&phone).await;
    let link = Link::host_connect(host_config(VersionRange::SUPPORTED), &pair, Timestamp::ZERO);
    let (mut host, served) = channel(&phone, link);
    let begin = Instant::now();
    let asked = spawn_blocking(move || {
        let session = host.open();
        host.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        // Far more than the phone keeps of one host, and than the socket holds of its answers.
        for _ in 0..5000 {
            let now = host.now();
            let fetch = Fetch { session, digest: vec![0; 32], offset: 0 };
            host.link.send(&fetch.into(), now).unwrap();
            while let Some(message) = host.link.poll_transmit() {
                if host.stream.write_all(&stream::encode(&message).unwrap()).is_err() {
                    return host;
                }
            }
        }
        host
    });
    let ended = tokio::time::timeout(Duration::from_secs(20), served).await.expect("it ends").unwrap();
    assert!(matches!(ended, Err(Over::Rules(L2capError::Stalled))), "{ended:?}");
    let took = begin.elapsed();
    assert!(took >= NEXT_FRAGMENT && took < NEXT_FRAGMENT + Duration::from_secs(4), "{took:?}");
    drop(asked.await);
}
