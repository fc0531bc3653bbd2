//! GET DATA and PUT DATA.
//!
//! Spec: SP 800-73-4 part 2, sections 3.1.2 and 3.3.1

use std::borrow::Cow;

use pocketcard_protocol::apdu::StatusWord;
use pocketcard_protocol::tlv::Writer;

use super::PivApplet;
use super::objects::{self, ObjectTag};
use crate::card::applet::{Context, Progress, SessionId};

impl PivApplet {
    /// Reads an object. One that asks for the PIN refuses before it says whether there is anything to read.
    pub(super) fn get_data(&mut self, session: SessionId, tag: ObjectTag) -> Result<Progress, StatusWord> {
        if tag.needs_pin() && !self.security(session).pin.is_verified() {
            return Err(StatusWord::SecurityStatusNotSatisfied);
        }
        let content = match (self.state.object(tag), tag) {
            (Some(content), _) => Cow::Borrowed(content),
            (None, ObjectTag::DISCOVERY) => Cow::Owned(objects::discovery()),
            (None, ObjectTag::KEY_HISTORY) => {
                Cow::Owned(objects::key_history(self.state.highest_retired_certificate()))
            }
            (None, _) => return Err(StatusWord::NotFound),
        };
        let mut writer = Writer::new();
        writer.put(if tag.is_bare() { tag.number() } else { 0x53 }, &content);
        Ok(Progress::success(&writer.into_bytes()))
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
