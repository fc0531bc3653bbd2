//! The notices of `pocketcard watch`, on a bus of the test's own with a desktop that only takes them down.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use dbus::arg::messageitem::MessageItem;
use dbus::blocking::SyncConnection;
use dbus::channel::{Channel, MatchingReceiver, Sender as _};
use dbus::message::MatchRule;
use pocketcard_dev::{Card, Environment, TEST_PIN};
use pocketcard_tests::bus::Bus;
use pocketcard_tests::client::{Client, program};
use pocketcard_tests::skip;

use crate::{LIMIT, SOON, VERIFY, VERIFY_PIN, enter, question, with_phone};

/// What came over the bus: a notice with its number and words, or the end of one.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Shown { number: u32, summary: String, body: String },
    Closed { number: u32 },
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `pocketcard watch`, which watches when this returns.
fn watch(environment: &Environment, bus: &str, arguments: &[&str]) -> (Running, Receiver<String>) {
    let mut watch = environment.command(program("pocketcard"));
    watch.arg("watch").args(arguments).env("DBUS_SESSION_BUS_ADDRESS", bus).stdout(Stdio::piped()).stdin(Stdio::null());
    watch.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    let mut watch = Running(watch.spawn().unwrap());
    let lines = BufReader::new(watch.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (sender, printed) = mpsc::channel();
    std::thread::spawn(move || lines.for_each(|line| drop(sender.send(line))));
    // The status comes when it is watched: from then on nothing is missed.
    until(&printed, "slot 0");
    (watch, printed)
}

/// Waits for a line with this in it.
fn until(printed: &Receiver<String>, part: &str) {
    while !printed.recv_timeout(SOON).unwrap_or_else(|_| panic!("{part:?} is not printed")).contains(part) {}
}

/// Serves `org.freedesktop.Notifications` until the test ends.
fn desktop(address: &str) -> Receiver<Told> {
    let (sender, told) = mpsc::channel();
    let mut channel = Channel::open_private(address).unwrap();
    channel.register().unwrap();
    let connection = SyncConnection::from(channel);
    connection.request_name("org.freedesktop.Notifications", false, true, false).unwrap();
    let numbers = std::sync::atomic::AtomicU32::new(1);
    connection.start_receive(
        MatchRule::new_method_call(),
        Box::new(move |message, connection| {
            let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let answer = take_down(&message, number, &sender);
            let reply = message.method_return();
            let _ = connection.send(match answer {
                Some(number) => reply.append1(number),
                None => reply,
            });
            true
        }),
    );
    std::thread::spawn(move || while connection.process(Duration::from_secs(1)).is_ok() {});
    told
}

fn take_down(message: &dbus::Message, number: u32, told: &Sender<Told>) -> Option<u32> {
    let items = message.get_items();
    match (message.member()?.as_ref(), items.as_slice()) {
        ("Notify", [_, _, _, MessageItem::Str(summary), MessageItem::Str(body), ..]) => {
            let _ = told.send(Told::Shown { number, summary: summary.clone(), body: body.clone() });
            Some(number)
        }
        ("CloseNotification", [MessageItem::UInt32(number)]) => {
            let _ = told.send(Told::Closed { number: *number });
            None
        }
        _ => None,
    }
}

#[test]
fn a_notice_stands_while_the_phone_waits_for_its_owner() {
    let mut environment = with_phone(Card::Empty);
    let Some((_bus, address)) = Bus::start(environment.folder()) else { skip!("dbus-daemon is not installed") };
    let told = desktop(&address);
    let (_watch, printed) = watch(&environment, &address, &[]);
    let mut client = Client::connected(&environment, 0);
    let verify = |client: &mut Client| client.send(&["control", VERIFY, &VERIFY_PIN.replace(' ', "")]);
    verify(&mut client);
    let Told::Shown { number, summary, body } = told.recv_timeout(SOON).unwrap() else { panic!("no notice") };
    let phone = environment.phone(0).unwrap().name().to_owned();
    assert_eq!(summary, format!("Enter the PIN on {phone}"));
    assert!(body.contains("slot 0") && body.contains("pocketcard cancel"), "{body}");
    enter(environment.phone(0).unwrap(), TEST_PIN);
    assert_eq!(client.answer(LIMIT).unwrap(), "9000");
    assert_eq!(told.recv_timeout(SOON).unwrap(), Told::Closed { number });
    until(&printed, "PIN to be entered on the phone");

    // Nobody answers: the notice goes, and what was refused stays to be read.
    client.send(&["control", VERIFY, &VERIFY_PIN.replacen("1e1e", "0101", 1).replace(' ', "")]);
    question(environment.phone(0).unwrap());
    let Told::Shown { number, .. } = told.recv_timeout(SOON).unwrap() else { panic!("no notice") };
    assert_eq!(client.answer(LIMIT).unwrap(), "6400");
    assert_eq!(told.recv_timeout(SOON).unwrap(), Told::Closed { number });
    let Told::Shown { summary, body, .. } = told.recv_timeout(SOON).unwrap() else { panic!("no notice") };
    assert_eq!(summary, format!("{phone} refused"));
    assert!(body.contains("in time"), "{body}");
}

#[test]
fn a_session_that_may_be_open_is_shown_until_the_phone_is_back() {
    let mut environment = with_phone(Card::Empty);
    let Some((_bus, address)) = Bus::start(environment.folder()) else { skip!("dbus-daemon is not installed") };
    let told = desktop(&address);
    let (_watch, _printed) = watch(&environment, &address, &["--lock"]);
    environment.phone(0).unwrap().kill();
    let Told::Shown { number, summary, body } = told.recv_timeout(SOON).unwrap() else { panic!("no notice") };
    assert_eq!(summary, "Your phone left, and this session may be open");
    assert!(body.contains("logind does not answer"), "{body}");
    environment.phone(0).unwrap().restart().unwrap();
    assert_eq!(told.recv_timeout(SOON).unwrap(), Told::Closed { number });
}

#[test]
fn without_a_desktop_events_are_printed_all_the_same() {
    let mut environment = with_phone(Card::Empty);
    let (_watch, printed) = watch(&environment, "unix:path=/nonexistent/bus", &[]);
    let mut client = Client::connected(&environment, 0);
    client.send(&["control", VERIFY, &VERIFY_PIN.replace(' ', "")]);
    until(&printed, "PIN to be entered on the phone");
    enter(environment.phone(0).unwrap(), TEST_PIN);
    assert_eq!(client.answer(LIMIT).unwrap(), "9000");
    until(&printed, "has answered");
}
