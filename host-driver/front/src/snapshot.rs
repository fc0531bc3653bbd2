//! The snapshot that the front holds, and how it comes by another one.

use std::sync::Arc;
use std::time::Duration;

use pocketcard_protocol::Timestamp;
use pocketcard_protocol::messages::{Envelope, Fetch, SnapshotPage};
use pocketcard_protocol::snapshot::{SNAPSHOT_LIMIT, Snapshot, SnapshotDigest};

/// How long a page may take before the next use of the card asks for the snapshot again. Nobody waits for it: until it is there
/// the card is asked. The longest page takes 7 s on the slowest radio that there is, with an MTU of 23.
pub(crate) const PAGE_TIME: Duration = Duration::from_secs(60);

/// One snapshot, kept whatever happens to links and sessions: it says nothing that is not true as long as the phone
/// announces its digest, and is not used when the phone does not.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    held: Option<Arc<Snapshot>>,
    loading: Option<Loading>,
    /// What the phone announced in this session and then could not show.
    refused: Option<SnapshotDigest>,
}

/// A snapshot that comes page by page.
#[derive(Debug)]
struct Loading {
    digest: SnapshotDigest,
    bytes: Vec<u8>,
    /// When the last page was asked for.
    asked: Timestamp,
}

/// What a page led to.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// It was not asked for, or of no use.
    Nothing,
    /// Ask for the next one.
    Next(Envelope),
    /// It was the last one, and the whole is what the phone announced.
    Snapshot(Arc<Snapshot>),
}

impl Cache {
    /// Takes a snapshot from elsewhere in place of what is held, or nothing.
    pub(crate) fn offer(&mut self, snapshot: Option<Arc<Snapshot>>) {
        self.held = snapshot;
    }

    /// A new link: the pages that were on the way are lost.
    pub(crate) fn begin(&mut self) {
        self.loading = None;
        self.refused = None;
    }

    /// The snapshot with the digest that the phone announced last, if it is held.
    pub(crate) fn current(&self, announced: Option<SnapshotDigest>) -> Option<&Snapshot> {
        self.held.as_deref().filter(|held| announced == Some(held.digest()))
    }

    /// Asks for the snapshot that the phone announces, unless it is held, on its way, or not to be had.
    pub(crate) fn fetch(
        &mut self,
        session: u64,
        announced: Option<SnapshotDigest>,
        now: Timestamp,
    ) -> Option<Envelope> {
        let digest = announced.filter(|digest| Some(*digest) != self.refused)?;
        let on_its_way = self
            .loading
            .as_ref()
            .is_some_and(|loading| loading.digest == digest && now.saturating_since(loading.asked) < PAGE_TIME);
        if on_its_way || self.current(announced).is_some() {
            return None;
        }
        self.loading = Some(Loading { digest, bytes: Vec::new(), asked: now });
        Some(Fetch { session, digest: digest.to_field(), offset: 0 }.into())
    }

