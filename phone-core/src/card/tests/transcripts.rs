//! What real programs send when they meet a card.

use super::*;

/// OpenSC 0.23: other drivers' applications first, then the discovery object without a SELECT, and every object twice, first
/// with a short Le.
#[test]
fn opensc_opens_the_card() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    prove_management(&mut card, &mut host);
    table(&mut card, &mut host, &[("00DB3FFF 0F 5C035FC105 5308 70 01 30 71 01 00 FE 00", "9000")]);
    host.reset(&mut card);
    table(
        &mut card,
        &mut host,
        &[
            ("00A4040C 0A A00000000101 01 020304", "6A82"),
            ("00CA006E 00", "6D00"),
            ("00A40400 06 D27600012401 00", "6A82"),
            ("80500000 08 0000000000000000 00", "6E00"),
            ("00A40400 09 A00000030800001000 00", "..9000"),
            ("00FD0000 03", "050704 9000"),
            ("00CB3FFF 03 5C017E 08", "7E124F0BA0000003 610C"),
            ("00CB3FFF 03 5C017E 14", "7E124F0BA0000003080000100001005F2F0240009000"),
            ("00CB3FFF 05 5C035FC107 08", "5333F015A0000001 612D"),
            ("00CB3FFF 05 5C035FC107 35", "..FD00FE009000"),
            ("00CB3FFF 05 5C035FC10C 08", "5308C10100C20100 6102"),
            ("00CB3FFF 05 5C035FC102 08", "533B3019D4E739DA 6135"),
            ("00CB3FFF 05 5C035FC105 08", "5308700130710100 6102"),
            ("00CB3FFF 05 5C035FC105 0A", "5308700130710100FE009000"),
            ("00CB3FFF 05 5C035FC10A 08", "6A82"),
            ("00CB3FFF 05 5C035FC10B 08", "6A82"),
            ("00CB3FFF 05 5C035FC101 08", "6A82"),
            ("00CB3FFF 05 5C035FC109 08", "6982"),
            (STATUS, "63C3"),
            ("0087009B 04 7C028100 14", "..9000"),
            (VERIFY, "9000"),
            (STATUS, "9000"),
            ("0020FF80", "9000"),
        ],
    );
}

/// ykman 5.9, `piv info`: the configuration applet, PIV by its provider alone and without Le, then metadata.
#[test]
fn ykman_shows_the_card() {
    let (mut card, mut host) = card_with_keys();
    table(
        &mut card,
        &mut host,
        &[
            ("00A40400 08 A000000527471117 00", "506F636B65746361726420352E372E349000"),
            ("001D0000 00", "..9000"),
            ("00A40400 05 A000000308", "..9000"),
            ("00FD0000", "050704 9000"),
            ("00F7009B", "01010A 02020001 050101 9000"),
            ("00CB3FFF 05 5C035FFF00", "6A82"),
            ("00F70080", "0101FF 050101 06020303 9000"),
            ("00F70096", "6A88"),
            ("00F70081", "0101FF 050101 06020303 9000"),
            ("00CB3FFF 05 5C035FC102", "..FE009000"),
            ("00CB3FFF 05 5C035FC107", "..FE009000"),
            ("00CB3FFF 05 5C035FC105", "6A82"),
            ("00F7009A", "..9000"),
            ("00F70082", "6A88"),
            ("00CB3FFF 05 5C035FFF01", "6A82"),
        ],
    );
}

/// yubico-piv-tool 2.2, `status`: a SELECT without Le must bring its answer with 9000.
#[test]
fn yubico_piv_tool_shows_the_card() {
    let mut card = TestBox::test_card();
    let mut host = card.host(1);
    let selected = send(&mut card, &mut host, "00A40400 05 A000000308");
    assert!(selected.starts_with("61") && selected.ends_with("9000"));
    table(
        &mut card,
        &mut host,
        &[
            ("00FD0000", "050704 9000"),
            ("00F80000", "..9000"),
            ("00CB3FFF 05 5C035FC102 00", "..9000"),
            ("00CB3FFF 05 5C035FC107 00", "..9000"),
            ("00CB3FFF 05 5C035FC105 00", "6A82"),
            (STATUS, "63C3"),
        ],
    );
}
