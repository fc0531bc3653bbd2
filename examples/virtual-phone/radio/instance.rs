//! One instance of the service, and the one host that it serves at a time.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bluer::{
    Address,
    gatt::{
        CharacteristicReader, CharacteristicWriter,
        local::{CharacteristicControl, CharacteristicControlEvent, ReqError},
    },
};
use futures_lite::StreamExt;
use pocketcard_phone::{
    Clock,
    runtime::{LinkHandle, Phone, SendOutcome, Transport},
};
use pocketcard_protocol::{
    Timestamp,
    fragment::{FragmentLayer, FragmentSize},
    gatt,
    l2cap::Psm,
    link::{EARLY_MESSAGE_LIMIT, LINK_MESSAGE_LIMIT},
};
use serde_json::json;
use tokio::sync::{Notify, mpsc};

use super::server::InfoRequest;
use crate::{clock::BootClock, output::Output};

/// How long a host that has read `Info` may take to subscribe. Spec: SPEC.md section 11.4
const CLAIM: Duration = Duration::from_secs(5);

/// How long the last fragments of a link that is over may take. Spec: SPEC.md section 11.4
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// What bluer takes from the ATT MTU: BlueZ drops the end of a notification that uses all of it.
const UNUSED: usize = 5;

/// What BlueZ asks of an instance.
pub(super) struct Requests {
    pub(super) infos: mpsc::Receiver<InfoRequest>,
    pub(super) writes: CharacteristicControl,
    pub(super) subscriptions: CharacteristicControl,
    /// Hosts that went on over a channel of L2CAP.
    pub(super) departures: mpsc::Receiver<Address>,
}

pub(super) struct Instance {
    number: u8,
    phone: Phone,
    /// Where hosts may open channels of L2CAP, if they may.
    psm: Option<Psm>,
    output: Output,
    link: Option<Link>,
}

enum Event {
    Info(InfoRequest),
    Control(CharacteristicControlEvent),
    Departed(Address),
    Link(LinkEvent),
    /// BlueZ asks no more.
    Ended,
}

enum LinkEvent {
    Fragment(Vec<u8>),
    /// There may be something to send, room to send it, or a limit that has passed.
    Stirred,
    Gone,
}

/// The link is to be let go.
struct Over;

impl Instance {
    pub(super) fn new(number: u8, phone: Phone, psm: Option<Psm>, output: Output) -> Self {
        Self { number, phone, psm, output, link: None }
    }

    pub(super) async fn run(mut self, mut requests: Requests) {
        loop {
            let step = match self.next(&mut requests).await {
                Event::Ended => return,
                Event::Info(request) => self.info(request).await,
                Event::Control(event) => {
                    self.control(event);
                    Ok(())
                }
                Event::Departed(central) => self.departed(central),
                Event::Link(LinkEvent::Fragment(fragment)) => self.fragment(&fragment).await,
                Event::Link(LinkEvent::Stirred) => Ok(()),
                Event::Link(LinkEvent::Gone) => Err(Over),
            };
            let over = step.is_err() || self.link.as_mut().is_some_and(|link| link.pump().is_err());
            if over {
                self.let_go();
            }
        }
    }

