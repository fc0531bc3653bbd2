use super::*;
use proptest::prelude::*;

const PROFILE: Profile<'_> = Profile {
    template: b"template",
    applications: &[&[0xA0, 0, 0, 3, 8, 0, 0], &[0xA0, 0, 0, 5, 0x27, 0x47]],
    instructions: &[0x20, 0x87, 0xCB],
    version: &[5, 7, 4],
    serial: &[],
};

fn snapshot() -> Snapshot {
    let objects =
        [(0x7E, Object::Always(&b"discovery"[..])), (0x5F_C102, Object::Always(b"chuid")), (0x5F_C109, Object::Pin)];
    Snapshot::new(&PROFILE, &objects).unwrap()
}

#[test]
fn says_what_was_put_into_it() {
    let snapshot = snapshot();
    assert_eq!(
        (snapshot.template(), snapshot.version(), snapshot.serial()),
        (&b"template"[..], &[5, 7, 4][..], &[][..])
    );
    assert_eq!(snapshot.application(&[0xA0, 0, 0, 3, 8]), Some(0));
    assert_eq!(snapshot.application(&[0xA0, 0, 0, 5, 0x27, 0x47]), Some(1));
    assert_eq!(snapshot.application(&[0xA0, 0, 0, 5, 0x27, 0x47, 1]), None, "longer than the identifier");
    assert_eq!(snapshot.application(&[0xA0, 0, 0]), Some(0), "the first that fits");
    assert!(snapshot.knows(0x87) && !snapshot.knows(0xCA));
    assert_eq!(snapshot.object(0x7E), Some(Object::Always(&b"discovery"[..])));
    assert_eq!(snapshot.object(0x5F_C109), Some(Object::Pin));
    assert_eq!(snapshot.object(0x5F_C105), None);
}

/// Another implementation has to come to the same bytes, and a later version of this one too.
#[test]
fn the_encoding_is_the_one_of_the_specification() {
    let expected = [
        &[1, 0, 8][..],
        b"template",
        &[2, 7, 0xA0, 0, 0, 3, 8, 0, 0, 6, 0xA0, 0, 0, 5, 0x27, 0x47],
        &[3, 0x20, 0x87, 0xCB, 3, 5, 7, 4, 0],
        &[0, 3],
        &[0, 0, 0x7E, 0, 0, 9],
        b"discovery",
        &[0x5F, 0xC1, 0x02, 0, 0, 5],
        b"chuid",
        &[0x5F, 0xC1, 0x09, 1, 0, 0],
    ]
    .concat();
    let snapshot = snapshot();
    assert_eq!(snapshot.as_bytes(), expected);
    // By Python's hashlib.
    let digest: String = snapshot.digest().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, "bb2d2a7b124ed91433ff0f5bb6cdf9502b280077625536607c5d8c9a414ca8f8");
    assert_eq!(Snapshot::from_bytes(expected), Ok(snapshot));
}

#[test]
fn every_part_counts() {
    let digest = snapshot().digest();
    let bytes = snapshot().as_bytes().to_vec();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Snapshot::from_bytes(changed).map_or(true, |other| other.digest() != digest), "{at}");
        assert!(Snapshot::from_bytes(bytes[..at].to_vec()).is_err(), "{at} bytes of it");
    }
    assert_eq!(Snapshot::from_bytes([&bytes[..], &[0]].concat()), Err(SnapshotError::Length));
}

#[test]
fn what_could_be_written_in_two_ways_is_refused() {
    let new = |profile: &Profile<'_>, objects: &[(u32, Object<&[u8]>)]| Snapshot::new(profile, objects).unwrap_err();
    let one = Object::Always(&b"1"[..]);
    for objects in [
        &[(2, one), (1, one)][..],
        &[(1, one), (1, Object::Pin)],
        &[(0, one)],
        // An object that nobody wrote is not in the list.
        &[(1, Object::Always(&[]))],
    ] {
        assert_eq!(new(&PROFILE, objects), SnapshotError::NotCanonical, "{objects:?}");
    }
    assert_eq!(new(&PROFILE, &[(1 << 24, one)]), SnapshotError::TooLong);
    for profile in [
        Profile { instructions: &[2, 1], ..PROFILE },
        Profile { instructions: &[1, 1], ..PROFILE },
        Profile { applications: &[], ..PROFILE },
        Profile { applications: &[&[0xA0, 0, 0, 3]], ..PROFILE },
        Profile { applications: &[&[0xA0; 17]], ..PROFILE },
    ] {
        assert_eq!(new(&profile, &[]), SnapshotError::NotCanonical, "{profile:?}");
    }
    let mut unknown = snapshot().as_bytes().to_vec();
    unknown[0] = 2;
    assert_eq!(Snapshot::from_bytes(unknown), Err(SnapshotError::Encoding { version: 2 }));
    let mut rule = snapshot().as_bytes().to_vec();
    let last = rule.len() - 3;
    rule[last] = 2;
    assert_eq!(Snapshot::from_bytes(rule), Err(SnapshotError::NotCanonical));
}

#[test]
fn limits_hold() {
    let content = vec![7; 0xFFFF];
    let objects = |length: usize| -> Vec<(u32, Object<&[u8]>)> {
        let whole = (1..=4).map(|tag| (tag, Object::Always(content.as_slice())));
        whole.chain([(5, Object::Always(&content[..length]))]).collect()
    };
    let around = Snapshot::new(&PROFILE, &objects(1)).unwrap().as_bytes().len() - 1;
    let longest = Snapshot::new(&PROFILE, &objects(SNAPSHOT_LIMIT - around)).unwrap();
    assert_eq!(longest.as_bytes().len(), SNAPSHOT_LIMIT);
    assert_eq!(Snapshot::new(&PROFILE, &objects(SNAPSHOT_LIMIT - around + 1)), Err(SnapshotError::TooLong));
    let many =
        |count: usize| -> Vec<(u32, Object<&[u8]>)> { (1..=count as u32).map(|tag| (tag, Object::Pin)).collect() };
    assert!(Snapshot::new(&PROFILE, &many(OBJECTS_LIMIT)).is_ok());
    assert_eq!(Snapshot::new(&PROFILE, &many(OBJECTS_LIMIT + 1)), Err(SnapshotError::TooLong));
    let long = vec![0; 0x1_0000];
    assert_eq!(Snapshot::new(&PROFILE, &[(1, Object::Always(&long))]), Err(SnapshotError::TooLong));

    let pages: Vec<&[u8]> =
        (0..).map(|page| longest.page(page * PAGE_LIMIT)).take_while(|page| !page.is_empty()).collect();
    assert_eq!((pages.len(), pages[0].len()), (SNAPSHOT_LIMIT / PAGE_LIMIT, PAGE_LIMIT));
    assert_eq!(pages.concat(), longest.as_bytes());
    assert!(longest.page(usize::MAX).is_empty());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..80)) {
        if let Ok(snapshot) = Snapshot::from_bytes(bytes.clone()) {
            prop_assert_eq!(snapshot.as_bytes(), bytes);
        }
    }
}
