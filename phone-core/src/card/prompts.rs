//! How often a host may have its owner asked.
//!
//! An owner who is asked again and again ends up saying yes. So who was refused twice within a minute asks nothing until the
//! owner opens the app, and who has questions put and takes them back, or finds nobody there, may do so only now and then.
//! A program that asks once more for what was just refused (OpenSC does so after every signature that failed) gets the same
//! answer without a question, so that one no is enough.
//! A host's own question never counts for another host, and neither a new session nor a reset gives one back.
//!
//! Spec: SPEC.md section 7.9

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pocketcard_protocol::messages::RefusalReason;
use pocketcard_protocol::time::Timestamp;

use super::effect::Subject;
use crate::traits::HostId;

/// The time in which denials and unanswered questions add up.
pub(super) const PROMPT_WINDOW: Duration = Duration::from_secs(60);

/// After so many denials within [`PROMPT_WINDOW`] a host asks nothing until the owner opens the app.
pub(super) const DENIALS: usize = 2;

/// So many questions within [`PROMPT_WINDOW`] may end without an answer: cancelled by the host, reset, link lost, time over.
pub(super) const UNANSWERED_PROMPTS: usize = 6;

/// So long a refusal holds for the same operation with the same input.
pub(super) const REFUSAL_LASTS: Duration = Duration::from_secs(10);

/// So many refusals of a host are kept: it cannot have more that hold, since each took a question.
const REFUSALS: usize = DENIALS + UNANSWERED_PROMPTS;

/// Whether a question may be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may.
    Ask,
    /// The host asks for nothing now.
    Held,
    /// It has just been refused: the owner said no, or nobody answered.
    Refused(RefusalReason),
}

/// What the hosts have asked. Kept in memory while the phone's program runs.
#[derive(Default)]
pub(super) struct Prompts {
    hosts: BTreeMap<HostId, HostPrompts>,
}

#[derive(Default)]
struct HostPrompts {
    /// When a question was put that the owner has not answered, oldest first.
    unanswered: VecDeque<Timestamp>,
    /// When the owner said no, oldest first.
    denials: VecDeque<Timestamp>,
    held: bool,
    /// The refusals that hold, oldest first.
    refused: VecDeque<Refused>,
}

struct Refused {
    subject: Subject,
    reason: RefusalReason,
    at: Timestamp,
}

impl Refused {
    fn holds(&self, now: Timestamp) -> bool {
        now.saturating_since(self.at) < REFUSAL_LASTS
    }
}

impl Prompts {
    /// Takes note of a question of `host`, unless it may not be put now.
    pub(super) fn ask(&mut self, host: HostId, subject: Option<Subject>, now: Timestamp) -> Verdict {
        let prompts = self.hosts.entry(host).or_default();
        prompts.refused.retain(|refused| refused.holds(now));
        let refused = prompts.refused.iter().find(|refused| Some(refused.subject) == subject);
        if let Some(refused) = refused.filter(|_| !prompts.held) {
            return Verdict::Refused(refused.reason);
        }
        forget_old(&mut prompts.unanswered, now);
        let may = !prompts.held && prompts.unanswered.len() < UNANSWERED_PROMPTS;
        if may {
            prompts.unanswered.push_back(now);
        }
        if may { Verdict::Ask } else { Verdict::Held }
    }

    /// A question of `host` about this ended without a yes. One that stands for itself leaves what was refused before.
    pub(super) fn refused(&mut self, host: HostId, subject: Option<Subject>, reason: RefusalReason, now: Timestamp) {
        if let Some(subject) = subject {
            let refused = &mut self.hosts.entry(host).or_default().refused;
            refused.retain(|before| before.holds(now) && before.subject != subject);
            while refused.len() >= REFUSALS {
                refused.pop_front();
            }
            refused.push_back(Refused { subject, reason, at: now });
        }
    }

    /// The owner has answered the last question of `host`, whatever the answer is.
    pub(super) fn answered(&mut self, host: HostId) {
        if let Some(prompts) = self.hosts.get_mut(&host) {
            prompts.unanswered.pop_back();
        }
    }

    /// The owner has said no to the last question of `host`; `true` if it is held from now on.
    pub(super) fn denied(&mut self, host: HostId, now: Timestamp) -> bool {
        self.answered(host);
        let prompts = self.hosts.entry(host).or_default();
        forget_old(&mut prompts.denials, now);
        prompts.denials.push_back(now);
        let newly = !prompts.held && prompts.denials.len() >= DENIALS;
        prompts.held |= newly;
        newly
    }

    /// The owner has the app open: everybody may ask again. Gives the hosts that were held.
    pub(super) fn owner_present(&mut self) -> Vec<HostId> {
        let hosts = std::mem::take(&mut self.hosts);
        hosts.into_iter().filter(|(_, prompts)| prompts.held).map(|(host, _)| host).collect()
    }

