//! The stories by name.

use crate::failure::Failure;
use crate::sign_in::{self, Module};
use crate::{browser, clients, greeter, locker, pin_pad, system, twin};

pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) tell: fn() -> Result<(), Failure>,
}

pub(crate) const STORIES: [Story; 16] = [
    Story { name: "pam_pkcs11", tell: || sign_in::matrix(Module::PamPkcs11) },
    Story { name: "pam_pkcs11-twin", tell: || twin::refused(Module::PamPkcs11) },
    Story { name: "pam_pkcs11-phone", tell: pin_pad::matrix },
    Story { name: "sssd", tell: || sign_in::matrix(Module::Sssd) },
    Story { name: "sssd-twin", tell: || twin::refused(Module::Sssd) },
    Story { name: "pcscd-user", tell: system::pcscd_user },
    Story { name: "login-page", tell: clients::login },
    Story { name: "ssh", tell: clients::ssh },
    Story { name: "git", tell: clients::git },
    Story { name: "curl", tell: clients::curl },
    Story { name: "chromium", tell: browser::chromium },
    Story { name: "greeter", tell: greeter::keyboard::pam_pkcs11 },
    Story { name: "greeter-phone", tell: greeter::phone::pam_pkcs11 },
    Story { name: "greeter-sssd", tell: greeter::keyboard::sssd },
    Story { name: "screen-locker", tell: locker::i3lock },
    Story { name: "screen-locker-phone", tell: locker::i3lock_phone },
];
