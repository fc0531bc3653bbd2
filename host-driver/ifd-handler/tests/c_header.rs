//! Compares every constant, size and offset of `ifd_handler::types` and `part10` with the installed C header.
//!
//! A small C program prints what the header says; this test compares it with what Rust says. Reported as ignored, with
//! the reason, where there is no C compiler or no `libpcsclite-dev`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::mem::offset_of;
use std::process::{Command, exit};

use ifd_handler::part10::{self, Feature, PinModify, PinVerify};
use ifd_handler::types::*;
use libtest_mimic::{Arguments, Failed, Trial};

const INCLUDE: &str = "/usr/include/PCSC";

/// C expression and Rust value.
fn expectations() -> Vec<(String, i64)> {
    let mut list: Vec<(String, i64)> = Vec::new();
    macro_rules! same {
        ($($name:ident),* $(,)?) => { $( list.push((stringify!($name).to_owned(), $name as i64)); )* };
    }
    same!(
        TAG_IFD_ATR,
        TAG_IFD_SLOTNUM,
        TAG_IFD_SLOT_THREAD_SAFE,
        TAG_IFD_THREAD_SAFE,
        TAG_IFD_SLOTS_NUMBER,
        TAG_IFD_SIMULTANEOUS_ACCESS,
        TAG_IFD_POLLING_THREAD,
        TAG_IFD_POLLING_THREAD_KILLABLE,
        TAG_IFD_STOP_POLLING_THREAD,
        TAG_IFD_POLLING_THREAD_WITH_TIMEOUT,
        TAG_IFD_DEVICE_REMOVED,
        SCARD_ATTR_ATR_STRING,
        IFD_POWER_UP,
        IFD_POWER_DOWN,
        IFD_RESET,
        IFD_NEGOTIATE_PTS1,
        IFD_NEGOTIATE_PTS2,
        IFD_NEGOTIATE_PTS3,
        IFD_SUCCESS,
        IFD_ERROR_TAG,
        IFD_ERROR_SET_FAILURE,
        IFD_ERROR_VALUE_READ_ONLY,
        IFD_ERROR_PTS_FAILURE,
        IFD_ERROR_NOT_SUPPORTED,
        IFD_PROTOCOL_NOT_SUPPORTED,
        IFD_ERROR_POWER_ACTION,
        IFD_ERROR_SWALLOW,
        IFD_ERROR_EJECT,
        IFD_ERROR_CONFISCATE,
        IFD_COMMUNICATION_ERROR,
        IFD_RESPONSE_TIMEOUT,
        IFD_NOT_SUPPORTED,
        IFD_ICC_PRESENT,
        IFD_ICC_NOT_PRESENT,
        IFD_NO_SUCH_DEVICE,
        IFD_ERROR_INSUFFICIENT_BUFFER,
        MAX_ATR_SIZE,
        MAX_BUFFER_SIZE_EXTENDED,
    );
    macro_rules! features {
        ($($name:ident),* $(,)?) => { $( list.push((concat!("FEATURE_", stringify!($name)).to_owned(), i64::from(Feature::$name.0))); )* };
    }
    features!(
        VERIFY_PIN_START,
        VERIFY_PIN_FINISH,
        MODIFY_PIN_START,
        MODIFY_PIN_FINISH,
        GET_KEY_PRESSED,
        VERIFY_PIN_DIRECT,
        MODIFY_PIN_DIRECT,
        MCT_READER_DIRECT,
        MCT_UNIVERSAL,
        IFD_PIN_PROPERTIES,
        ABORT,
        SET_SPE_MESSAGE,
        VERIFY_PIN_DIRECT_APP_ID,
        MODIFY_PIN_DIRECT_APP_ID,
        WRITE_DISPLAY,
        GET_KEY,
        IFD_DISPLAY_PROPERTIES,
        GET_TLV_PROPERTIES,
        CCID_ESC_COMMAND,
        EXECUTE_PACE,
    );
    let others = [
        ("sizeof(DWORD)", size_of::<Dword>()),
        ("sizeof(RESPONSECODE)", size_of::<ResponseCode>()),
        ("sizeof(UCHAR)", size_of::<Uchar>()),
        ("sizeof(SCARD_IO_HEADER)", size_of::<ScardIoHeader>()),
        ("offsetof(SCARD_IO_HEADER, Protocol)", offset_of!(ScardIoHeader, protocol)),
        ("offsetof(SCARD_IO_HEADER, Length)", offset_of!(ScardIoHeader, length)),
        ("sizeof(void (*)(void))", size_of::<PollingFunction>()),
        ("sizeof(void (*)(void)) + 0", size_of::<StopFunction>()),
        ("(DWORD)-1 > 0", 1),
        ("(RESPONSECODE)-1 < 0", 1),
        ("CM_IOCTL_GET_FEATURE_REQUEST", part10::GET_FEATURE_REQUEST.0 as usize),
        ("SCARD_CTL_CODE(1)", part10::control_code(1).0 as usize),
        ("sizeof(PCSC_TLV_STRUCTURE)", 6),
        ("offsetof(PIN_VERIFY_STRUCTURE, abData)", PinVerify::HEAD),
        ("offsetof(PIN_VERIFY_STRUCTURE, wPINMaxExtraDigit)", 5),
        ("offsetof(PIN_VERIFY_STRUCTURE, bEntryValidationCondition)", 7),
        ("offsetof(PIN_VERIFY_STRUCTURE, wLangId)", 9),
        ("offsetof(PIN_VERIFY_STRUCTURE, bTeoPrologue)", 12),
        ("offsetof(PIN_VERIFY_STRUCTURE, ulDataLength)", 15),
        ("offsetof(PIN_MODIFY_STRUCTURE, abData)", PinModify::HEAD),
        ("offsetof(PIN_MODIFY_STRUCTURE, bInsertionOffsetOld)", 5),
        ("offsetof(PIN_MODIFY_STRUCTURE, wPINMaxExtraDigit)", 7),
        ("offsetof(PIN_MODIFY_STRUCTURE, bConfirmPIN)", 9),
        ("offsetof(PIN_MODIFY_STRUCTURE, wLangId)", 12),
        ("offsetof(PIN_MODIFY_STRUCTURE, bMsgIndex1)", 14),
        ("offsetof(PIN_MODIFY_STRUCTURE, bTeoPrologue)", 17),
        ("offsetof(PIN_MODIFY_STRUCTURE, ulDataLength)", 20),
        ("sizeof(PIN_PROPERTIES_STRUCTURE)", part10::PinProperties::default().to_bytes().len()),
        ("PCSCv2_PART10_PROPERTY_wLcdLayout", 1),
        ("PCSCv2_PART10_PROPERTY_bEntryValidationCondition", 2),
        ("PCSCv2_PART10_PROPERTY_bTimeOut2", 3),
        ("PCSCv2_PART10_PROPERTY_wLcdMaxCharacters", 4),
        ("PCSCv2_PART10_PROPERTY_wLcdMaxLines", 5),
        ("PCSCv2_PART10_PROPERTY_bMinPINSize", 6),
        ("PCSCv2_PART10_PROPERTY_bMaxPINSize", 7),
        ("PCSCv2_PART10_PROPERTY_sFirmwareID", 8),
        ("PCSCv2_PART10_PROPERTY_bPPDUSupport", 9),
        ("PCSCv2_PART10_PROPERTY_dwMaxAPDUDataSize", 10),
        ("PCSCv2_PART10_PROPERTY_wIdVendor", 11),
        ("PCSCv2_PART10_PROPERTY_wIdProduct", 12),
    ];
    list.extend(others.map(|(expression, value)| (expression.to_owned(), i64::try_from(value).unwrap())));
    list
}

