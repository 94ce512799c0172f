//! The protocol: what it promises, and how a program that dies at any moment keeps it.
//!
//! # Terms
//! - **User.** All devices of a user share its entities and nothing of other users.
//! - **Log sequence.** Each change of an entity has a number, 1, 2, 3 … per user. The numbers of a
//!   batch are given out in the transaction that commits it, by compare-and-swap on the user's
//!   version: two commits of one user can't have the same predecessor. So numbers appear in
//!   order, without gaps, and a reader that has seen number n has seen all below. Batches that come
//!   together are one commit.
//! - **Mark.** A random number that all changes of one commit carry. Two histories that part (a server
//!   restored from an older backup goes on) have different marks under the same number, so one
//!   comparison tells whether a position belongs to this history; equal marks at n mean equal
//!   histories up to n.
//! - **Cursor.** The epoch, a number and its mark, signed. It stands for "I have stored all up to
//!   here". Sending a page moves nothing; a cursor that *comes back* does. One that is too old
//!   (the log behind it is trimmed) is a 410: download without a cursor.
//! - **Ack.** The highest number of a cursor that came back, per replica. A device that presents one
//!   also says that it has no unsent operation older than it (upload first, then download). What all
//!   live replicas have acknowledged is trimmed from the log, and garbage that all have seen is
//!   reclaimed.
//! - **Incarnation.** A life of a device. A copy of a client's file, or one restored from a backup,
//!   would give one number of its uploads to two different batches; the server sees that and refuses
//!   (`stale_incarnation`), and the copy registers as another incarnation. Both live on.
//! - **Epoch.** A history of a user. When a device shows that the server has lost something (a
//!   cursor ahead of the log or with a foreign mark, an upload's number with a gap before it), the
//!   epoch changes. Devices that still have the old one are told (`epoch_changed`): they upload again
//!   all operations that they keep, and download anew.
//!
//! # Where events are named
//! By the server, in the transaction that applies the operation, under `device#incarnation.epoch`.
//! A device's state is what it downloaded; its own operations that are not in it yet are laid over
//! it and go when the download has passed their number. (A device that keeps CRDTs of its own may
//! send deltas with `merge`; it names those events itself, under `device#incarnation`.)
//!
//! # Once
//! An operation with an `op_id` is counted once per user, whichever device sends it how often; a
//! batch with a `batch_id` (or an `Idempotency-Key`, or a `sequence`) is applied once, and asked
//! again gives the stored answer, byte for byte. Ids, states, log and answer are one commit. An
//! operation without any id is counted each time it comes, and the answer says so.
//!
//! # Interleavings
//! | what happens | what holds |
//! |---|---|
//! | the answer to an upload is lost | the batch is stored under its id: the retry gets the first answer |
//! | killed between commit and answer | the same |
//! | killed before the commit | nothing is there: the retry is the first |
//! | two uploads of one user at once | in one process they are one commit, one after the other; of two processes the later finds another version, loads again and sees the ids of the first |
//! | the same batch at once from several devices | the same: one applies it, all get its answer |
//! | a download during uploads | a page ends before a batch or inside it, never behind a number that is not committed |
//! | the answer to a download is lost | the cursor has not come back: the page is sent again; deltas may come twice |
//! | entities change while a snapshot is paged | the snapshot ends with the number at which it began: what changed since comes from the log |
//! | the log is trimmed during a snapshot | the cursor that it ends with is too old: 410, again from the start |
//! | the server is restored from a backup | see epoch; numbers and marks tell |
//! | a client's file is restored or copied | see incarnation; operations with ids that are known are duplicates |
//! | a device is silent for 90 days | it is retired: its cursor and its incarnation are refused, it registers again, downloads anew and uploads what it still has |
//! | clocks | the past is accepted; more than 60 s ahead is set back in the device's own order, and reported; the server's own clock never follows |

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The longest id of a device, user, entity, batch or operation, bytes.
pub const ID_BYTES_MAX: usize = 128;
/// The most operations in one upload.
pub const OPERATIONS_MAX: usize = 1_000;
/// The largest state of one entity, bytes.
pub const ENTITY_BYTES_MAX: usize = 1024 * 1024;
/// The most devices of a vector clock.
pub const CLOCK_DEVICES_MAX: usize = 1_000;
/// The largest page of a download.
pub const PAGE_MAX: u64 = 500;

/// The shortest secret, bytes.
const SECRET_BYTES_MIN: usize = 16;

/// Signs cursors and tokens. It is in the database: all processes on it have the same.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A position in a user's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The number of the last change; 0 is before the first.
    pub seq: u64,
    /// Its mark.
    pub mark: u64,
}

/// What a cursor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which history.
    #[serde(rename = "e")]
    pub epoch: String,
    /// Everything up to here was sent; for a snapshot under way: from here the log goes on.
    #[serde(rename = "p")]
    pub position: Position,
    /// A snapshot under way: the entities up to this one were sent.
    #[serde(rename = "a", skip_serializing_if = "Option::is_none")]
    pub after: Option<(String, String)>,
}

