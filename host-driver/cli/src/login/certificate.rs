//! The certificate with which a phone signs in, read from the card as any program reads it.

use std::fs;
use std::path::Path;

use pcsc::{Card, Context, Disposition, Protocols, Scope, ShareMode};
use pocketcard_protocol::tlv;
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, DecodePem, Encode};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use super::LoginError;
use crate::failure::Failure;

/// SELECT of the PIV application, and GET DATA of the certificate for PIV authentication (9A).
///
/// Spec: SP 800-73-4 part 1, table 3; part 2, sections 3.1.1 and 3.1.2.
const SELECT: &[u8] = &[0x00, 0xA4, 0x04, 0x00, 0x05, 0xA0, 0x00, 0x00, 0x03, 0x08, 0x00];
const GET_CERTIFICATE: &[u8] = &[0x00, 0xCB, 0x3F, 0xFF, 0x05, 0x5C, 0x03, 0x5F, 0xC1, 0x05, 0x00];
/// How many windows of an answer are fetched, 256 bytes each: more than any certificate that a PIV card can hold. A hostile
/// card may promise one more for ever, with or without a byte in it.
const MOST_WINDOWS: usize = 64;
/// An extension of old, by which OpenSSL still takes a certificate for an authority's.
const NETSCAPE_CERTIFICATE_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113730.1.1");

/// Reads the certificate of the phone in a slot of our reader.
pub(super) fn of_slot(slot: u32) -> Result<Certificate, Failure> {
    let context = Context::establish(Scope::User)?;
    let suffix = format!(" 00 {slot:02X}");
    let readers = context.list_readers_owned()?;
    let ours = readers.iter().find(|reader| {
        let name = reader.to_string_lossy();
        name.starts_with("Pocketcard") && name.ends_with(&suffix)
    });
    let card = context.connect(ours.ok_or(LoginError::NoReader)?, ShareMode::Shared, Protocols::ANY)?;
    let answer = command(&card, SELECT)?;
    answer.ok_or(LoginError::NoCertificate)?;
    let object = command(&card, GET_CERTIFICATE)?.ok_or(LoginError::NoCertificate)?;
    Ok(parse(&object)?)
}

/// What is on the first PIV card of any reader.
#[derive(Debug)]
pub(super) enum First {
    /// There is no such card.
    Absent,
    /// There is one, without a certificate that could sign anybody in.
    None,
    Certificate(Box<Certificate>),
}

/// Reads the certificate of the first PIV card, which is the one that a module would take. The card stays as it was, for
/// whoever else uses it.
pub(super) fn of_first() -> Result<First, Failure> {
    let context = Context::establish(Scope::User)?;
    for reader in context.list_readers_owned()? {
        let mut card = match context.connect(&reader, ShareMode::Shared, Protocols::ANY) {
            Err(pcsc::Error::NoSmartcard | pcsc::Error::RemovedCard | pcsc::Error::UnknownReader) => continue,
            other => other?,
        };
        // Nobody selects another application in between, which would make a card of none.
        let transaction = card.transaction()?;
        let object = match command(&transaction, SELECT) {
            Ok(Some(_)) => command(&transaction, GET_CERTIFICATE).map(Some),
            other => other.map(|_| None),
        };
        drop(transaction);
        let _ = card.disconnect(Disposition::LeaveCard);
        let Some(object) = object? else { continue };
        let certificate = object.and_then(|object| parse(&object).ok());
        return Ok(certificate.map_or(First::None, |certificate| First::Certificate(Box::new(certificate))));
    }
    Ok(First::Absent)
}

/// The whole answer to a command, or `None` unless it ends with 9000 within [`MOST_WINDOWS`].
fn command(card: &Card, apdu: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    collect(apdu, |command| {
        let mut buffer = [0; 258];
        Ok(card.transmit(command, &mut buffer)?.to_vec())
    })
}