    async fn next(&mut self, requests: &mut Requests) -> Event {
        let link = async {
            match &self.link {
                Some(link) => link.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            request = requests.infos.recv() => request.map_or(Event::Ended, Event::Info),
            event = requests.writes.next() => event.map_or(Event::Ended, Event::Control),
            event = requests.subscriptions.next() => event.map_or(Event::Ended, Event::Control),
            Some(central) = requests.departures.recv() => Event::Departed(central),
            event = link => Event::Link(event),
        }
    }

    /// A host reads `Info`: that begins its link, if the instance is free or this host's own.
    async fn info(&mut self, request: InfoRequest) -> Result<(), Over> {
        let InfoRequest { central, begins, value } = request;
        if self.link.as_ref().is_some_and(|link| link.central != central) {
            return Ok(());
        }
        if begins {
            self.let_go();
            self.link = Some(Link::new(&self.phone, central, self.psm));
        }
        let Some(link) = &self.link else { return Ok(()) };
        let info = tokio::time::timeout(CLAIM, link.shared.info()).await.map_err(|_| Over)?.ok_or(Over)?;
        // A host that no longer waits for it begins again.
        let _ = value.send(info);
        Ok(())
    }

    /// A host that has only read `Info` here has its link elsewhere.
    fn departed(&self, central: Address) -> Result<(), Over> {
        let claimed = self.link.as_ref().is_some_and(|link| link.central == central && link.writer.is_none());
        if claimed { Err(Over) } else { Ok(()) }
    }

    fn control(&mut self, event: CharacteristicControlEvent) {
        let link = self.link.as_mut();
        match event {
            CharacteristicControlEvent::Write(request) => match link {
                Some(link) if link.central == request.device_address() => link.reader = request.accept().ok(),
                _ => request.reject(ReqError::NotPermitted),
            },
            // BlueZ has subscribed the host already; without a link there is nothing for it to hear.
            CharacteristicControlEvent::Notify(writer) => {
                let Some(link) = link.filter(|link| link.central == writer.device_address()) else { return };
                let mtu = writer.mtu() + UNUSED;
                link.fragments.set_size(FragmentSize::new(writer.mtu().min(FragmentSize::DEFAULT.bytes())));
                link.writer = Some(writer);
                self.output.event(&json!({
                    "event": "radio_link", "up": true, "central": link.central.to_string(), "transport": "gatt",
                    "mtu": mtu, "instance": self.number,
                }));
            }
        }
    }

    async fn fragment(&mut self, fragment: &[u8]) -> Result<(), Over> {
        let Some(link) = &mut self.link else { return Ok(()) };
        if link.handle.is_authenticated() {
            link.fragments.set_limit(LINK_MESSAGE_LIMIT);
        }
        link.fragments.handle_fragment(fragment, BootClock.now()).map_err(|_| Over)?;
        while let Some(message) = link.fragments.poll_message() {
            link.handle.push_message(message).await.map_err(|_| Over)?;
        }
        Ok(())
    }

    fn let_go(&mut self) {
        let Some(link) = self.link.take() else { return };
        if link.writer.is_some() {
            self.output.event(&json!({
                "event": "radio_link", "up": false, "central": link.central.to_string(), "transport": "gatt", "instance": self.number,
            }));
        }
    }
}

struct Link {
    central: Address,
    handle: LinkHandle,
    shared: Arc<Shared>,
    fragments: FragmentLayer,
    reader: Option<CharacteristicReader>,
    writer: Option<CharacteristicWriter>,
    /// A fragment that BlueZ had no room for.
    unsent: Option<Vec<u8>>,
    claimed: Timestamp,
    /// When the phone was done with the link.
    closed: Option<Timestamp>,
}

impl Link {
    fn new(phone: &Phone, central: Address, psm: Option<Psm>) -> Self {
        let shared = Arc::new(Shared::default());
        let handle = phone.link_up(Box::new(GattTransport { shared: Arc::clone(&shared), psm }));
        Self {
            central,
            handle,
            shared,
            fragments: FragmentLayer::new(FragmentSize::default(), EARLY_MESSAGE_LIMIT),
            reader: None,
            writer: None,
            unsent: None,
            claimed: BootClock.now(),
            closed: None,
        }
    }

    async fn next(&self) -> LinkEvent {
        let fragment = async {
            match &self.reader {
                Some(reader) => reader.recv().await,
                None => std::future::pending().await,
            }
        };
        let room = async {
            match &self.writer {
                Some(writer) if self.unsent.is_some() => writer.sendable().await,
                _ => std::future::pending().await,
            }
        };
        let unsubscribed = async {
            match &self.writer {
                Some(writer) => writer.closed().await,
                None => std::future::pending().await,
            }
        };
        let due = async {
            match self.due() {
                Some(due) => BootClock.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            fragment = fragment => match fragment {
                // A socket that is closed reads as nothing, for ever.
                Ok(fragment) if !fragment.is_empty() => LinkEvent::Fragment(fragment),
                _ => LinkEvent::Gone,
            },
            _ = unsubscribed => LinkEvent::Gone,
            _ = room => LinkEvent::Stirred,
            () = self.shared.changed.notified() => LinkEvent::Stirred,
            () = due => LinkEvent::Stirred,
        }
    }

    fn due(&self) -> Option<Timestamp> {
        let claim = self.writer.is_none().then_some(self.claimed + CLAIM);
        let farewell = self.closed.map(|closed| closed + FAREWELL);
        [claim, farewell, self.fragments.poll_timeout()].into_iter().flatten().min()
    }

    /// Sends as much as there is and BlueZ takes.
    fn pump(&mut self) -> Result<(), Over> {
        let now = BootClock.now();
        self.fragments.handle_timeout(now).map_err(|_| Over)?;
        let subscribed = self.writer.is_some();
        if !subscribed && self.claimed + CLAIM <= now {
            return Err(Over);
        }
        loop {
            if let Some(writer) = &self.writer
                && let Some(fragment) = self.unsent.take().or_else(|| self.fragments.poll_transmit(now))
            {
                match writer.try_send(&fragment) {
                    Ok(()) => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.unsent = Some(fragment);
                        break;
                    }
                    Err(_) => return Err(Over),
                }
            }
            if !self.fragments.is_idle() {
                break;
            }
            let Some(message) = self.shared.state().message.take() else { break };
            self.fragments.push(message).map_err(|_| Over)?;
            self.handle.ready_to_send();
        }
        if self.shared.state().closed {
            let since = *self.closed.get_or_insert(now);
            let done = self.unsent.is_none() && self.fragments.is_idle();
            if done || !subscribed || since + FAREWELL <= now {
                return Err(Over);
            }
        }
        Ok(())
    }
}

/// Between the phone and the instance.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    informed: Notify,
}

