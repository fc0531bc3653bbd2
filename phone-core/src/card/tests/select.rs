use super::*;

const TEMPLATE: &str = "61344F0600001000010079074F05A00000030850 0A506F636B657463617264 \
                        AC158001078001118001148001088001 0A80010C060100 9000";

#[test]
fn piv_answers_to_every_form_of_its_name() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    table(
        &mut card,
        &mut host,
        &[
            ("00A4040008A000000397434944", "6A82"),
            ("00A4040000", "6A82"),
            ("00A40400 04 A0000003", "6A82"),
            ("00A40400 0C A00000030800001000010000", "6A82"),
            ("00A40400 0B A0000003080000100002 00", "6A82"),
            ("00A40402 05 A000000308", "6A82"),
            ("00A40000 02 3F00", "6A82"),
            ("00A40200 02 2F01", "6A82"),
            ("00A40400 0B A000000308000010000100 00", TEMPLATE),
            ("00A40400 0B A000000308000010000100", TEMPLATE),
            ("00A40400 09 A00000030800001000 00", TEMPLATE),
            ("00A40400 05 A000000308", TEMPLATE),
            ("00A40400 05 A000000308 00", TEMPLATE),
            ("00A4040C 05 A000000308", "9000"),
        ],
    );
}

#[test]
fn foreign_classes_and_instructions_are_refused_and_change_nothing() {
    let (mut card, mut host) = card_with_keys();
    table(
        &mut card,
        &mut host,
        &[
            (VERIFY, "9000"),
            ("00CADF30 00", "6D00"),
            ("001D0000 00", "6D00"),
            ("00010000 00", "6D00"),
            ("80CA9F7F 00", "6E00"),
            ("0CCB3FFF 05 5C035FC102 00", "6882"),
            ("01CB3FFF 05 5C035FC102 00", "6881"),
            ("00A4040008A000000397434944", "6A82"),
            ("00A4040006 D27600012401 00", "6A82"),
            (STATUS, "9000"),
        ],
    );
    assert_eq!(sign(&mut card, &mut host, "9A"), "9000");
}

#[test]
fn selecting_piv_again_keeps_what_was_verified_and_selecting_another_applet_does_not() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    table(
        &mut card,
        &mut host,
        &[
            (VERIFY, "9000"),
            ("00A40400 05 A000000308", TEMPLATE),
            (STATUS, "9000"),
            ("00A40400 08 A000000527471117 00", "506F636B65746361726420352E372E349000"),
            (STATUS, "6D00"),
            ("00A40400 05 A000000308", TEMPLATE),
            (STATUS, "63C3"),
        ],
    );
}

#[test]
fn the_configuration_applet_tells_tools_what_there_is() {
    let config = super::super::CardConfig { test_card: true, serial: Some(0x0102_0304), ..Default::default() };
    let mut card = TestBox::with(config, super::super::test_support::TestStore::new());
    let mut host = card.host(1);
    table(
        &mut card,
        &mut host,
        &[
            ("001D0000 00", "6D00"),
            ("00F80000 00", "01020304 9000"),
            ("00A40400 08 A000000527471117 00", "..9000"),
            ("00F80000 00", "6D00"),
            ("001D0100 00", "6A86"),
            ("001D0000 00", "21 01020010 020401020304 03020010 040100 0503050704 0A0100 0D020010 0E020010 9000"),
        ],
    );
}
