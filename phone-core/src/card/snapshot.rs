//! What the card says to everybody: made from the state when it is asked for, and kept until the state is another.
//!
//! Spec: SPEC.md section 7.7

use pocketcard_protocol::messages::{Fetch, SnapshotPage};
use pocketcard_protocol::snapshot::{Object, Profile, Snapshot, SnapshotDigest};

use super::applet::{Applet, SessionId};
use super::dispatcher::Dispatcher;
use super::{Card, LinkId, Output};

/// The snapshot of one state of the objects.
pub(super) struct Kept {
    revision: u64,
    /// Nothing if there is too much to say.
    snapshot: Option<Snapshot>,
}

impl Dispatcher {
    /// The snapshot; `None` if the public objects are too long for one.
    pub(super) fn snapshot(&mut self) -> Option<&Snapshot> {
        let revision = self.piv.revision();
        if self.kept.as_ref().is_none_or(|kept| kept.revision != revision) {
            self.kept = Some(Kept { revision, snapshot: self.make_snapshot() });
        }
        self.kept.as_ref()?.snapshot.as_ref()
    }

    fn make_snapshot(&self) -> Option<Snapshot> {
        let applications: Vec<&[u8]> = self.applets().map(Applet::identifier).collect();
        let (version, serial) = (self.piv.version(), self.piv.serial().to_be_bytes());
        let profile = Profile {
            template: &self.piv.template(),
            applications: &applications,
            instructions: &self.piv.instructions(),
            version: &version,
            serial: &serial,
        };
        let objects: Vec<(u32, Object<_>)> =
            self.piv.public_objects().into_iter().map(|(tag, object)| (tag.number(), object)).collect();
        Snapshot::new(&profile, &objects).ok()
    }
}

impl Card {
    /// What is announced of the snapshot to a session. A card that is not there says nothing.
    pub(super) fn snapshot_digest(&mut self, id: SessionId) -> Option<SnapshotDigest> {
        if self.is_present(id) { self.dispatcher.snapshot().map(Snapshot::digest) } else { None }
    }

    /// Answers a host that fetches. It needs no permission: everybody may read what is in it.
    pub(super) fn fetch(&mut self, link: LinkId, id: SessionId, fetch: &Fetch) {
        let mut answer =
            SnapshotPage { digest: fetch.digest.clone(), offset: fetch.offset, length: 0, page: Vec::new() };
        let current = self.snapshot_digest(id).is_some_and(|digest| digest.as_bytes() == fetch.digest.as_slice());
        if let Some(snapshot) = self.dispatcher.snapshot().filter(|_| current) {
            answer.length = u32::try_from(snapshot.as_bytes().len()).unwrap_or(u32::MAX);
            answer.page = snapshot.page(usize::try_from(fetch.offset).unwrap_or(usize::MAX)).to_vec();
        }
        self.outputs.push_back(Output::Send { link, envelope: answer.into() });
    }
}