    /// The host is no longer paired; `true` if it was held.
    pub(super) fn forget(&mut self, host: HostId) -> bool {
        self.hosts.remove(&host).is_some_and(|prompts| prompts.held)
    }
}

fn forget_old(times: &mut VecDeque<Timestamp>, now: Timestamp) {
    times.retain(|time| now.saturating_since(*time) < PROMPT_WINDOW);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traits::ApprovalPurpose;

    const HOST: HostId = HostId::new([1; 32]);
    const OTHER: HostId = HostId::new([2; 32]);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn ask(prompts: &mut Prompts, host: HostId, second: u64) -> bool {
        prompts.ask(host, None, at(second)) == Verdict::Ask
    }

    #[test]
    fn one_no_is_enough_for_the_same_question() {
        let mut prompts = Prompts::default();
        let subject = Subject { key: 0x9A, purpose: ApprovalPurpose::Sign, input_digest: [7; 32] };
        let others = [
            Subject { key: 0x9C, ..subject },
            Subject { purpose: ApprovalPurpose::Decrypt, ..subject },
            Subject { input_digest: [8; 32], ..subject },
        ];
        for reason in [RefusalReason::Denied, RefusalReason::Unanswered] {
            prompts.refused(HOST, Some(subject), reason, at(0));
            assert_eq!(prompts.ask(HOST, Some(subject), at(9)), Verdict::Refused(reason));
            prompts.refused(HOST, None, RefusalReason::Unanswered, at(9));
            assert_eq!(
                prompts.ask(HOST, Some(subject), at(9)),
                Verdict::Refused(reason),
                "a PIN entry forgets nothing"
            );
        }
        for other in others {
            assert_eq!(prompts.ask(HOST, Some(other), at(9)), Verdict::Ask);
        }
        assert_eq!(prompts.ask(HOST, None, at(9)), Verdict::Ask);
        assert_eq!(prompts.ask(OTHER, Some(subject), at(9)), Verdict::Ask);
        assert_eq!(prompts.ask(HOST, Some(subject), at(10)), Verdict::Ask, "the owner may have changed their mind");
    }

    #[test]
    fn a_refusal_outlives_those_that_come_after_it() {
        let mut prompts = Prompts::default();
        let subject = |byte| Subject { key: 0x9A, purpose: ApprovalPurpose::Sign, input_digest: [byte; 32] };
        let every = 1..=UNANSWERED_PROMPTS as u8 + 1;
        for byte in every.clone() {
            // The last question is the one that the owner denies.
            let reason = if byte == *every.end() { RefusalReason::Denied } else { RefusalReason::Unanswered };
            prompts.refused(HOST, Some(subject(byte)), reason, at(byte.into()));
        }
        for byte in every {
            assert!(matches!(prompts.ask(HOST, Some(subject(byte)), at(8)), Verdict::Refused(_)), "{byte}");
        }
        assert_eq!(prompts.ask(HOST, Some(subject(1)), at(11)), Verdict::Ask, "each for its own ten seconds");
        for byte in 0..100 {
            prompts.refused(HOST, Some(subject(byte)), RefusalReason::Denied, at(20));
        }
        assert_eq!(prompts.hosts[&HOST].refused.len(), REFUSALS, "whatever happens");
        assert!(matches!(prompts.ask(HOST, Some(subject(99)), at(20)), Verdict::Refused(_)), "the latest is kept");
    }

    #[test]
    fn two_denials_within_a_minute_hold_one_host_until_the_owner_comes() {
        let mut prompts = Prompts::default();
        for second in [0, 60, 119] {
            assert!(ask(&mut prompts, HOST, second));
            assert_eq!(prompts.denied(HOST, at(second)), second == 119, "{second}");
        }
        assert!(!ask(&mut prompts, HOST, 120) && !ask(&mut prompts, HOST, 100_000), "no time is long enough");
        assert!(ask(&mut prompts, OTHER, 120));
        assert_eq!(prompts.owner_present(), [HOST]);
        assert!(ask(&mut prompts, HOST, 120));
        assert!(!prompts.denied(HOST, at(120)), "what was before does not count");
        assert_eq!(prompts.owner_present(), []);
    }

    #[test]
    fn questions_that_nobody_answers_are_few_in_a_minute() {
        let mut prompts = Prompts::default();
        for second in 0..UNANSWERED_PROMPTS as u64 {
            assert!(ask(&mut prompts, HOST, second));
        }
        assert!(!ask(&mut prompts, HOST, 59) && ask(&mut prompts, OTHER, 59));
        assert!(ask(&mut prompts, HOST, 60), "the first is a minute old");
        assert!(!ask(&mut prompts, HOST, 60));
        // What the owner answers does not count, however often.
        prompts.owner_present();
        for _ in 0..100 {
            assert!(ask(&mut prompts, HOST, 61));
            prompts.answered(HOST);
        }
    }
}
