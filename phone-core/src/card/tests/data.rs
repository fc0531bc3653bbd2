use super::*;
use crate::card::CardConfig;

#[test]
fn objects_of_a_new_card() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    table(
        &mut card,
        &mut host,
        &[
            // Protected objects refuse before they say that they are empty.
            ("00CB3FFF 05 5C035FC109 00", "6982"),
            ("00CB3FFF 05 5C035FC103 00", "6982"),
            ("00CB3FFF 05 5C035FC108 00", "6982"),
            ("00CB3FFF 05 5C035FC121 00", "6982"),
            ("00CB3FFF 05 5C035FC105 00", "6A82"),
            ("00CB3FFF 05 5C035FFF00 00", "6A82"),
            ("00CB3FFF 04 5C027F61 00", "6A82"),
            ("00CB3FFF 03 5C017E 00", "7E124F0BA0000003080000100001005F2F0240009000"),
            ("00CB3FFF 05 5C035FC10C 00", "5308C10100C20100FE009000"),
            ("00CB3FFF 05 5C035FC107 00", "..FD00FE009000"),
            ("00CB3FFF 05 5C035FC102 00", "..350832303939313233313E00FE009000"),
            (VERIFY, "9000"),
            ("00CB3FFF 05 5C035FC109 00", "6A82"),
            ("00CB3FFF 05 5C035FC121 00", "6A82"),
        ],
    );
}

#[test]
fn a_tiny_le_gets_the_beginning_and_the_rest_on_request() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    table(
        &mut card,
        &mut host,
        &[
            ("00CB3FFF 03 5C017E 08", "7E124F0BA0000003 610C"),
            ("00C00000 0C", "080000100001005F2F0240009000"),
            ("00C00000 00", "6985"),
        ],
    );
}

#[test]
fn every_card_has_a_guid_and_a_card_identifier_of_its_own() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    let chuid = send(&mut card, &mut host, "00CB3FFF 05 5C035FC102 00");
    let capability = send(&mut card, &mut host, "00CB3FFF 05 5C035FC107 00");
    assert_eq!(&chuid[60..62], "10", "length of the GUID");
    let guid = bytes(&chuid[62..94]);
    assert_eq!((guid[6] >> 4, guid[8] >> 6), (4, 2), "a random UUID");
    // The same state is the same card; another store is another one.
    let store = card.store.clone();
    let mut again = TestBox::with(CardConfig { test_card: true, ..CardConfig::default() }, store);
    let mut host = again.host(1);
    assert_eq!(send(&mut again, &mut host, "00CB3FFF 05 5C035FC102 00"), chuid);
    assert_eq!(send(&mut again, &mut host, "00CB3FFF 05 5C035FC107 00"), capability);
    // What RESET makes is a new card, too.
    for _ in 0..3 {
        send(&mut again, &mut host, VERIFY_WRONG);
        send(&mut again, &mut host, "002C0080 10 0000000000000000 313233343536FFFF");
    }
    assert_eq!(send(&mut again, &mut host, "00FB0000"), "9000");
    assert_ne!(send(&mut again, &mut host, "00CB3FFF 05 5C035FC102 00"), chuid);
    assert_ne!(send(&mut again, &mut host, "00CB3FFF 05 5C035FC107 00"), capability);
}

#[test]
fn objects_are_written_replaced_and_deleted_with_the_management_key() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    table(&mut card, &mut host, &[("00DB3FFF 09 5C035FC105 5302AABB", "6982")]);
    prove_management(&mut card, &mut host);
    table(
        &mut card,
        &mut host,
        &[
            ("00DB3FFF 09 5C035FC105 5302AABB", "9000"),
            ("00CB3FFF 05 5C035FC105 00", "5302AABB9000"),
            ("00DB3FFF 08 5C035FC105 5301CC", "9000"),
            ("00CB3FFF 05 5C035FC105 00", "5301CC9000"),
            ("00DB3FFF 07 5C035FC105 5300", "9000"),
            ("00CB3FFF 05 5C035FC105 00", "6A82"),
            ("00DB3FFF 07 5C035FC105 5300", "9000"),
            // Tags that only some tool knows.
            ("00DB3FFF 08 5C035FFF00 530101", "9000"),
            ("00CB3FFF 05 5C035FFF00 00", "5301019000"),
            ("00DB3FFF 06 5C0142 530102", "9000"),
            ("00CB3FFF 03 5C0142 00", "5301029000"),
            ("00DB3FFF 08 5C035F0001 530104", "9000"),
            ("00CB3FFF 05 5C035F0001 00", "5301049000"),
            ("00DB3FFF 08 5C035FFF91 530103", "9000"),
            ("00CB3FFF 05 5C035FFF91 00", "5301039000"),
            // Bare objects; the discovery object cannot be made to say what is not so.
            ("00DB3FFF 07 7F61 04 02020000", "9000"),
            ("00CB3FFF 04 5C027F61 00", "7F6104020200009000"),
            ("00DB3FFF 14 7E124F0BA0000003080000100001005F2F026000", "6A80"),
            ("00DB3FFF 14 7E124F0BA0000003080000100001005F2F024000", "9000"),
            ("00CB3FFF 03 5C017E 00", "7E124F0BA0000003080000100001005F2F0240009000"),
        ],
    );
}

