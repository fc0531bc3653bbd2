//! Two links over GATT's fragments: an object of 12.7 KB, a radio that keeps no order or loses something.

use proptest::prelude::*;

use super::*;
use crate::fragment::{FragmentError, FragmentLayer, FragmentSize};
use crate::gatt;
use crate::link::EARLY_MESSAGE_LIMIT;

/// The largest object that PIV knows: the facial image. Spec: SP 800-73-4 part 1, table 7
const OBJECT: usize = 12_710;

/// Longest time on the air. Far more than the distance of two fragments, so that whole windows arrive upside down.
const FLIGHT: Duration = Duration::from_millis(40);

struct End {
    link: Link,
    fragments: FragmentLayer,
    received: Vec<Envelope>,
    failed: Option<FragmentError>,
}

impl End {
    fn new(link: Link, mtu: usize) -> Self {
        let fragments = FragmentLayer::new(FragmentSize::from_mtu(mtu), EARLY_MESSAGE_LIMIT);
        Self { link, fragments, received: Vec::new(), failed: None }
    }

    fn take(&mut self, fragment: &[u8], now: Timestamp) {
        let result = self.fragments.handle_fragment(fragment, now);
        self.check(result, now);
        self.link.handle_progress(now);
        while let Some(message) = self.fragments.poll_message() {
            self.link.handle_message(&message, now);
            self.fragments.set_limit(self.link.message_limit());
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.link.handle_timeout(now);
        let result = self.fragments.handle_timeout(now);
        self.check(result, now);
    }

    fn check(&mut self, result: Result<(), FragmentError>, now: Timestamp) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
            self.link.close(CloseReason::Lost, now);
        }
    }

    /// What goes on the air now.
    fn transmit(&mut self, now: Timestamp) -> Vec<Vec<u8>> {
        while let Some(message) = self.link.poll_transmit() {
            self.fragments.push(message).expect("a link makes no message that is too long");
        }
        while let Some(event) = self.link.poll_event() {
            if let Event::Message(envelope) = event {
                self.received.push(envelope);
            }
        }
        std::iter::from_fn(|| self.fragments.poll_transmit(now)).collect()
    }

    fn due(&self) -> Option<Timestamp> {
        let fragments = self.failed.map_or_else(|| self.fragments.poll_timeout(), |_| None);
        [self.link.poll_timeout(), fragments].into_iter().flatten().min()
    }
}

/// Both ends and the air between them.
struct Air {
    host: End,
    phone: End,
    now: Timestamp,
    flying: Vec<(Timestamp, Side, Vec<u8>)>,
    fragments: usize,
    longest: usize,
    lose: Option<usize>,
    random: TestEntropy,
}

impl Air {
    fn new(mtu: usize, seed: u64, lose: Option<usize>) -> Self {
        let parties = Parties::new(1);
        let keys = parties.pair();
        let mut host = End::new(Link::host_connect(parties.host.clone(), &keys, Timestamp::ZERO), mtu);
        let mut phone = End::new(Link::phone(parties.phone.clone(), Timestamp::ZERO), mtu);
        // The first `Info` is read.
        let info = phone.link.poll_transmit().expect("a phone has an Info");
        let value = gatt::info_value(&info).expect("its first message");
        host.link.handle_message(&gatt::info_message(value), Timestamp::ZERO);
        let random = TestEntropy::new(seed);
        Self { host, phone, now: Timestamp::ZERO, flying: Vec::new(), fragments: 0, longest: 0, lose, random }
    }

    /// Runs until the air is empty and nothing is due within `patience`.
    fn run(&mut self, patience: Duration) {
        loop {
            for side in [Side::Host, Side::Phone] {
                let end = if side == Side::Host { &mut self.host } else { &mut self.phone };
                for fragment in end.transmit(self.now) {
                    self.longest = self.longest.max(fragment.len());
                    // A lost credit shows only when the next ones are missing, too.
                    let lost = fragment.len() > 3 && self.lose == Some(self.fragments);
                    self.fragments += usize::from(fragment.len() > 3);
                    let mut byte = [0];
                    crate::Entropy::fill(&self.random, &mut byte).expect("it never fails");
                    if !lost {
                        self.flying.push((self.now + FLIGHT * u32::from(byte[0]) / 255, side, fragment));
                    }
                }
            }
            let next = self
                .flying
                .iter()
                .enumerate()
                .min_by_key(|(_, (due, ..))| *due)
                .map(|(index, (due, ..))| (index, *due));
            let timer = [self.host.due(), self.phone.due()].into_iter().flatten().min();
            match (next, timer) {
                (Some((index, due)), timer) if timer.is_none_or(|timer| due <= timer) => {
                    let (_, from, fragment) = self.flying.remove(index);
                    self.now = self.now.max(due);
                    let end = if from == Side::Host { &mut self.phone } else { &mut self.host };
                    end.take(&fragment, self.now);
                }
                (_, Some(timer)) if timer <= self.now + patience => {
                    self.now = self.now.max(timer);
                    self.host.handle_timeout(self.now);
                    self.phone.handle_timeout(self.now);
                }
                _ => return,
            }
        }
    }

    /// An object each way: as a command of the host and in the response of the phone.
    fn exchange(&mut self) {
        self.run(Duration::ZERO);
        // The phone takes no long message before a first one has shown that the host is who it says.
        let _ = self.host.link.send(&transmit(1).into(), self.now);
        self.run(Duration::ZERO);
        let _ = self.phone.link.send(&response(1, 2).into(), self.now);
        let command = Transmit { command: vec![0xA5; OBJECT], ..transmit(2) };
        let _ = self.host.link.send(&command.into(), self.now);
        self.run(Duration::ZERO);
        let _ = self.phone.link.send(&response(2, OBJECT).into(), self.now);
        self.run(Duration::from_secs(10));
    }
}

fn length(envelope: &Envelope) -> usize {
    match envelope.body.as_ref() {
        Some(messages::Body::Transmit(transmit)) => transmit.command.len(),
        Some(messages::Body::Response(response)) => response.response.len(),
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_object_passes_both_ways_in_any_order(mtu in prop::sample::select(vec![23usize, 185, 517]), seed: u64) {
        let mut air = Air::new(mtu, seed, None);
        air.exchange();
        prop_assert_eq!((air.host.failed, air.phone.failed), (None, None));
        prop_assert_eq!(air.phone.received.iter().map(length).collect::<Vec<_>>(), [4, OBJECT]);
        prop_assert_eq!(air.host.received.iter().map(length).collect::<Vec<_>>(), [2, OBJECT]);
        prop_assert!(air.longest <= (mtu - 3).min(244), "{}", air.longest);
    }

    /// GATT itself loses nothing while the link is up; whoever makes it do so ends the link and nothing else.
    #[test]
    fn a_loss_ends_the_link(mtu in prop::sample::select(vec![23usize, 185, 517]), seed: u64, lost in 1usize..60) {
        let mut air = Air::new(mtu, seed, Some(lost));
        air.exchange();
        prop_assert!(air.host.link.is_closed() || air.phone.link.is_closed());
        prop_assert!(air.now <= Timestamp::ZERO + Duration::from_secs(20));
    }
}
