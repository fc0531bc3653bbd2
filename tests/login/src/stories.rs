//! The stories by name.

use crate::failure::Failure;
use crate::sign_in::{self, Module};
use crate::{browser, clients, denied, greeter, locker, phone_entry, pin_pad, system, told_apart, twin, two_users};

pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) tell: fn() -> Result<(), Failure>,
}

pub(crate) const STORIES: [Story; 29] = [
    Story { name: "pam_pkcs11", tell: || sign_in::matrix(Module::PamPkcs11) },
    Story { name: "pam_pkcs11-twin", tell: || twin::refused(Module::PamPkcs11) },
    Story { name: "pam_pkcs11-phone", tell: pin_pad::pam_pkcs11 },
    Story { name: "pam_pkcs11-owner", tell: || denied::matrix(Module::PamPkcs11) },
    Story { name: "two-users", tell: two_users::keyboard },
    Story { name: "two-users-phone", tell: two_users::phone },
    Story { name: "sssd", tell: || sign_in::matrix(Module::Sssd) },
    Story { name: "sssd-twin", tell: || twin::refused(Module::Sssd) },
    Story { name: "sssd-phone", tell: pin_pad::sssd },
    Story { name: "sssd-owner", tell: || denied::matrix(Module::Sssd) },
    Story { name: "pcscd-user", tell: system::pcscd_user },
    Story { name: "told-apart", tell: told_apart::told_apart },
    Story { name: "login-page", tell: clients::login },
    Story { name: "ssh", tell: clients::ssh },
    Story { name: "sudo-agent", tell: clients::sudo_agent },
    Story { name: "luks", tell: clients::luks },
    Story { name: "git", tell: clients::git },
    Story { name: "curl", tell: clients::curl },
    Story { name: "chromium", tell: browser::chromium },
    Story { name: "chromium-phone", tell: browser::chromium_phone },
    Story { name: "ssh-phone", tell: phone_entry::ssh },
    Story { name: "git-phone", tell: phone_entry::git },
    Story { name: "curl-phone", tell: phone_entry::curl },
    Story { name: "greeter", tell: greeter::keyboard::pam_pkcs11 },
    Story { name: "greeter-phone", tell: greeter::phone::pam_pkcs11 },
    Story { name: "greeter-phone-list", tell: greeter::phone::listed },
    Story { name: "greeter-sssd", tell: greeter::keyboard::sssd },
    Story { name: "screen-locker", tell: locker::i3lock },
    Story { name: "screen-locker-phone", tell: locker::i3lock_phone },
];