#[test]
fn the_key_history_reaches_the_highest_certificate_until_somebody_writes_one() {
    let (mut card, mut host) = card_with_management();
    table(
        &mut card,
        &mut host,
        &[
            ("00DB3FFF 08 5C035FC111 530170", "9000"),
            ("00CB3FFF 05 5C035FC10C 00", "530AC10105C20100F300FE009000"),
            ("00DB3FFF 09 5C035FC10C 5302FE00", "9000"),
            ("00CB3FFF 05 5C035FC10C 00", "5302FE009000"),
            ("00DB3FFF 07 5C035FC10C 5300", "9000"),
            ("00CB3FFF 05 5C035FC10C 00", "530AC10105C20100F300FE009000"),
        ],
    );
}

#[test]
fn a_certificate_arrives_in_a_chain_or_in_one_long_command() {
    let (mut card, mut host) = card_with_management();
    let content: Vec<u8> = (0..1900_u32).map(|index| (index % 251) as u8).collect();
    let data = [bytes("5C035FC10A 5382076C"), content.clone()].concat();
    let extended = [bytes("00DB3FFF 00"), (data.len() as u16).to_be_bytes().to_vec(), data.clone()].concat();
    assert_eq!(host.raw(&mut card, &extended), [0x90, 0x00]);
    let expected = [bytes("5382076C"), content, vec![0x90, 0x00]].concat();
    assert_eq!(host.raw(&mut card, &bytes("00CB3FFF 00 0005 5C035FC10A 0000")), expected);
    // The same in a chain, read in windows.
    assert_eq!(send(&mut card, &mut host, "00DB3FFF 07 5C035FC10A 5300"), "9000");
    for (index, part) in data.chunks(255).enumerate() {
        let cla = if (index + 1) * 255 < data.len() { 0x10 } else { 0x00 };
        let command = [vec![cla, 0xDB, 0x3F, 0xFF, part.len() as u8], part.to_vec()].concat();
        assert_eq!(host.raw(&mut card, &command), [0x90, 0x00]);
    }
    let mut read = Vec::new();
    let mut answer = host.raw(&mut card, &bytes("00CB3FFF 05 5C035FC10A 00"));
    loop {
        let (data, status) = answer.split_at(answer.len() - 2);
        read.extend_from_slice(data);
        match status {
            [0x61, _] => answer = host.raw(&mut card, &bytes("00C00000 00")),
            status => {
                read.extend_from_slice(status);
                break;
            }
        }
    }
    assert_eq!(read, expected);
}

#[test]
fn what_does_not_fit_is_refused_and_what_was_there_stays() {
    let (mut card, mut host) = card_with_management();
    let put = |card: &mut TestBox, host: &mut TestHost, tag: u32, length: usize| {
        let mut data = [bytes("5C03"), tag.to_be_bytes()[1..].to_vec(), vec![0x53, 0x83]].concat();
        data.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
        data.resize(data.len() + length, 0x55);
        let command = [bytes("00DB3FFF 00"), (data.len() as u16).to_be_bytes().to_vec(), data].concat();
        text(&host.transmit(card, &command))
    };
    assert_eq!(put(&mut card, &mut host, 0x5F_C105, 16 * 1024 + 1), "6A84");
    assert_eq!(put(&mut card, &mut host, 0x5F_C105, 16 * 1024), "9000");
    let mut refused = 0;
    for tag in 0x5F_FF00..0x5F_FF40 {
        match put(&mut card, &mut host, tag, 8 * 1024).as_str() {
            "9000" => assert_eq!(refused, 0, "{tag:X}"),
            status => {
                assert_eq!(status, "6A84");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "a card has an end");
    assert!(send(&mut card, &mut host, "00CB3FFF 00 0005 5C035FC105 0000").ends_with("559000"));
}

#[test]
fn an_object_that_could_not_be_stored_is_not_there() {
    let (mut card, mut host) = card_with_management();
    card.store.set_failing(true);
    table(&mut card, &mut host, &[("00DB3FFF 09 5C035FC105 5302AABB", "6581"), ("00CB3FFF 05 5C035FC105 00", "6A82")]);
    card.store.set_failing(false);
    table(&mut card, &mut host, &[("00DB3FFF 09 5C035FC105 5302AABB", "9000")]);
    assert_eq!(card.store.entry("piv/object/5FC105"), Some(vec![0xAA, 0xBB]));
}

#[test]
fn a_restarted_phone_is_the_same_card() {
    let (mut card, mut host) = card_with_management();
    table(
        &mut card,
        &mut host,
        &[
            ("00DB3FFF 06 5C0142 530102", "9000"),
            ("00DB3FFF 08 5C035F0001 530104", "9000"),
            ("00470082 0B AC09800114AA0103AB0103 00", "..9000"),
            ("00FFFFFE 13 089B10 000102030405060708090A0B0C0D0E0F", "9000"),
            ("00240081 10 3132333435363738 0001FF0003000405", "9000"),
            (VERIFY_WRONG, "63C2"),
        ],
    );
    let questions = [
        "00CB3FFF 03 5C0142 00",
        "00CB3FFF 05 5C035F0001 00",
        "00CB3FFF 05 5C035FC102 00",
        "00F70082 00",
        "00F7009B 00",
        "00F70080 00",
        "00F70081 00",
        "00F80000 00",
        STATUS,
    ];
    let before: Vec<String> = questions.iter().map(|question| send(&mut card, &mut host, question)).collect();
    let handles = card.card.key_handles();
    let store = card.store.clone();
    let mut again = TestBox::with(CardConfig { test_card: true, ..CardConfig::default() }, store);
    let mut host = again.host(1);
    let after: Vec<String> = questions.iter().map(|question| send(&mut again, &mut host, question)).collect();
    assert_eq!(after, before);
    assert_eq!(again.card.key_handles(), handles);
    table(&mut again, &mut host, &[("00DB3FFF 06 5C0142 530103", "6982"), ("00DB3FFF 05 5C01425300", "6982")]);
}