impl Secret {
    /// Of these bytes.
    ///
    /// # Errors
    /// `Corrupt` when they are too few to keep anything secret.
    pub fn new(bytes: &[u8]) -> potter_core::Result<Self> {
        let keyed = Hmac::<Sha256>::new_from_slice(bytes).ok();
        keyed.filter(|_| bytes.len() >= SECRET_BYTES_MIN).map(Self).ok_or_else(|| {
            let message = "the secret that signs tokens and cursors is damaged in the database";
            potter_core::Error::new(potter_core::ErrorKind::Corrupt, message)
        })
    }

    fn mac(&self, parts: &[&str]) -> Hmac<Sha256> {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        self.mac_of(&parts)
    }

    fn mac_of(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    /// A name for these parts that says nothing about them: 32 hexadecimal digits.
    pub fn name(&self, purpose: &str, parts: &[&str]) -> String {
        let mac = self.mac(&[&["name", purpose], parts].concat()).finalize().into_bytes();
        mac[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Shows that these bytes were written by a holder of the secret.
    pub fn tag(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 16] {
        let purpose: [&[u8]; 2] = [b"tag", purpose.as_bytes()];
        let mac = self.mac_of(&[&purpose, parts].concat()).finalize().into_bytes();
        let mut tag = [0; 16];
        tag.copy_from_slice(&mac[..16]);
        tag
    }

    /// Is it the tag of these bytes? In a time that says nothing.
    pub fn check_tag(&self, tag: &[u8], purpose: &str, parts: &[&[u8]]) -> bool {
        let purpose: [&[u8]; 2] = [b"tag", purpose.as_bytes()];
        tag.len() == 16
            && self.mac_of(&[&purpose, parts].concat()).verify_truncated_left(tag).is_ok()
    }

    /// The token of a device in one of its lives: the same whenever it is asked for.
    pub fn token(&self, device: &str, user: &str, incarnation: u64) -> String {
        let life = incarnation.to_string();
        let mac = self.mac(&["token", device, user, &life]).finalize().into_bytes();
        format!("{life}.{}", BASE64.encode(mac))
    }

    /// The incarnation that a token is of, if it is one of this device and user.
    pub fn check_token(&self, token: &str, device: &str, user: &str) -> Option<u64> {
        let (life, mac) = token.split_once('.')?;
        let incarnation: u64 = life.parse().ok()?;
        let mac = BASE64.decode(mac).ok()?;
        self.mac(&["token", device, user, life]).verify_slice(&mac).ok()?;
        Some(incarnation)
    }

    /// A cursor as text, for one user.
    pub fn seal(&self, user: &str, cursor: &Cursor) -> String {
        let body = serde_json::to_string(cursor).unwrap_or_default();
        let mac = self.mac(&["cursor", user, &body]).finalize().into_bytes();
        format!("{}.{}", BASE64.encode(&body), BASE64.encode(&mac[..16]))
    }

    /// What a cursor of this user says; `None` if it was not made here for this user.
    pub fn open(&self, user: &str, text: &str) -> Option<Cursor> {
        let (body, mac) = text.split_once('.')?;
        let body = String::from_utf8(BASE64.decode(body).ok()?).ok()?;
        let mac = BASE64.decode(mac).ok().filter(|mac| mac.len() == 16)?;
        self.mac(&["cursor", user, &body]).verify_truncated_left(&mac).ok()?;
        serde_json::from_str(&body).ok()
    }
}

/// SHA-256 of parts, each with its length.
pub fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// A new random number, for marks.
pub fn random() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    // The version and the variant are fixed bits: mix them away. 63 bits: databases are signed.
    (high ^ low.rotate_left(32)) >> 1
}

/// A new epoch.
pub fn new_epoch() -> String {
    format!("{:08x}", random() & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_cursors_are_of_their_owner_only() {
        let secret = Secret::new(&[7; 32]).unwrap();
        let token = secret.token("phone", "ada", 3);
        assert_eq!(secret.check_token(&token, "phone", "ada"), Some(3));
        assert_eq!(secret.check_token(&token, "phone", "bob"), None);
        assert_eq!(secret.check_token(&token, "tablet", "ada"), None);
        assert_eq!(secret.check_token(&token.replacen('3', "4", 1), "phone", "ada"), None);
        let position = Position { seq: 5, mark: 9 };
        let cursor = Cursor { epoch: "e".into(), position, after: None };
        let text = secret.seal("ada", &cursor);
        assert_eq!(secret.open("ada", &text), Some(cursor));
        assert_eq!(secret.open("bob", &text), None);
        assert!(Secret::new(&[]).is_err());
        for bad in ["", ".", "a.b", &text[1..], &text[..text.len() - 1], "é.é"] {
            assert_eq!(secret.open("ada", bad), None, "{bad}");
        }
    }
}
