//! Where the keys of subjects are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use potter_core::Tx;
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::{Error, ErrorKind, Result};

/// A key of 256 bits. It does not show itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey([u8; 32]);

impl DataKey {
    /// A new one from the system's source of randomness.
    ///
    /// # Errors
    /// `Internal` when that has none.
    pub fn generate() -> Result<Self> {
        let mut bytes = [0; 32];
        fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// From its bytes, for key stores of your own, and for a master key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for key stores of your own.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

/// Random bytes.
pub(super) fn fill(bytes: &mut [u8]) -> Result<()> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| Error::new(ErrorKind::Internal, "the system gave no random bytes"))
}

/// What a key store knows of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectKey {
    /// Its key.
    Known(DataKey),
    /// It was forgotten.
    Forgotten,
}

/// Keeps a key for each subject until it is forgotten.
///
/// # What every key store promises
/// A subject has one key for ever, whoever asks first; once [`forget`](Self::forget) has answered,
/// no copy of it can be had any more, and the subject stays forgotten.
#[async_trait]
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// What is known of these subjects; those that it never heard of are left out.
    ///
    /// # Errors
    /// `Unavailable` when it can't be reached.
    async fn find(&self, subjects: &BTreeSet<String>) -> Result<BTreeMap<String, SubjectKey>>;

    /// The same for all of them: the missing ones get a new key.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    async fn ensure(&self, subjects: &BTreeSet<String>) -> Result<BTreeMap<String, SubjectKey>>;

    /// [`find`](Self::find) for what is read inside of a transaction of the caller's: with the keys
    /// that [`ensure_in`](Self::ensure_in) made in it. The default is `find`.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    async fn find_in(
        &self,
        tx: &mut Tx,
        subjects: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, SubjectKey>> {
        let _ = tx;
        self.find(subjects).await
    }

    /// [`ensure`](Self::ensure) for what is written inside of a transaction of the caller's. The
    /// default is `ensure`, whose keys are there whatever becomes of the transaction. A store that
    /// would have to wait for `tx` to end (one file, one writer) makes them through `tx`.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    async fn ensure_in(
        &self,
        tx: &mut Tx,
        subjects: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, SubjectKey>> {
        let _ = tx;
        self.ensure(subjects).await
    }

    /// Deletes a subject's key, and keeps that it was forgotten. Answers whether there was a key.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    async fn forget(&self, subject: &str) -> Result<bool>;
}

/// Keys in memory, for tests: gone with the process, and all personal data with them.
#[derive(Debug, Default)]
pub struct MemoryKeys {
    keys: Mutex<BTreeMap<String, SubjectKey>>,
}

impl MemoryKeys {
    /// Without a key.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, SubjectKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyStore for MemoryKeys {
    async fn find(&self, subjects: &BTreeSet<String>) -> Result<BTreeMap<String, SubjectKey>> {
        let keys = self.lock();
        let found = |subject: &String| Some((subject.clone(), keys.get(subject)?.clone()));
        Ok(subjects.iter().filter_map(found).collect())
    }

    async fn ensure(&self, subjects: &BTreeSet<String>) -> Result<BTreeMap<String, SubjectKey>> {
        {
            let mut keys = self.lock();
            for subject in subjects {
                if !keys.contains_key(subject) {
                    keys.insert(subject.clone(), SubjectKey::Known(DataKey::generate()?));
                }
            }
        }
        self.find(subjects).await
    }

    async fn forget(&self, subject: &str) -> Result<bool> {
        let old = self.lock().insert(subject.to_owned(), SubjectKey::Forgotten);
        Ok(matches!(old, Some(SubjectKey::Known(_))))
    }
}
