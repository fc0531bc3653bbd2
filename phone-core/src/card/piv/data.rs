//! GET DATA and PUT DATA.
//!
//! Spec: SP 800-73-4 part 2, sections 3.1.2 and 3.3.1

use std::borrow::Cow;
use std::collections::BTreeMap;

use pocketcard_protocol::apdu::StatusWord;
use pocketcard_protocol::snapshot::Object;
use pocketcard_protocol::tlv::Writer;
use zeroize::Zeroizing;

use super::PivApplet;
use super::objects::{self, ObjectTag};
use crate::card::applet::{Context, Progress, SessionId};

impl PivApplet {
    /// Reads an object. One that asks for the PIN refuses before it says whether there is anything to read.
    pub(super) fn get_data(&mut self, session: SessionId, tag: ObjectTag) -> Result<Progress, StatusWord> {
        if tag.needs_pin() && !self.security(session).pin.is_verified() {
            return Err(StatusWord::SecurityStatusNotSatisfied);
        }
        self.read(tag).map(|data| Progress::success(&data)).ok_or(StatusWord::NotFound)
    }

    /// All objects that have something for everybody, and those that need the PIN, in the order of their tags.
    pub(crate) fn public_objects(&self) -> BTreeMap<ObjectTag, Object<Zeroizing<Vec<u8>>>> {
        let written = self.state.object_tags().chain([ObjectTag::DISCOVERY, ObjectTag::KEY_HISTORY]);
        let public = written.filter(|tag| !tag.needs_pin());
        let public = public.filter_map(|tag| Some((tag, Object::Always(self.read(tag)?))));
        public.chain(ObjectTag::NEED_PIN.map(|tag| (tag, Object::Pin))).collect()
    }

    /// The answer to GET DATA; `None` if there is nothing. Whether anybody may read it is the caller's to know.
    fn read(&self, tag: ObjectTag) -> Option<Zeroizing<Vec<u8>>> {
        let content = match (self.state.object(tag), tag) {
            (Some(content), _) => Cow::Borrowed(content),
            (None, ObjectTag::DISCOVERY) => Cow::Owned(objects::discovery()),
            (None, ObjectTag::KEY_HISTORY) => {
                Cow::Owned(objects::key_history(self.state.highest_retired_certificate()))
            }
            (None, _) => return None,
        };
        let mut writer = Writer::new();
        writer.put(if tag.is_bare() { tag.number() } else { 0x53 }, &content);
        Some(writer.into_bytes())
    }

    /// Writes an object whole, or deletes it where there is no content.
    pub(super) fn put_data(
        &mut self,
        session: SessionId,
        tag: ObjectTag,
        content: &[u8],
        context: &Context<'_>,
    ) -> Result<Progress, StatusWord> {
        self.require_management(session, context)?;
        // The discovery object says how the PIN works; it must not say what this card does not do.
        if tag == ObjectTag::DISCOVERY && !content.is_empty() && content != objects::discovery() {
            return Err(StatusWord::WrongData);
        }
        self.state.put_object(tag, content, context)?;
        Ok(Progress::status(StatusWord::Success))
    }
}
