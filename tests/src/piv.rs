//! What the card says about its keys, and openssl's opinion of its signatures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pocketcard_dev::Environment;

use crate::Client;
use crate::apdu::status_word;
use crate::client::unusable;

/// The public key of a slot, in the form that openssl reads, taken from the certificate on the card.
#[derive(Debug)]
pub struct PublicKey {
    path: PathBuf,
}

impl PublicKey {
    /// Reads the certificate of 9A (0x5FC105) with [`Client`] and extracts its key with openssl.
    pub fn of_9a(environment: &Environment, client: &mut Client, name: &str) -> Self {
        let command = [0x00, 0xCB, 0x3F, 0xFF, 0x05, 0x5C, 0x03, 0x5F, 0xC1, 0x05, 0x00];
        let mut object = Vec::new();
        let mut response = client.transmit(&command).unwrap_or_default();
        // The rest comes in windows. Spec: ISO 7816-4, GET RESPONSE.
        while let [data @ .., 0x61, length] = response.as_slice() {
            object.extend_from_slice(data);
            let more = [0x00, 0xC0, 0x00, 0x00, *length];
            response = client.transmit(&more).unwrap_or_default();
        }
        if status_word(&response) != 0x9000 {
            unusable(&format!("the certificate of 9A: {response:02x?}"));
        }
        object.extend_from_slice(response.strip_suffix(&[0x90, 0x00]).unwrap_or_default());
        // 53 len 70 len CERTIFICATE ...: the certificate begins at the first SEQUENCE with a long length.
        let start = object.windows(2).position(|pair| pair == [0x30, 0x82]).unwrap_or_default();
        let der = environment.folder().join(format!("{name}.der"));
        let path = environment.folder().join(format!("{name}.pem"));
        let _ = fs::write(&der, object.get(start..).unwrap_or_default());
        let output =
            Command::new("openssl").args(["x509", "-inform", "DER", "-noout", "-pubkey", "-in"]).arg(&der).output();
        match output {
            Ok(output) if output.status.success() => {
                let _ = fs::write(&path, output.stdout);
            }
            other => unusable(&format!("openssl does not read the certificate: {other:?}")),
        }
        Self { path }
    }

    /// Whether openssl accepts a DER signature over a digest. Each call needs a `scratch` folder of its own.
    pub fn verifies(&self, scratch: &Path, digest: &[u8], signature: &[u8]) -> bool {
        let (input, signed) = (scratch.join("digest"), scratch.join("signature"));
        if fs::write(&input, digest).and_then(|()| fs::write(&signed, signature)).is_err() {
            return false;
        }
        let mut command = Command::new("openssl");
        command.args(["pkeyutl", "-verify", "-pubin", "-inkey"]).arg(&self.path).arg("-in").arg(&input);
        command.arg("-sigfile").arg(&signed).output().is_ok_and(|output| output.status.success())
    }
}