fn collect(
    apdu: &[u8],
    mut transmit: impl FnMut(&[u8]) -> Result<Vec<u8>, Failure>,
) -> Result<Option<Vec<u8>>, Failure> {
    let mut answer = Vec::new();
    let mut next = apdu.to_vec();
    for _ in 0..MOST_WINDOWS {
        let response = transmit(&next)?;
        let Some((data, word)) = response.split_last_chunk::<2>() else { return Ok(None) };
        answer.extend_from_slice(data);
        match word {
            [0x90, 0x00] => return Ok(Some(answer)),
            // The rest comes in windows. Spec: ISO 7816-4, GET RESPONSE.
            [0x61, length] => next = vec![0x00, 0xC0, 0x00, 0x00, *length],
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Takes the certificate out of its object. One that is compressed is refused: Pocketcard writes none.
///
/// Spec: SP 800-73-4 part 1, table 10.
fn parse(object: &[u8]) -> Result<Certificate, LoginError> {
    let fields = tlv::only(object, 0x53).map_err(|_| LoginError::BadCertificate)?;
    let find = |tag| tlv::find(fields, tag).map_err(|_| LoginError::BadCertificate);
    if find(0x71)?.is_some_and(|info| info.first().is_some_and(|bits| bits & 1 != 0)) {
        return Err(LoginError::BadCertificate);
    }
    let der = find(0x70)?.filter(|der| !der.is_empty()).ok_or(LoginError::NoCertificate)?;
    let certificate = Certificate::from_der(der).map_err(|_| LoginError::BadCertificate)?;
    // What is pinned is what was read, so both have to be the same bytes.
    match certificate.to_der() {
        Ok(again) if again == der => Ok(certificate),
        _ => Err(LoginError::BadCertificate),
    }
}

/// The certificate of an authority, from a file.
pub(super) fn authority(path: &Path) -> Result<Certificate, LoginError> {
    let text = fs::read(path).map_err(|source| LoginError::File { what: "reading", path: path.into(), source })?;
    Certificate::from_pem(text).map_err(|_| LoginError::BadAuthority(path.into()))
}

/// Whether a certificate that was issued with this one's key is worth nothing to whoever trusts this one.
///
/// Spec: RFC 5280, sections 4.2.1.3 and 4.2.1.9. OpenSSL also takes one of version 1, which cannot say so, for an authority's.
pub(super) fn can_issue_none(certificate: &Certificate) -> bool {
    let of = certificate.tbs_certificate();
    let constraints = of.get_extension::<BasicConstraints>();
    let usage = of.get_extension::<KeyUsage>();
    let is_old = of.extensions().is_some_and(|all| all.iter().any(|one| one.extn_id == NETSCAPE_CERTIFICATE_TYPE));
    of.version() == Version::V3
        && matches!(constraints, Ok(found) if found.as_ref().is_none_or(|(_, constraints)| !constraints.ca))
        && matches!(usage, Ok(found) if found.as_ref().is_none_or(|(_, usage)| !usage.key_cert_sign()))
        && !is_old
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::login::mapping::tests::{AUTHORITY, CERTIFICATE};

    fn object(fields: &[&[u8]]) -> Vec<u8> {
        let content = fields.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[0x53, 0x82], length.as_slice(), &content].concat()
    }

    #[test]
    fn only_a_whole_certificate_that_is_not_compressed_is_taken() {
        let der = Certificate::from_pem(CERTIFICATE).unwrap().to_der().unwrap();
        let length = u16::try_from(der.len()).unwrap().to_be_bytes();
        let field = [&[0x70, 0x82], length.as_slice(), &der].concat();
        assert!(parse(&object(&[&field, &[0x71, 1, 0], &[0xFE, 0]])).is_ok());
        for (fields, none) in [
            (vec![field.as_slice(), &[0x71, 1, 1]], false),
            (vec![&field[..field.len() - 1]], false),
            (vec![&[0x71, 1, 0]], true),
            (vec![&[0x70, 0]], true),
            (vec![&[0x70, 2, 0x30, 0x00]], false),
        ] {
            let error = parse(&object(&fields)).unwrap_err();
            assert_eq!(matches!(error, LoginError::NoCertificate), none, "{error}");
        }
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn an_answer_is_put_together_and_one_without_an_end_is_none() {
        let mut windows = [vec![1, 2, 0x61, 1], vec![3, 0x90, 0]].into_iter();
        let mut asked = Vec::new();
        let whole = collect(GET_CERTIFICATE, |command| {
            asked.push(command.to_vec());
            Ok(windows.next().unwrap())
        });
        assert_eq!(whole.unwrap(), Some(vec![1, 2, 3]));
        assert_eq!(asked, [GET_CERTIFICATE, &[0, 0xC0, 0, 0, 1]]);
        for endless in [vec![0x61, 0], [vec![7; 256], vec![0x61, 0]].concat()] {
            let mut windows = 0;
            let none = collect(SELECT, |_| {
                windows += 1;
                assert!(windows <= MOST_WINDOWS, "asked for more without an end");
                Ok(endless.clone())
            });
            assert_eq!(none.unwrap(), None);
        }
        for refused in [vec![], vec![0x90], vec![0x6A, 0x82]] {
            assert_eq!(collect(SELECT, |_| Ok(refused.clone())).unwrap(), None);
        }
    }

    #[test]
    fn an_authority_is_told_from_who_can_issue_nothing() {
        let reads = |pem: &str| can_issue_none(&Certificate::from_pem(pem).unwrap());
        assert_eq!((reads(CERTIFICATE), reads(AUTHORITY)), (true, false));
    }
}