/// What keeps the test from running here.
fn missing() -> Option<&'static str> {
    if !std::path::Path::new(INCLUDE).join("ifdhandler.h").exists() {
        return Some("no PCSC/ifdhandler.h: apt install libpcsclite-dev");
    }
    match Command::new("cc").arg("--version").output() {
        Ok(output) if output.status.success() => None,
        _ => Some("no C compiler: apt install gcc"),
    }
}

/// Declares every function with the header's prototype and Rust's idea of it, so that the compiler compares them.
const PROTOTYPES: &str = "
RESPONSECODE IFDHCreateChannelByName(DWORD, LPSTR);
RESPONSECODE IFDHCreateChannel(DWORD, DWORD);
RESPONSECODE IFDHCloseChannel(DWORD);
RESPONSECODE IFDHGetCapabilities(DWORD, DWORD, PDWORD, PUCHAR);
RESPONSECODE IFDHSetCapabilities(DWORD, DWORD, DWORD, PUCHAR);
RESPONSECODE IFDHSetProtocolParameters(DWORD, DWORD, UCHAR, UCHAR, UCHAR, UCHAR);
RESPONSECODE IFDHPowerICC(DWORD, DWORD, PUCHAR, PDWORD);
RESPONSECODE IFDHTransmitToICC(DWORD, SCARD_IO_HEADER, PUCHAR, DWORD, PUCHAR, PDWORD, PSCARD_IO_HEADER);
RESPONSECODE IFDHControl(DWORD, DWORD, PUCHAR, DWORD, PUCHAR, DWORD, LPDWORD);
RESPONSECODE IFDHICCPresence(DWORD);
";

fn the_header_agrees() -> Result<(), Failed> {
    let expectations = expectations();
    let mut source = String::from(
        "#include <stdio.h>\n#include <stddef.h>\n#include <wintypes.h>\n#include <pcsclite.h>\n#include <ifdhandler.h>\n#include <reader.h>\n",
    );
    source.push_str(PROTOTYPES);
    source.push_str("int main(void) {\n");
    for (index, (expression, _)) in expectations.iter().enumerate() {
        writeln!(source, "printf(\"{index} %lld\\n\", (long long)({expression}));")?;
    }
    source.push_str("return 0; }\n");

    let folder = tempfile::tempdir()?;
    let (file, program) = (folder.path().join("header.c"), folder.path().join("header"));
    std::fs::write(&file, source)?;
    let compiled = Command::new("cc").args(["-I", INCLUDE, "-o"]).arg(&program).arg(&file).output()?;
    if !compiled.status.success() {
        return Err(format!("the C program does not compile:\n{}", String::from_utf8_lossy(&compiled.stderr)).into());
    }
    let output = String::from_utf8(Command::new(&program).output()?.stdout)?;
    let said: BTreeMap<usize, i64> = output
        .lines()
        .map(|line| {
            let (index, value) = line.split_once(' ').unwrap();
            (index.parse().unwrap(), value.parse().unwrap())
        })
        .collect();
    assert_eq!(said.len(), expectations.len());
    let mut differences = String::new();
    for (index, (expression, ours)) in expectations.iter().enumerate() {
        let theirs = said[&index];
        if theirs != *ours {
            writeln!(differences, "{expression}: the header says {theirs}, Rust says {ours}")?;
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(differences.into()) }
}

fn main() {
    let missing = missing();
    let trial = Trial::test("the_header_agrees", the_header_agrees).with_ignored_flag(missing.is_some());
    if let Some(reason) = missing {
        eprintln!("skipped: the_header_agrees: {reason}");
    }
    exit(i32::from(libtest_mimic::run(&Arguments::from_args(), vec![trial]).has_failed()) * 101);
}
