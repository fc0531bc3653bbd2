//! The stories by name.

use crate::failure::Failure;
use crate::sign_in::{self, Module};
use crate::{PinEntry, browser, clients, greeter, locker, twin};

pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) tell: fn(PinEntry) -> Result<(), Failure>,
}

pub(crate) const STORIES: [Story; 11] = [
    Story { name: "pam_pkcs11", tell: |pin_entry| sign_in::matrix(Module::PamPkcs11, pin_entry) },
    Story { name: "pam_pkcs11-twin", tell: |pin_entry| twin::refused(Module::PamPkcs11, pin_entry) },
    Story { name: "sssd", tell: |pin_entry| sign_in::matrix(Module::Sssd, pin_entry) },
    Story { name: "sssd-twin", tell: |pin_entry| twin::refused(Module::Sssd, pin_entry) },
    Story { name: "login-page", tell: clients::login },
    Story { name: "ssh", tell: clients::ssh },
    Story { name: "git", tell: clients::git },
    Story { name: "curl", tell: clients::curl },
    Story { name: "chromium", tell: browser::chromium },
    Story { name: "greeter", tell: greeter::lightdm },
    Story { name: "screen-locker", tell: locker::i3lock },
];
