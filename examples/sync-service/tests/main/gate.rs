//! A store whose commits can be held back, refused, or done without an answer.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use example_sync_service::protocol::Secret;
use example_sync_service::store::sql::SqlStore;
use example_sync_service::store::{
    Commit, Conflict, ConflictFilter, Device, Entity, EntityKey, Identity, Loaded, LogEntry, OpKey,
    Replica, Store, User,
};
use potter_core::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;

/// What becomes of a commit.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// It is done, and known to be.
    Done,
    /// A defect.
    Panic,
    /// The program ends before it: nothing is written.
    Before,
    /// The program ends after it: it is written, and nobody knows.
    After,
}

#[derive(Debug)]
pub(crate) struct Gate {
    inner: SqlStore,
    /// A commit needs one of these.
    pub(crate) permits: Semaphore,
    /// Of the next commits.
    pub(crate) fates: Mutex<VecDeque<Fate>>,
    /// The store refuses whatever has an answer of this id.
    pub(crate) poison: Mutex<Option<String>>,
    /// Commits that were tried, each by its number of replicas.
    pub(crate) tried: Mutex<Vec<usize>>,
    /// Requests that found their device; they wait in their queue then.
    pub(crate) asked: AtomicUsize,
}

impl Gate {
    pub(crate) fn new(inner: SqlStore) -> Self {
        Self {
            inner,
            permits: Semaphore::new(Semaphore::MAX_PERMITS),
            fates: Mutex::default(),
            poison: Mutex::default(),
            tried: Mutex::default(),
            asked: AtomicUsize::new(0),
        }
    }

    /// From now on commits wait, until [`open`](Self::open).
    pub(crate) fn shut(&self) {
        self.permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn open(&self) {
        self.permits.add_permits(Semaphore::MAX_PERMITS);
    }
}

#[async_trait]
impl Store for Gate {
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
    async fn secret(&self) -> Result<Secret> {
        self.inner.secret().await
    }
    async fn device(&self, device_id: &str) -> Result<Option<Device>> {
        let device = self.inner.device(device_id).await;
        self.asked.fetch_add(1, Ordering::SeqCst);
        device
    }
    async fn user(&self, user_id: &str) -> Result<Option<User>> {
        self.inner.user(user_id).await
    }
    async fn devices(
        &self,
        user_id: &str,
        device_ids: &[&str],
    ) -> Result<Option<(User, Vec<Replica>)>> {
        self.inner.devices(user_id, device_ids).await
    }
    async fn replicas_of(&self, user_id: &str) -> Result<Vec<Replica>> {
        self.inner.replicas_of(user_id).await
    }
    async fn add_replica(&self, user_id: &str, replica: &Replica) -> Result<bool> {
        self.inner.add_replica(user_id, replica).await
    }
    async fn load(
        &self,
        user_id: &str,
        scope: &str,
        ids: &[&str],
        ops: &[OpKey],
        entities: &[EntityKey],
    ) -> Result<Loaded> {
        self.inner.load(user_id, scope, ids, ops, entities).await
    }
    async fn commit(&self, commit: &Commit) -> Result<bool> {
        self.tried.lock().unwrap().push(commit.replicas.len());
        self.permits.acquire().await.unwrap().forget();
        self.permits.add_permits(1);
        let poison = self.poison.lock().unwrap().clone();
        if commit.identities.iter().any(|one| poison.as_ref() == Some(&one.id)) {
            return Err(Error::new(ErrorKind::Internal, "the database refused the statement"));
        }
        let fate = self.fates.lock().unwrap().pop_front();
        match fate {
            None | Some(Fate::Done) => self.inner.commit(commit).await,
            Some(Fate::Panic) => panic!("a defect of the store, made by the test"),
            Some(Fate::Before) => Err(Error::new(ErrorKind::Unavailable, "the connection broke")),
            Some(Fate::After) => {
                assert!(self.inner.commit(commit).await?);
                Err(Error::new(ErrorKind::Unknown, "the connection broke"))
            }
        }
    }
    async fn remember(&self, identity: &Identity) -> Result<bool> {
        self.inner.remember(identity).await
    }
    async fn recall(&self, scope: &str, id: &str) -> Result<Option<Identity>> {
        self.inner.recall(scope, id).await
    }
    async fn log(&self, user_id: &str, after: u64, limit: u64) -> Result<Vec<LogEntry>> {
        self.inner.log(user_id, after, limit).await
    }
    async fn mark(&self, user_id: &str, seq: u64) -> Result<Option<u64>> {
        self.inner.mark(user_id, seq).await
    }
    async fn entities(
        &self,
        user_id: &str,
        after: Option<&EntityKey>,
        limit: u64,
    ) -> Result<Vec<Entity>> {
        self.inner.entities(user_id, after, limit).await
    }
    async fn find_entity(&self, key: &EntityKey) -> Result<Vec<(String, Entity)>> {
        self.inner.find_entity(key).await
    }
    async fn acknowledge(&self, replica: &Replica, seq: u64, now: DateTime<Utc>) -> Result<()> {
        self.inner.acknowledge(replica, seq, now).await
    }
    async fn conflicts(&self, filter: &ConflictFilter) -> Result<(Vec<Conflict>, u64)> {
        self.inner.conflicts(filter).await
    }
    async fn conflict(&self, id: uuid::Uuid) -> Result<Option<Conflict>> {
        self.inner.conflict(id).await
    }
    async fn retire(&self, silent_since: DateTime<Utc>) -> Result<u64> {
        self.inner.retire(silent_since).await
    }
    async fn users(&self, after: Option<&str>, limit: u64) -> Result<Vec<User>> {
        self.inner.users(after, limit).await
    }
    async fn least_acked(&self, user_id: &str) -> Result<Option<u64>> {
        self.inner.least_acked(user_id).await
    }
    async fn trim(&self, user_id: &str, up_to: u64) -> Result<()> {
        self.inner.trim(user_id, up_to).await
    }
    async fn forget(&self, older_than: DateTime<Utc>) -> Result<u64> {
        self.inner.forget(older_than).await
    }
}
