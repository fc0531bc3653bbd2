//! LightDM with the GTK greeter: the phone arrives, the greeter asks for its PIN, the session starts; the phone leaves, the
//! session locks; it is back, and its PIN unlocks.

mod consoles;
pub(crate) mod keyboard;
pub(crate) mod lightdm;
pub(crate) mod phone;