    /// Takes a page.
    pub(crate) fn page(
        &mut self,
        session: u64,
        page: &SnapshotPage,
        announced: Option<SnapshotDigest>,
        now: Timestamp,
    ) -> Loaded {
        let asked = self.loading.take_if(|loading| {
            page.digest == loading.digest.as_bytes() && usize::try_from(page.offset) == Ok(loading.bytes.len())
        });
        // One of a snapshot that is no longer wanted comes too late.
        let Some(Loading { digest, mut bytes, .. }) = asked else { return Loaded::Nothing };
        if announced != Some(digest) {
            return Loaded::Nothing;
        }
        let length = usize::try_from(page.length).unwrap_or(usize::MAX);
        if bytes.is_empty() {
            bytes.reserve_exact(length.min(SNAPSHOT_LIMIT));
        }
        bytes.extend_from_slice(&page.page);
        if page.page.is_empty() || bytes.len() > length {
            self.refused = Some(digest);
            return Loaded::Nothing;
        }
        if bytes.len() < length {
            let offset = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            self.loading = Some(Loading { digest, bytes, asked: now });
            return Loaded::Next(Fetch { session, digest: digest.to_field(), offset }.into());
        }
        match Snapshot::from_bytes(bytes) {
            Ok(snapshot) if snapshot.digest() == digest => {
                let snapshot = Arc::new(snapshot);
                self.held = Some(Arc::clone(&snapshot));
                Loaded::Snapshot(snapshot)
            }
            _ => {
                self.refused = Some(digest);
                Loaded::Nothing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pocketcard_protocol::messages::Body;
    use pocketcard_protocol::snapshot::{Object, PAGE_LIMIT, Profile};

    use super::*;

    const NOW: Timestamp = Timestamp::ZERO;

    fn snapshot(content: &[u8]) -> Snapshot {
        let profile = Profile {
            template: &[1],
            applications: &[&[0xA0, 0, 0, 3, 8]],
            instructions: &[],
            version: &[],
            serial: &[],
        };
        Snapshot::new(&profile, &[(0x7E, Object::Always(content))]).unwrap()
    }

    fn offset(envelope: Option<Envelope>) -> Option<u32> {
        match envelope?.body {
            Some(Body::Fetch(fetch)) => Some(fetch.offset),
            other => panic!("{other:?}"),
        }
    }

    fn page_of(snapshot: &Snapshot, offset: usize) -> SnapshotPage {
        SnapshotPage {
            digest: snapshot.digest().to_field(),
            offset: offset as u32,
            length: snapshot.as_bytes().len() as u32,
            page: snapshot.page(offset).to_vec(),
        }
    }

    #[test]
    fn pages_become_the_snapshot_that_was_announced() {
        let long = snapshot(&[7; 2 * PAGE_LIMIT]);
        let announced = Some(long.digest());
        let mut cache = Cache::default();
        assert_eq!(offset(cache.fetch(1, announced, NOW)), Some(0));
        assert_eq!(offset(cache.fetch(1, announced, NOW)), None, "it is on its way");
        for page in [0, PAGE_LIMIT] {
            assert!(
                matches!(cache.page(1, &page_of(&long, 5), announced, NOW), Loaded::Nothing),
                "not the one asked for"
            );
            match cache.page(1, &page_of(&long, page), announced, NOW) {
                Loaded::Next(next) => assert_eq!(offset(Some(next)), Some((page + PAGE_LIMIT) as u32)),
                other => panic!("{other:?}"),
            }
        }
        assert!(cache.current(announced).is_none(), "not before it is whole");
        let last = cache.page(1, &page_of(&long, 2 * PAGE_LIMIT), announced, NOW);
        assert!(matches!(last, Loaded::Snapshot(loaded) if *loaded == long));
        assert_eq!(cache.current(announced), Some(&long));
        assert_eq!(offset(cache.fetch(1, announced, NOW)), None, "it is held");
        assert!(cache.current(None).is_none() && cache.current(Some(snapshot(&[8]).digest())).is_none());
    }

    #[test]
    fn what_does_not_have_the_digest_is_thrown_away_and_not_asked_for_again() {
        let (right, wrong) = (snapshot(&[1]), snapshot(&[2]));
        let announced = Some(right.digest());
        let bad: [fn(&mut SnapshotPage, &Snapshot); 5] = [
            |page, wrong| page.page = wrong.as_bytes().to_vec(),
            |page, _| page.page.clear(),
            |page, _| (page.length, page.page) = (0, Vec::new()),
            |page, _| page.length -= 1,
            |page, _| page.page.insert(0, 0),
        ];
        for spoil in bad {
            let mut cache = Cache::default();
            cache.fetch(1, announced, NOW).unwrap();
            let mut page = page_of(&right, 0);
            spoil(&mut page, &wrong);
            assert!(matches!(cache.page(1, &page, announced, NOW), Loaded::Nothing), "{page:?}");
            assert!(cache.current(announced).is_none() && cache.fetch(1, announced, NOW).is_none());
            assert!(cache.fetch(1, Some(wrong.digest()), NOW).is_some(), "another one");
            cache.begin();
            assert!(cache.fetch(1, announced, NOW).is_some(), "another session");
        }
    }

    #[test]
    fn a_change_while_it_is_loading_begins_again() {
        let (old, new) = (snapshot(&[1; PAGE_LIMIT]), snapshot(&[2; PAGE_LIMIT]));
        let mut cache = Cache::default();
        cache.fetch(1, Some(old.digest()), NOW).unwrap();
        assert!(matches!(cache.page(1, &page_of(&old, 0), Some(old.digest()), NOW), Loaded::Next(_)));
        assert_eq!(offset(cache.fetch(1, Some(new.digest()), NOW)), Some(0));
        // The card answers what it was asked for first: it is not its snapshot any more.
        let late =
            SnapshotPage { digest: old.digest().to_field(), offset: PAGE_LIMIT as u32, ..SnapshotPage::default() };
        assert!(matches!(cache.page(1, &late, Some(new.digest()), NOW), Loaded::Nothing));
        assert!(matches!(cache.page(1, &page_of(&new, 0), Some(new.digest()), NOW), Loaded::Next(_)));
        assert!(matches!(cache.page(1, &page_of(&new, PAGE_LIMIT), Some(new.digest()), NOW), Loaded::Snapshot(_)));
        // The same without a new request: the phone does not lie, it was faster.
        cache.fetch(1, Some(old.digest()), NOW).unwrap();
        let gone = SnapshotPage { digest: old.digest().to_field(), ..SnapshotPage::default() };
        assert!(matches!(cache.page(1, &gone, Some(new.digest()), NOW), Loaded::Nothing));
        assert!(cache.fetch(1, Some(old.digest()), NOW).is_some(), "it may come back");
    }

    #[test]
    fn a_page_that_does_not_come_is_asked_for_again() {
        let wanted = snapshot(&[7; 100]);
        let announced = Some(wanted.digest());
        let mut cache = Cache::default();
        assert!(cache.fetch(1, announced, NOW).is_some());
        assert!(cache.fetch(1, announced, NOW + (PAGE_TIME - Duration::from_millis(1))).is_none());
        assert_eq!(offset(cache.fetch(1, announced, NOW + PAGE_TIME)), Some(0));
        // Should the first one come after all, it is as good.
        assert!(matches!(cache.page(1, &page_of(&wanted, 0), announced, NOW + PAGE_TIME), Loaded::Snapshot(_)));
    }
}
