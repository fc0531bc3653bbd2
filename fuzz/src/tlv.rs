//! Data objects.

use pocketcard_protocol::tlv::{self, Reader, TlvError, Writer};

/// Values lie where they must, the same is read after it was written anew, and errors agree.
pub fn run(data: &[u8]) {
    let mut writer = Writer::new();
    walk(data, &mut writer, 0);

    let mut whole = Writer::new();
    let mut error = None;
    for object in Reader::new(data) {
        match object {
            Ok(object) => {
                let inside = data.as_ptr_range();
                let value = object.value.as_ptr_range();
                assert!(object.value.is_empty() || (inside.start <= value.start && value.end <= inside.end));
                whole.put(object.tag, object.value);
            }
            Err(first) => {
                assert_eq!(error.replace(first), None, "nothing follows an error");
            }
        }
    }
    let whole = whole.into_bytes();
    let objects =
        |bytes| Reader::new(bytes).filter_map(Result::ok).map(|o| (o.tag, o.value.to_vec())).collect::<Vec<_>>();
    assert_eq!(objects(&whole), objects(data));
    assert!(whole.len() <= data.len(), "lengths are minimal");
    if let Some((tag, value)) = objects(data).first() {
        match error {
            None => assert_eq!(tlv::find(data, *tag), Ok(Some(&value[..]))),
            Some(error) => assert_eq!(tlv::find(data, *tag), Err(error)),
        }
        let only = tlv::only(data, *tag);
        let alone = objects(data).len() == 1 && error.is_none();
        assert_eq!(only.is_ok(), alone);
    } else {
        assert!(matches!(
            tlv::only(data, 0x53),
            Err(TlvError::UnexpectedTag { .. }
                | TlvError::Truncated
                | TlvError::TagTooLong
                | TlvError::LengthForm { .. })
        ));
    }
}

/// Writes what is read, level by level; the copy has the same structure.
fn walk(data: &[u8], writer: &mut Writer, depth: usize) {
    for object in Reader::new(data) {
        let Ok(object) = object else { return };
        if object.is_constructed() && depth < 16 {
            writer.nest(object.tag, |inner| walk(object.value, inner, depth + 1));
        } else {
            writer.put(object.tag, object.value);
        }
    }
    if depth == 0 {
        let mut again = Writer::new();
        let written = std::mem::take(writer).into_bytes();
        assert!(Reader::new(&written).all(|object| object.is_ok()), "what was written can be read");
        for object in Reader::new(&written).flatten() {
            again.put(object.tag, object.value);
        }
        assert_eq!(again.into_bytes(), written);
    }
}
