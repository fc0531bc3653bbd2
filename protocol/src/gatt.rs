//! The GATT service of a phone: its UUIDs, and how `Info` travels beside the fragments.
//!
//! Spec: SPEC.md section 11.2

use crate::l2cap::Psm;
use crate::link::{INFO_LIMIT_BYTES, Info};

/// Instances of the service that a phone may have. One instance serves one host at a time: some systems (BlueZ) cannot
/// notify one of several hosts that are subscribed to the same characteristic.
pub const INSTANCES: u8 = 8;

/// Readable: the phone's `Info`. A phone refuses the read while the instance serves another host.
pub const INFO: u128 = 0xb7d3_0010_6c1e_4f55_9a0d_1c5e_8f2a_7b40;

/// Written by the host, with or without response: fragments and credits.
pub const HOST_TO_PHONE: u128 = 0xb7d3_0011_6c1e_4f55_9a0d_1c5e_8f2a_7b40;

/// Notified by the phone: fragments and credits.
pub const PHONE_TO_HOST: u128 = 0xb7d3_0012_6c1e_4f55_9a0d_1c5e_8f2a_7b40;

const SERVICE: u128 = 0xb7d3_0000_6c1e_4f55_9a0d_1c5e_8f2a_7b40;
/// Where the instance's number stands in the UUID.
const INSTANCE_SHIFT: u32 = 96;

/// Kind of the link message that carries `Info`.
const INFO_KIND: u8 = 0;

/// The UUID of one instance of the service; `None` beyond [`INSTANCES`].
#[must_use]
pub const fn service(instance: u8) -> Option<u128> {
    // Widening; `From` is not yet const.
    if instance < INSTANCES { Some(SERVICE | (instance as u128) << INSTANCE_SHIFT) } else { None }
}

/// The link message that the value of the characteristic `Info` stands for.
#[must_use]
pub fn info_message(value: &[u8]) -> Vec<u8> {
    // A byte too many stays one: the link refuses it.
    let value = value.get(..=INFO_LIMIT_BYTES).unwrap_or(value);
    let mut message = Vec::with_capacity(1 + value.len());
    message.push(INFO_KIND);
    message.extend_from_slice(value);
    message
}

/// The value of the characteristic, if this link message is an `Info`. The first one of a link is not sent but read.
#[must_use]
pub fn info_value(message: &[u8]) -> Option<&[u8]> {
    message.strip_prefix(&[INFO_KIND])
}

/// Whether a value that was read may be an `Info`, of whatever version. A host whose system has kept where a phone's characteristics
/// were may read something else there, such as a declaration of one of them.
#[must_use]
pub fn may_be_info(value: &[u8]) -> bool {
    let declares = |uuid: u128| value.ends_with(&uuid.to_le_bytes());
    Info::has_versions(value) && ![INFO, HOST_TO_PHONE, PHONE_TO_HOST].into_iter().any(declares)
}

/// Where the phone takes channels of L2CAP, by the value of its `Info`. A hint, as all of `Info` is before the handshake.
#[must_use]
pub fn psm(value: &[u8]) -> Option<Psm> {
    Info::offered_channel(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_uuids_of_their_own() {
        assert_eq!(service(0), Some(0xb7d30000_6c1e_4f55_9a0d_1c5e8f2a7b40));
        assert_eq!(service(7), Some(0xb7d30007_6c1e_4f55_9a0d_1c5e8f2a7b40));
        assert_eq!(service(8), None);
    }

    #[test]
    fn the_value_is_the_message_without_its_kind() {
        assert_eq!(info_value(&info_message(&[1, 2])), Some(&[1, 2][..]));
        assert_eq!(info_value(&[1, 2]), None);
        assert_eq!(info_message(&[7; 1000]).len(), 1 + INFO_LIMIT_BYTES + 1);
    }

    #[test]
    fn what_is_read_in_place_of_info_is_told_from_it() {
        assert!(may_be_info(&[1, 1]));
        assert!(may_be_info(&[[2, 7].as_slice(), &[0xAA; 40]].concat()), "a later version");
        // A subscription; nothing; what is too long.
        for value in [[0, 0].as_slice(), &[], &[1; INFO_LIMIT_BYTES + 1]] {
            assert!(!may_be_info(value), "{value:?}");
        }
        // The declaration of a characteristic that notifies, at handle 0x0102: it begins as versions 2 to 2 would.
        let declaration = [[0x10, 0x02, 0x01].as_slice(), &PHONE_TO_HOST.to_le_bytes()].concat();
        let versions = [[0x02, 0x02, 0x01].as_slice(), &INFO.to_le_bytes()].concat();
        assert!(!may_be_info(&declaration) && !may_be_info(&versions));
    }
}
