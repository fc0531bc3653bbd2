//! Decides which applet a command is for.
//!
//! Spec: ISO/IEC 7816-4 sections 5.4.1 and 11.1.1; SP 800-73-4 part 2, section 3.1.1

use std::collections::BTreeMap;

use pocketcard_protocol::apdu::{Command, StatusWord};

use super::applet::{Applet, Context, PinStatus, Progress, SessionId};
use super::effect::EffectResult;
use super::event::CommandLine;
use super::permissions::Permissions;
use super::piv::PivApplet;
use super::snapshot::Kept;
use crate::traits::{KeyHandle, PinPurpose};

/// Shortest identifier that selects: a registered application provider identifier.
const SHORTEST_IDENTIFIER: usize = 5;

const SELECT: u8 = 0xA4;

/// The card's applets, and which of them each session has selected. PIV is selected from the start: some programs never send a
/// SELECT once they have met the card.
pub(crate) struct Dispatcher {
    pub(super) piv: PivApplet,
    others: Vec<Box<dyn Applet>>,
    /// Index into the applets, PIV first; sessions that are not here have PIV.
    selected: BTreeMap<SessionId, usize>,
    pub(super) kept: Option<Kept>,
}

impl Dispatcher {
    pub(crate) const fn new(piv: PivApplet, others: Vec<Box<dyn Applet>>) -> Self {
        Self { piv, others, selected: BTreeMap::new(), kept: None }
    }

    /// Begins a command. Whatever no applet could answer is refused here and changes nothing.
    pub(crate) fn execute(&mut self, session: SessionId, command: &Command, context: &mut Context<'_>) -> Progress {
        if let Err(status) = check_class(command) {
            return Progress::status(status);
        }
        if command.ins() == SELECT {
            return self.select(session, command);
        }
        self.selected_mut(session).execute(session, command, context)
    }

    /// Lets the owner enter a PIN or PUK of the selected application.
    pub(crate) fn enter_pin(
        &mut self,
        session: SessionId,
        purpose: Option<PinPurpose>,
        context: &mut Context<'_>,
    ) -> Progress {
        self.selected_mut(session).enter_pin(session, purpose, context)
    }

    pub(crate) fn resume(&mut self, session: SessionId, result: EffectResult, context: &mut Context<'_>) -> Progress {
        self.selected_mut(session).resume(session, result, context)
    }

    pub(crate) fn cancel(&mut self, session: SessionId) {
        self.selected_mut(session).cancel(session);
    }

    /// Reset: no security state anywhere, and PIV is selected.
    pub(crate) fn reset(&mut self, session: SessionId) {
        self.selected.remove(&session);
        self.reset_security(session);
    }

    /// No security state anywhere; the selected applet stays selected.
    pub(crate) fn reset_security(&mut self, session: SessionId) {
        self.piv.clear(session);
        self.others.iter_mut().for_each(|applet| applet.clear(session));
    }

    pub(crate) fn describe(&self, session: SessionId, command: &Command) -> CommandLine {
        if command.ins() == SELECT && check_class(command).is_ok() {
            // An identifier has 16 octets at most.
            let subject: String = command.data().iter().take(16).map(|byte| format!("{byte:02X}")).collect();
            return CommandLine::new("SELECT", subject);
        }
        self.selected(session).describe(command)
    }

    /// Takes from a session what it had gained by a permission that it no longer has.
    pub(crate) fn permissions_changed(&mut self, session: SessionId, permissions: &Permissions) {
        self.piv.permissions_changed(session, permissions);
    }

    /// State of the PIN, whichever applet is selected.
    pub(crate) fn pin_status(&self, session: SessionId) -> PinStatus {
        self.piv.pin_status(session)
    }

    /// Whether a session has proven anything that it could lose.
    pub(crate) fn has_proof(&self, session: SessionId) -> bool {
        self.piv.has_proof(session)
    }

    /// The card's serial number.
    pub(crate) const fn serial(&self) -> u32 {
        self.piv.serial()
    }

    /// Gives the card new PIN and PUK for its owner.
    pub(crate) fn enrol(&mut self, pin: &[u8; 8], puk: &[u8; 8], context: &Context<'_>) -> StatusWord {
        self.piv.enrol(pin, puk, context).map_or_else(|refused| refused, |()| StatusWord::Success)
    }

    pub(crate) fn key_handles(&self) -> Vec<KeyHandle> {
        self.others.iter().flat_map(|applet| applet.key_handles()).chain(self.piv.key_handles()).collect()
    }

    fn select(&mut self, session: SessionId, command: &Command) -> Progress {
        let by_first_name = command.p1() == 0x04 && matches!(command.p2(), 0x00 | 0x0C);
        let name = command.data();
        let found = (by_first_name && name.len() >= SHORTEST_IDENTIFIER)
            .then(|| self.applets().position(|applet| applet.identifier().starts_with(name)))
            .flatten();
        // An application that the card does not have leaves the selected one and its state alone.
        let Some(index) = found else { return Progress::status(StatusWord::NotFound) };
        if self.selected_index(session) != index {
            self.selected_mut(session).clear(session);
            self.selected.insert(session, index);
        }
        let template = self.selected_mut(session).select(session);
        if command.p2() == 0x00 { Progress::success(&template) } else { Progress::status(StatusWord::Success) }
    }

    pub(super) fn applets(&self) -> impl Iterator<Item = &dyn Applet> {
        std::iter::once(&self.piv as &dyn Applet).chain(self.others.iter().map(|applet| &**applet))
    }

    fn selected_index(&self, session: SessionId) -> usize {
        self.selected.get(&session).copied().unwrap_or(0)
    }

    fn selected(&self, session: SessionId) -> &dyn Applet {
        match self.selected_index(session).checked_sub(1).and_then(|index| self.others.get(index)) {
            Some(applet) => &**applet,
            None => &self.piv,
        }
    }

    fn selected_mut(&mut self, session: SessionId) -> &mut dyn Applet {
        match self.selected_index(session).checked_sub(1).and_then(|index| self.others.get_mut(index)) {
            Some(applet) => &mut **applet,
            None => &mut self.piv,
        }
    }
}

/// Refuses what is no plain interindustry command on the basic channel. Chaining has been undone before a command comes here.
fn check_class(command: &Command) -> Result<(), StatusWord> {
    match command.cla() {
        0x00 => Ok(()),
        0x10 => Err(StatusWord::ChainingNotSupported),
        0x04 | 0x08 | 0x0C | 0x14 | 0x18 | 0x1C => Err(StatusWord::SecureMessagingNotSupported),
        0x01..=0x1F | 0x40..=0x7F => Err(StatusWord::LogicalChannelNotSupported),
        _ => Err(StatusWord::ClassNotSupported),
    }
}
