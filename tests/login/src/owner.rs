//! The phone's owner: what they enter, confirm and refuse there while a program on the computer waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pocketcard_dev::{Card, DevError, Environment, Phone};
use serde_json::{Value, json};

use crate::failure::{Failure, expect};
use crate::world::{SOON, World};

/// For four keys to be made.
const ENROLMENT_LIMIT: Duration = Duration::from_secs(120);
/// For a question that must not come. Whatever would bring it is over by then.
const NO_QUESTION: Duration = Duration::from_millis(300);

/// How many tries of its PIN a card has.
pub(crate) const ALL_TRIES: u32 = 3;
/// The PIN of a phone that its owner enrolled.
pub(crate) const OWN_PIN: &str = "246813";

/// A machine whose reader has a PIN pad: PINs are entered on the phone.
pub(crate) fn pin_pad_world(card: Card) -> Result<World, Failure> {
    World::start(Environment::builder().card(card).daemon_config("pin_entry = \"phone\"\n"))
}

/// A machine with a phone that its owner enrolled, who is asked for each use of a key.
///
/// - `pin_entry`: where the PIN is entered.
pub(crate) fn owned_world(pin_entry: &str) -> Result<World, Failure> {
    let config = format!("pin_entry = \"{pin_entry}\"\n");
    let mut world = World::start(Environment::builder().owned().daemon_config(config))?;
    let keys: Vec<Value> =
        ["9A", "9C", "9D", "9E"].map(|slot| json!({ "slot": slot, "touch_policy": "always" })).into();
    let names = json!({ "common_name": "Alice" });
    let phone = world.environment.phone(0)?;
    phone.send(&json!({ "command": "enrol", "pin": OWN_PIN, "puk": "97531864", "names": names, "keys": keys }))?;
    phone.wait_event("the enrolment", ENROLMENT_LIMIT, |event| event["event"] == "enrolled")?;
    Ok(world)
}

impl World {
    fn owner(&mut self) -> Result<&mut Phone, Failure> {
        Ok(self.environment.phone(0)?)
    }

    /// Waits until the phone asks, and gives the question.
    fn asked(&mut self, event: &'static str) -> Result<Value, Failure> {
        Ok(self.owner()?.wait_event("asking its owner", SOON, |seen| seen["event"] == event)?)
    }

    /// Waits until the phone asks for the PIN, and gives the question.
    pub(crate) fn asked_for_pin(&mut self) -> Result<Value, Failure> {
        self.asked("pin_asked")
    }

    /// The owner enters a PIN when the phone asks for it.
    pub(crate) fn enters(&mut self, pin: &str) -> Result<Value, Failure> {
        let question = self.asked_for_pin()?;
        self.owner()?.send(&json!({ "command": "enter_pin", "id": field(&question, "id"), "pin": pin }))?;
        Ok(question)
    }

    /// The owner will not enter it.
    pub(crate) fn declines_pin(&mut self) -> Result<(), Failure> {
        let question = self.asked_for_pin()?;
        Ok(self.owner()?.send(&json!({ "command": "cancel_pin", "id": field(&question, "id") }))?)
    }

    /// Waits until the phone asks whether the key for signing in may be used, and gives the question.
    pub(crate) fn asked_for_approval(&mut self) -> Result<Value, Failure> {
        let question = self.asked("approval")?;
        expect(field(&question, "key") == "9A", || format!("another key: {question}"))?;
        Ok(question)
    }

    /// The owner says yes or no to the use of the key.
    pub(crate) fn approves(&mut self, agree: bool) -> Result<(), Failure> {
        let question = self.asked_for_approval()?;
        Ok(self.owner()?.send(&json!({ "command": "approve", "id": field(&question, "id"), "agree": agree }))?)
    }

    /// The owner opens the app: a computer that was refused twice may ask again.
    pub(crate) fn opens_app(&mut self) -> Result<(), Failure> {
        Ok(self.owner()?.send(&json!({ "command": "owner_present" }))?)
    }

    /// Nobody was asked for anything on the phone since it was looked at last.
    pub(crate) fn nobody_was_asked(&mut self) -> Result<(), Failure> {
        let asked = |event: &Value| event["event"] == "pin_asked" || event["event"] == "approval";
        match self.owner()?.wait_event("nothing", NO_QUESTION, asked) {
            Err(_) => Ok(()),
            Ok(question) => Err(Failure::Wrong(format!("the phone asked: {question}"))),
        }
    }

    /// How many tries of the PIN are left, whether or not it is verified.
    pub(crate) fn tries_left(&self) -> Result<u32, Failure> {
        let status = self.environment.daemon_control()?.status().map_err(DevError::Control)?;
        let tries = status.slots.first().and_then(|slot| slot.pin_tries_left);
        tries.ok_or_else(|| Failure::Wrong("no card says how many tries are left".to_owned()))
    }

    /// Whether this computer may send PINs that are typed on it.
    pub(crate) fn permits_typed_pins(&mut self, typed_pin: bool) -> Result<(), Failure> {
        let owner = self.owner()?;
        owner.send(&json!({ "command": "hosts" }))?;
        let hosts = owner.wait_event("its computers", SOON, |event| event["event"] == "hosts")?;
        let id = hosts.pointer("/hosts/0/id").cloned().unwrap_or_default();
        owner.send(&json!({ "command": "permit", "id": id, "typed_pin": typed_pin }))?;
        owner.wait_event("the permissions", SOON, |event| event["event"] == "permissions")?;
        Ok(())
    }

    /// While something runs, the owner enters the right PIN of a test card whenever the phone asks.
    pub(crate) fn entering<T: Send>(&mut self, runs: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let running = scope.spawn(|| {
                let result = runs();
                ended.store(true, Ordering::Relaxed);
                result
            });
            self.environment.enter_pins(&ended);
            running.join().unwrap_or_else(|_| Err(Failure::Wrong("it panicked".to_owned())))
        })
    }
}

/// A field of an event, or null.
pub(crate) fn field<'a>(event: &'a Value, name: &str) -> &'a Value {
    event.get(name).unwrap_or(&Value::Null)
}
