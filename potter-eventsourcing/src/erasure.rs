//! Erasure by key (crypto-shredding): what was appended stays, and can't be read any more.
//!
//! # Invariants
//! 1. A [`Personal`](crate::Personal) value is written only encrypted, with AES-256-GCM and a key
//!    of its subject's own: in events, snapshots, and whatever [`Vault::seal`] made. So deleting
//!    that key makes every copy unreadable at once: tables, replicas, backups, exports.
//! 2. The envelope is bound to its place: stream, event id and which field of the payload it is are
//!    authenticated with it. One that was moved, changed, or is opened with another key is an
//!    error, never another text.
//! 3. Erased is only what was forgotten: the key store keeps the names of those. A subject that it
//!    does not know at all is an error, as the key store may be the wrong one.
//! 4. The same event sealed again is the same text, so that a repeated append is still recognised.
//!    The nonce is an HMAC of place and value with a key derived from the subject's: equal only
//!    where both are equal.
//! 5. What is written in a transaction of the caller's is sealed with a key that is committed with it
//!    or was before: a key that is made inside of it (an SQLite file has one writer) goes with it.
//! 6. Keys are never logged, never in an error, and not kept in memory between two calls: what was
//!    forgotten can't be read by another process a moment later.

mod envelope;
mod events;
mod fields;
mod keys;
mod snapshots;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use potter_core::{Json, Tx};

pub use events::ErasableEventStore;
pub use keys::{DataKey, KeyStore, MemoryKeys, SubjectKey};
pub use table::{KEY_MIGRATIONS, KeyTable};

use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::SnapshotStore;
use crate::store::EventStore;
use fields::Marked;

type Keys = BTreeMap<String, SubjectKey>;

/// Encrypts and opens personal data, and forgets subjects. Cheap to clone.
///
/// ```
/// use std::sync::Arc;
///
/// use futures::TryStreamExt;
/// use potter_core::Database;
/// use potter_eventsourcing::{
///     ExpectedVersion, MemoryKeys, NewEvent, Personal, ReadOptions, StreamId, Vault, event_store,
/// };
///
/// # use potter_eventsourcing::EventStore;
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In production a `KeyTable`, best in a database of its own.
/// let vault = Vault::new(Arc::new(MemoryKeys::new()));
/// let store = vault.events(event_store(&Database::memory())?);
///
/// let user = StreamId::new("user", 7)?;
/// let name = Personal::new("user:7", "Ada".to_owned());
/// let event = NewEvent::new("user.registered", &name)?;
/// store.append(&user, ExpectedVersion::NoStream, vec![event]).await?;
///
/// vault.forget("user:7").await?;
/// let events: Vec<_> =
///     store.read_stream(&user, ReadOptions::forwards()).try_collect().await?;
/// let name: Personal<String> = events[0].payload.get()?;
/// assert!(name.is_erased());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Vault {
    keys: Arc<dyn KeyStore>,
    tenant: Option<Arc<str>>,
}

impl Vault {
    /// With the keys of `keys`.
    pub fn new(keys: Arc<dyn KeyStore>) -> Self {
        Self { keys, tenant: None }
    }

    /// The subjects of one tenant: the same name in another one's vault is another subject. Put it
    /// around the [`TenantEventStore`](crate::TenantEventStore), not inside.
    #[must_use]
    pub fn of_tenant(&self, tenant: &str) -> Self {
        Self { keys: Arc::clone(&self.keys), tenant: Some(tenant.into()) }
    }

    fn name(&self, subject: &str) -> String {
        match &self.tenant {
            Some(tenant) => format!("{tenant}|{subject}"),
            None => subject.to_owned(),
        }
    }

    /// What the key store has under the names of these subjects.
    async fn keys(
        &self,
        tx: Option<&mut Tx>,
        subjects: &BTreeSet<String>,
        new: bool,
    ) -> Result<Keys> {
        if subjects.is_empty() {
            return Ok(Keys::new());
        }
        let names = subjects.iter().map(|subject| self.name(subject)).collect();
        let found = match (tx, new) {
            (None, true) => self.keys.ensure(&names).await?,
            (None, false) => self.keys.find(&names).await?,
            (Some(tx), true) => self.keys.ensure_in(tx, &names).await?,
            (Some(tx), false) => self.keys.find_in(tx, &names).await?,
        };
        let key =
            |subject: &String| Some((subject.clone(), found.get(&self.name(subject))?.clone()));
        Ok(subjects.iter().filter_map(key).collect())
    }

    /// `store`, with personal data encrypted on the way in and opened on the way out.
    pub fn events(&self, store: Arc<dyn EventStore>) -> Arc<ErasableEventStore> {
        Arc::new(ErasableEventStore::new(store, self.clone()))
    }

    /// The same for snapshots.
    pub fn snapshots(&self, store: Arc<dyn SnapshotStore>) -> Arc<dyn SnapshotStore> {
        Arc::new(snapshots::ErasableSnapshots::new(store, self.clone()))
    }

