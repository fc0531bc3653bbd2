//! What of all that happens goes into the log.

use pocketcard_protocol::{messages::RefusalReason, time::Timestamp};

use super::{LogEntry, LogOperation, LogResult, LoggedHost, PhoneEvent, log::wall_clock, run::Runtime};
use crate::{
    card::{Caller, CardEvent, Deed},
    traits::HostId,
};

impl Runtime {
    /// Writes down what a command did, if it did something; reading leaves no trace.
    pub(super) fn log_card_event(&mut self, event: &CardEvent, now: Timestamp) {
        let (caller, deed, result, asked) = match event {
            CardEvent::Command { caller, command, status, refused, given_up, asked, .. } => {
                let result = if *given_up { LogResult::Cancelled } else { LogResult::of_command(*status, *refused) };
                (caller, command.deed, result, *asked)
            }
            CardEvent::Cancelled { caller, command, link_lost, asked } => {
                let result = if *link_lost { LogResult::LinkLost } else { LogResult::Cancelled };
                (caller, command.deed, result, *asked)
            }
            CardEvent::ConnectionDecided { host, host_name, refused } => {
                let host = Some(LoggedHost { host: *host, name: host_name.clone() });
                let result = refused.map_or(LogResult::Done, LogResult::Refused);
                let asked = *refused != Some(RefusalReason::TooManyDenials);
                return self.log(host, LogOperation::ConfirmConnection, result, asked, now);
            }
            CardEvent::Locked(locked) => {
                let operation = if *locked { LogOperation::Lock } else { LogOperation::Unlock };
                return self.log_of_owner(operation, LogResult::Done, now);
            }
            _ => return,
        };
        // The owner's own PIN is verified for what follows, as a step towards it.
        let is_step = |deed: &Deed| deed.is_step() || *deed == Deed::VerifyPin && *caller == Caller::Owner;
        if let Some(deed) = deed.filter(|deed| !(is_step(deed) && result == LogResult::Done)) {
            let host = match caller {
                Caller::Owner => None,
                Caller::Host { id, name } => Some(LoggedHost { host: *id, name: name.clone() }),
            };
            self.log(host, LogOperation::Card(deed), result, asked, now);
        }
    }

    pub(super) fn log_of_owner(&mut self, operation: LogOperation, result: LogResult, now: Timestamp) {
        self.log(None, operation, result, false, now);
    }

    pub(super) fn log_of_host(
        &mut self,
        host: HostId,
        name: &str,
        operation: LogOperation,
        result: LogResult,
        now: Timestamp,
    ) {
        self.log(Some(LoggedHost { host, name: name.to_owned() }), operation, result, false, now);
    }

    fn log(
        &mut self,
        host: Option<LoggedHost>,
        operation: LogOperation,
        result: LogResult,
        asked: bool,
        now: Timestamp,
    ) {
        let entry = LogEntry { at: wall_clock(), host, operation, result, asked };
        self.log.write(entry.clone(), now);
        self.tell(|| PhoneEvent::Logged(entry));
    }
}