#[derive(Default)]
struct State {
    /// The value of the characteristic; every later one also goes out as a message.
    info: Option<Vec<u8>>,
    message: Option<Vec<u8>>,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link's `Info`, as soon as there is one; `None` if the phone wants no more links.
    async fn info(&self) -> Option<Vec<u8>> {
        loop {
            let informed = self.informed.notified();
            {
                let state = self.state();
                if state.info.is_some() || state.closed {
                    return state.info.clone();
                }
            }
            informed.await;
        }
    }
}

struct GattTransport {
    shared: Arc<Shared>,
    psm: Option<Psm>,
}

impl Transport for GattTransport {
    fn send(&mut self, message: &[u8]) -> SendOutcome {
        let mut state = self.shared.state();
        if state.closed {
            return SendOutcome::Gone;
        }
        if let Some(value) = gatt::info_value(message) {
            let first = state.info.is_none();
            if first || state.message.is_none() {
                state.info = Some(value.to_vec());
            }
            if first {
                self.shared.informed.notify_waiters();
                return SendOutcome::Sent;
            }
        }
        if state.message.is_some() {
            return SendOutcome::WouldBlock;
        }
        state.message = Some(message.to_vec());
        self.shared.changed.notify_one();
        SendOutcome::Sent
    }

    fn close(&mut self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_one();
        self.shared.informed.notify_waiters();
    }

    fn psm(&self) -> Option<Psm> {
        self.psm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_of_section_11_4() {
        let spec = include_str!("../../../protocol/SPEC.md");
        for (what, limit) in [
            ("a phone keeps an instance for a host that read `Info` and does not subscribe", CLAIM),
            ("last fragments of a link that is over", FAREWELL),
        ] {
            let row = format!("\n| {what} | {} s |", limit.as_secs_f64());
            assert!(spec.contains(&row), "not in SPEC.md:{row}");
        }
    }

    #[tokio::test]
    async fn the_first_info_is_read_and_a_later_one_sent_too() {
        let shared = Arc::new(Shared::default());
        let mut transport = GattTransport { shared: Arc::clone(&shared), psm: None };
        assert_eq!(transport.send(&gatt::info_message(&[1])), SendOutcome::Sent);
        assert_eq!(shared.info().await, Some(vec![1]));
        assert_eq!(shared.state().message, None);
        let later = gatt::info_message(&[2]);
        assert_eq!(transport.send(&later), SendOutcome::Sent);
        assert_eq!(shared.info().await, Some(vec![2]));
        assert_eq!(shared.state().message, Some(later));
    }

    #[tokio::test]
    async fn one_message_waits_at_a_time_and_none_after_the_end() {
        let shared = Arc::new(Shared::default());
        let mut transport = GattTransport { shared: Arc::clone(&shared), psm: None };
        assert_eq!(transport.send(&[2, 1]), SendOutcome::Sent);
        assert_eq!(transport.send(&[2, 2]), SendOutcome::WouldBlock);
        assert_eq!(shared.state().message.take(), Some(vec![2, 1]));
        assert_eq!(transport.send(&[2, 2]), SendOutcome::Sent);
        transport.close();
        assert_eq!(transport.send(&[2, 3]), SendOutcome::Gone);
        assert_eq!(shared.info().await, None, "a phone that takes no more links has no Info for them");
    }
}
