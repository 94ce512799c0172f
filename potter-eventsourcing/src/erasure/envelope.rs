//! One encrypted value: nonce, ciphertext and tag, in Base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use super::keys::DataKey;
use crate::error::{Error, ErrorKind, Result};

/// Encrypts `value` for `place`. The same twice is the same text.
pub(super) fn seal(key: &DataKey, place: &str, value: &str) -> Result<String> {
    let nonce = nonce(key, place, value)?;
    Ok(BASE64.encode(seal_bytes(key, nonce, place, value.as_bytes())?))
}

/// Opens what [`seal`] made.
pub(super) fn open(key: &DataKey, place: &str, data: &str) -> Result<String> {
    let bytes = BASE64.decode(data).map_err(|_| cannot_open(place))?;
    let value = open_bytes(key, place, &bytes)?;
    String::from_utf8(value).map_err(|_| cannot_open(place))
}

/// Encrypts with a nonce that is never used again with this key for something else.
pub(super) fn seal_bytes(
    key: &DataKey,
    nonce: [u8; NONCE_LEN],
    place: &str,
    value: &[u8],
) -> Result<Vec<u8>> {
    let mut sealed = value.to_vec();
    cipher(key)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(place.as_bytes()),
            &mut sealed,
        )
        .map_err(|_| {
            Error::new(ErrorKind::LimitExceeded, "a value is too large to be encrypted")
        })?;
    Ok([nonce.as_slice(), &sealed].concat())
}

pub(super) fn open_bytes(key: &DataKey, place: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or_else(|| cannot_open(place))?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| cannot_open(place))?;
    let mut sealed = sealed.to_vec();
    let value = cipher(key)?
        .open_in_place(nonce, Aad::from(place.as_bytes()), &mut sealed)
        .map_err(|_| cannot_open(place))?;
    Ok(value.to_vec())
}

fn cipher(key: &DataKey) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, key.bytes())
        .map_err(|_| Error::new(ErrorKind::Internal, "a key is not of 256 bits"))?;
    Ok(LessSafeKey::new(key))
}

/// Of place and value, by a key derived from the subject's: another value, or the same in another
/// place, has another nonce.
fn nonce(key: &DataKey, place: &str, value: &str) -> Result<[u8; NONCE_LEN]> {
    let derived =
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.bytes()), b"potter-eventsourcing nonce");
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()));
    context.update(&(place.len() as u64).to_be_bytes());
    context.update(place.as_bytes());
    context.update(value.as_bytes());
    let tag = context.sign();
    tag.as_ref()
        .first_chunk()
        .copied()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a nonce could not be made"))
}

fn cannot_open(place: &str) -> Error {
    let message = format!(
        "the personal data at {place} can't be opened: it was changed or moved, or was encrypted \
         with another key"
    );
    Error::new(ErrorKind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_only_in_its_place_with_its_key() {
        let (key, other) = (DataKey::generate().unwrap(), DataKey::generate().unwrap());
        let sealed = seal(&key, "user-7|e|0", "\"Ada\"").unwrap();
        assert_eq!(seal(&key, "user-7|e|0", "\"Ada\"").unwrap(), sealed);
        assert_ne!(seal(&key, "user-7|e|0", "\"Bob\"").unwrap()[..16], sealed[..16]);
        assert_eq!(open(&key, "user-7|e|0", &sealed).unwrap(), "\"Ada\"");
        for (key, place, data) in [
            (&other, "user-7|e|0", sealed.clone()),
            (&key, "user-7|e|1", sealed.clone()),
            (&key, "user-7|e|0", sealed.replacen(&sealed[20..21], "_", 1)),
            (&key, "user-7|e|0", sealed[..8].to_owned()),
            (&key, "user-7|e|0", String::new()),
        ] {
            let error = open(key, place, &data).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        let mut bytes = BASE64.decode(&sealed).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(open_bytes(&key, "user-7|e|0", &bytes).is_err(), "byte {at}");
            bytes[at] ^= 1;
        }
    }
}
