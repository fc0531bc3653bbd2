use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use pocketcard_phone::{Entropy, EntropyError};
use zeroize::Zeroizing;

const FILE_NAME: &str = "device.key";
const LENGTH: usize = 32;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceKeyError {
    #[error("the device key {FILE_NAME} cannot be read or written")]
    Io(#[from] io::Error),
    #[error("the file {FILE_NAME} is not a device key; restore it, or begin anew with another --state folder")]
    Length,
    #[error(
        "the folder holds a phone, but its {FILE_NAME} is missing; restore it, or begin anew with another --state folder"
    )]
    Missing,
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Reads the key that seals everything secret in the folder, or makes one for a new phone (`fresh`).
///
/// It lies beside what it seals: this keeps the secrets out of backups that leave `device.key` out, and nothing more. A phone has
/// a chip for it.
pub(crate) fn load(
    folder: &Path,
    fresh: bool,
    entropy: &dyn Entropy,
) -> Result<Zeroizing<[u8; LENGTH]>, DeviceKeyError> {
    let path = folder.join(FILE_NAME);
    let mut key = Zeroizing::new([0; LENGTH]);
    match File::open(&path) {
        Ok(mut file) => {
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.read_exact(&mut *key).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => DeviceKeyError::Length,
                _ => error.into(),
            })?;
            if file.read(&mut [0])? != 0 {
                return Err(DeviceKeyError::Length);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && fresh => {
            entropy.fill(&mut *key)?;
            // Written aside and renamed, so that a crash leaves a whole key or none.
            let aside = folder.join(format!("{FILE_NAME}.new"));
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all(&*key)?;
            file.sync_all()?;
            std::fs::rename(&aside, &path)?;
            File::open(folder)?.sync_all()?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(DeviceKeyError::Missing),
        Err(error) => return Err(error.into()),
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use pocketcard_phone::SystemEntropy;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(load(folder.path(), false, &SystemEntropy), Err(DeviceKeyError::Missing)));
        let first = load(folder.path(), true, &SystemEntropy).unwrap();
        assert_eq!(folder.path().join(FILE_NAME).metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(load(folder.path(), true, &SystemEntropy).unwrap(), first);
        assert_eq!(load(folder.path(), false, &SystemEntropy).unwrap(), first);
        for wrong in [LENGTH - 1, LENGTH + 1] {
            std::fs::write(folder.path().join(FILE_NAME), vec![1; wrong]).unwrap();
            assert!(matches!(load(folder.path(), true, &SystemEntropy), Err(DeviceKeyError::Length)));
        }
    }
}
