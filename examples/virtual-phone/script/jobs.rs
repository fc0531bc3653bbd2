//! What takes a while: done beside the commands and answers that follow, so that a question to the owner never waits for a key.

use std::future::Future;

use async_channel::Sender;
use pocketcard_phone::{
    card::piv::Slot,
    enrolment::{Names, NewKey},
    runtime::Phone,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::{
    enrolment::{self as owner, OwnerError},
    events,
};

pub(super) struct Jobs {
    phone: Phone,
    results: Sender<Value>,
    /// Those that are under way end with the script.
    running: JoinSet<()>,
}

impl Jobs {
    pub(super) fn new(phone: &Phone, results: Sender<Value>) -> Self {
        Self { phone: phone.clone(), results, running: JoinSet::new() }
    }

    /// Waits until a job has ended; for ever while there is none.
    pub(super) async fn next_ended(&mut self) {
        if self.running.join_next().await.is_none() {
            std::future::pending().await
        }
    }

    pub(super) fn choose_pin(&mut self, pin: &str, puk: &str) {
        let (pin, puk) = (secret(pin), secret(puk));
        self.start(async move |phone| {
            owner::choose_pin(&phone, &pin, &puk).await?;
            Ok(json!({ "event": "pin_chosen" }))
        });
    }

    pub(super) fn change_pin(&mut self, pin: &str, new: &str) {
        let (pin, new) = (secret(pin), secret(new));
        self.start(async move |phone| {
            owner::change_pin(&phone, &pin, &new).await?;
            Ok(json!({ "event": "pin_changed" }))
        });
    }

    pub(super) fn change_puk(&mut self, puk: &str, new: &str) {
        let (puk, new) = (secret(puk), secret(new));
        self.start(async move |phone| {
            owner::change_puk(&phone, &puk, &new).await?;
            Ok(json!({ "event": "puk_changed" }))
        });
    }

    pub(super) fn enrol(&mut self, pin: &str, puk: Option<&str>, names: Names, keys: Vec<NewKey>) {
        let (pin, puk) = (secret(pin), puk.map(secret));
        self.start(async move |phone| {
            owner::enrol(&phone, &pin, puk.as_deref().map(String::as_str), &names, &keys).await?;
            Ok(json!({ "event": "enrolled" }))
        });
    }

    pub(super) fn make_key(&mut self, key: NewKey) {
        self.start(async move |phone| {
            owner::enrolment(&phone).make_key(key).await?;
            Ok(json!({ "event": "key_made", "slot": key.slot.to_string() }))
        });
    }

    pub(super) fn request_certificate(&mut self, pin: &str, slot: Slot, names: Names) {
        let pin = secret(pin);
        self.start(async move |phone| {
            let request = owner::enrolment(&phone).request(&pin, slot, &names).await?;
            Ok(json!({ "event": "certificate_request", "slot": slot.to_string(), "pem": request.to_pem()? }))
        });
    }

    pub(super) fn import_certificate(&mut self, slot: Slot, certificate: String) {
        self.start(async move |phone| {
            owner::enrolment(&phone).import_certificate(slot, certificate.as_bytes()).await?;
            Ok(json!({ "event": "certificate_stored", "slot": slot.to_string() }))
        });
    }

    pub(super) fn slots(&mut self) {
        self.start(async move |phone| {
            let slots: Vec<Value> = owner::enrolment(&phone).slots().await?.iter().map(events::slot).collect();
            let tries = owner::tries(&phone).await;
            Ok(json!({ "event": "slots", "slots": slots, "pin_tries_left": tries.pin, "puk_tries_left": tries.puk }))
        });
    }

    pub(super) fn factory_reset(&mut self) {
        self.start(async move |phone| {
            phone.factory_reset().await?;
            Ok(json!({ "event": "factory_reset" }))
        });
    }

    fn start<F, W>(&mut self, work: F)
    where
        F: FnOnce(Phone) -> W,
        W: Future<Output = Result<Value, OwnerError>> + Send + 'static,
    {
        let (phone, results) = (self.phone.clone(), self.results.clone());
        let working = work(self.phone.clone());
        self.running.spawn(async move {
            let result = working.await.unwrap_or_else(|error| events::error(&error.to_string()));
            // Once the phone answers, it has told everything that happened before.
            let _ = phone.hosts().await;
            let _ = results.try_send(result);
        });
    }
}

fn secret(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}