    /// Deletes the key of a subject: all personal data about it is erased, and new data about it
    /// is refused. Answers whether there was a key. Cannot be undone.
    ///
    /// # Errors
    /// `Unavailable` when the key store is; then it may not be forgotten: ask again.
    pub async fn forget(&self, subject: &str) -> Result<bool> {
        self.keys.forget(&self.name(subject)).await
    }

    /// Encrypts the personal data in a JSON text that is kept elsewhere: a row of a read model, a
    /// message. `context` names the place that it is for, the same for [`open`](Self::open).
    ///
    /// # Errors
    /// `Erased` when a subject in it was forgotten; `Unavailable` when the key store is.
    pub async fn seal(&self, context: &str, json: &Json) -> Result<Json> {
        let keys = self.keys_to_seal(None, [json]).await?;
        seal(json, &keys, context)
    }

    /// The same for a row that is written in `tx`, such as that of a projection: see
    /// [`KeyStore::ensure_in`].
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub async fn seal_in(&self, tx: &mut Tx, context: &str, json: &Json) -> Result<Json> {
        let keys = self.keys_to_seal(Some(tx), [json]).await?;
        seal(json, &keys, context)
    }

    /// Opens what [`seal`](Self::seal) made. What was forgotten since is erased.
    ///
    /// # Errors
    /// `Corrupt` when it is of another place, was changed, or was encrypted with another key;
    /// `Unavailable` when the key store is.
    pub async fn open(&self, context: &str, json: &Json) -> Result<Json> {
        let keys = self.keys_to_open(None, [json]).await?;
        open(json, &keys, context)
    }

    /// The same for what was read in `tx`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_in(&self, tx: &mut Tx, context: &str, json: &Json) -> Result<Json> {
        let keys = self.keys_to_open(Some(tx), [json]).await?;
        open(json, &keys, context)
    }

    async fn keys_to_seal(
        &self,
        tx: Option<&mut Tx>,
        texts: impl IntoIterator<Item = &Json>,
    ) -> Result<Keys> {
        let mut subjects = BTreeSet::new();
        for text in texts {
            for marked in fields::find(text.as_str(), fields::CLEAR) {
                subjects.insert(marked.clear()?.subject);
            }
        }
        self.keys(tx, &subjects, true).await
    }

    async fn keys_to_open(
        &self,
        tx: Option<&mut Tx>,
        texts: impl IntoIterator<Item = &Json>,
    ) -> Result<Keys> {
        let mut subjects = BTreeSet::new();
        for text in texts {
            for marked in fields::find(text.as_str(), fields::SEALED) {
                subjects.insert(marked.sealed()?.subject);
            }
        }
        self.keys(tx, &subjects, false).await
    }
}

/// The text with its personal data encrypted.
fn seal(json: &Json, keys: &Keys, context: &str) -> Result<Json> {
    replace(json, fields::CLEAR, |marked, field| {
        let clear = marked.clear()?;
        match keys.get(&clear.subject) {
            Some(SubjectKey::Known(key)) => {
                let data = envelope::seal(key, &place(context, field), clear.value.get())?;
                fields::sealed_text(&clear.subject, &data)
            }
            Some(SubjectKey::Forgotten) => {
                let subject = &clear.subject;
                let message = format!(
                    "the subject {subject:?} was forgotten: nothing about it can be kept any more"
                );
                Err(Error::new(ErrorKind::Erased, message))
            }
            None => Err(unknown(&clear.subject)),
        }
    })
}

/// The text with its personal data opened, or marked as erased.
fn open(json: &Json, keys: &Keys, context: &str) -> Result<Json> {
    replace(json, fields::SEALED, |marked, field| {
        let sealed = marked.sealed()?;
        match keys.get(&sealed.subject) {
            Some(SubjectKey::Known(key)) => {
                let value = envelope::open(key, &place(context, field), &sealed.data)?;
                fields::clear_text(&sealed.subject, &value)
            }
            Some(SubjectKey::Forgotten) => fields::erased_text(&sealed.subject),
            None => Err(unknown(&sealed.subject)),
        }
    })
}

/// Where an envelope is: what is authenticated with it.
fn place(context: &str, field: usize) -> String {
    format!("{context}|{field}")
}

fn replace(
    json: &Json,
    marker: &str,
    by: impl Fn(&Marked<'_>, usize) -> Result<String>,
) -> Result<Json> {
    let text = json.as_str();
    let marked = fields::find(text, marker);
    if marked.is_empty() {
        return Ok(json.clone());
    }
    let (mut out, mut done) = (String::with_capacity(2 * text.len()), 0);
    for (field, one) in marked.iter().enumerate() {
        out.push_str(&text[done..one.span.start]);
        out.push_str(&by(one, field)?);
        done = one.span.end;
    }
    out.push_str(&text[done..]);
    Ok(Json::parse(out)?)
}

fn unknown(subject: &str) -> Error {
    let message = format!(
        "there is no key for the subject {subject:?}, and it was not forgotten: is this the right \
         key store?"
    );
    Error::new(ErrorKind::Config, message)
}
