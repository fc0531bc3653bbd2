//! What the owner wants done, and doing it. Beside the screen, which goes on meanwhile.

use std::{path::PathBuf, sync::Arc};

use pocketcard_phone::{
    HostId,
    card::{Permissions, piv::Slot},
    enrolment::{Names, NewKey, SlotContent},
    runtime::{LogEntry, Phone},
};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::enrolment::{self as owner, OwnerError, Tries};

pub(super) type Typed = Zeroizing<String>;

pub(super) enum Wish {
    Scan(Typed),
    Compare,
    Confirm(bool),
    CancelPairing,
    Forget(HostId),
    Rename(HostId, String),
    Permit(HostId, Permissions),
    AllowConnection(HostId),
    OwnerPresent,
    Lock,
    Unlock,
    ReadLog,
    ExportLog(PathBuf),
    ReadCard,
    ChoosePin { pin: Typed, puk: Typed },
    ChangePin { current: Typed, new: Typed },
    ChangePuk { current: Typed, new: Typed },
    Enrol { pin: Typed, puk: Option<Typed>, names: Box<Names>, keys: Vec<NewKey> },
    Request { pin: Typed, slot: Slot, names: Box<Names>, file: PathBuf },
    Import { slot: Slot, file: PathBuf },
    FactoryReset,
}

impl Wish {
    /// Whether it needs the owner's card session to itself. A factory reset does not wait: it ends what is under way.
    const fn needs_session(&self) -> bool {
        matches!(
            self,
            Self::ReadCard
                | Self::ChangePin { .. }
                | Self::ChangePuk { .. }
                | Self::Enrol { .. }
                | Self::Request { .. }
                | Self::Import { .. }
        )
    }
}

/// What became of a wish.
pub(super) enum Outcome {
    /// To be said, and the card is to be read again.
    CardChanged(String),
    Said(String),
    Failed(String),
    Log(Vec<LogEntry>),
    Card(Vec<SlotContent>, Tries),
}

/// - `session`: held by the one wish that has the owner's card session; the others that need it wait in line.
pub(super) async fn perform(phone: Phone, wish: Wish, session: Arc<Mutex<()>>) -> Outcome {
    let _session = if wish.needs_session() { Some(session.lock().await) } else { None };
    match done(&phone, wish).await {
        Ok(outcome) => outcome,
        Err(message) => Outcome::Failed(message),
    }
}

async fn done(phone: &Phone, wish: Wish) -> Result<Outcome, String> {
    let said = match wish {
        Wish::Scan(qr) => format!("Waiting two minutes for {}.", phone.scan(qr.trim()).await.map_err(text)?),
        Wish::Compare => {
            phone.compare().await.map_err(text)?;
            "Waiting two minutes for a computer that pairs without a code.".to_owned()
        }
        Wish::Confirm(agree) => {
            phone.confirm_pairing(agree).await.map_err(text)?;
            if agree { "Now confirm at the computer too.".to_owned() } else { String::new() }
        }
        Wish::CancelPairing => {
            phone.cancel_pairing();
            String::new()
        }
        Wish::Forget(host) => {
            phone.forget(host).await.map_err(text)?;
            String::new()
        }
        Wish::Rename(host, name) => {
            phone.rename(host, &name).await.map_err(text)?;
            String::new()
        }
        Wish::Permit(host, permissions) => {
            phone.set_permissions(host, permissions).await.map_err(text)?;
            String::new()
        }
        Wish::AllowConnection(host) => {
            phone.allow_connection(host).await.map_err(text)?;
            "It has the card as long as it is connected.".to_owned()
        }
        Wish::OwnerPresent => {
            phone.owner_present();
            "Every computer may ask again.".to_owned()
        }
        Wish::Lock => {
            phone.lock_card();
            String::new()
        }
        Wish::Unlock => {
            phone.unlock_card();
            String::new()
        }
        Wish::ReadLog => return Ok(Outcome::Log(phone.log().await.map_err(text)?)),
        Wish::ExportLog(file) => {
            let entries = owner::export_log(phone, &file).await.map_err(text)?;
            format!("{entries} entries are in {}.", file.display())
        }
        Wish::ReadCard => {
            let slots = owner::enrolment(phone).slots().await.map_err(text)?;
            return Ok(Outcome::Card(slots, owner::tries(phone).await));
        }
        change => return changed(phone, change).await.map(Outcome::CardChanged).map_err(text),
    };
    Ok(Outcome::Said(said))
}

async fn changed(phone: &Phone, wish: Wish) -> Result<String, OwnerError> {
    let said = match wish {
        Wish::ChoosePin { pin, puk } => {
            owner::choose_pin(phone, &pin, &puk).await?;
            "PIN and PUK are chosen."
        }
        Wish::ChangePin { current, new } => {
            owner::change_pin(phone, &current, &new).await?;
            "The PIN is changed."
        }
        Wish::ChangePuk { current, new } => {
            owner::change_puk(phone, &current, &new).await?;
            "The PUK is changed."
        }
        Wish::Enrol { pin, puk, names, keys } => {
            owner::enrol(phone, &pin, puk.as_deref().map(String::as_str), &names, &keys).await?;
            "Keys and certificates are made."
        }
        Wish::Request { pin, slot, names, file } => {
            let request = owner::enrolment(phone).request(&pin, slot, &names).await?.to_pem()?;
            owner::write_new(&file, &request)?;
            return Ok(format!("The request is in {}.", file.display()));
        }
        Wish::Import { slot, file } => {
            owner::enrolment(phone).import_certificate(slot, &owner::read_certificate(&file)?).await?;
            "The certificate is stored."
        }
        Wish::FactoryReset => {
            phone.factory_reset().await?;
            "The phone is as good as new."
        }
        _ => "",
    };
    Ok(said.to_owned())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
