//! A store that dies at a chosen call, and with it the process that uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use potter_core::{Database, Tx};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{
    Advance, Advanced, ClaimRequest, Claimed, Inserted, LogRecord, NewSaga, SagaFilter, SagaRecord,
    SagaStore,
};

/// Where a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// Before the store does anything.
    Before,
    /// After it committed, before the caller learns of it.
    After,
}

/// Passes calls on until the chosen one; from then on the process is dead: every call fails.
pub struct CrashingStore {
    inner: Arc<dyn SagaStore>,
    at: u32,
    point: CrashPoint,
    calls: AtomicU32,
    dead: AtomicBool,
    died: Notify,
}

impl CrashingStore {
    /// Dies at call number `at`, counted from 1 over the calls that write.
    pub fn new(inner: Arc<dyn SagaStore>, at: u32, point: CrashPoint) -> Self {
        Self {
            inner,
            at,
            point,
            calls: AtomicU32::new(0),
            dead: AtomicBool::new(false),
            died: Notify::new(),
        }
    }

    /// Has it come to that call?
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Returns when it has.
    pub async fn died(&self) {
        loop {
            let died = self.died.notified();
            if self.is_dead() {
                return;
            }
            died.await;
        }
    }

    fn count(&self) -> Result<bool> {
        if self.is_dead() {
            return Err(dead());
        }
        let last = self.calls.fetch_add(1, Ordering::SeqCst) + 1 == self.at;
        if last && self.point == CrashPoint::Before {
            self.die();
            return Err(dead());
        }
        Ok(last)
    }

    fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_waiters();
    }

    fn answer<T>(&self, last: bool, answer: Result<T>) -> Result<T> {
        if last {
            self.die();
        }
        if self.is_dead() { Err(dead()) } else { answer }
    }

    fn living(&self) -> Result<()> {
        if self.is_dead() { Err(dead()) } else { Ok(()) }
    }
}

fn dead() -> Error {
    Error::new(ErrorKind::Unknown, "the process is dead (crash test)")
}

#[async_trait]
impl SagaStore for CrashingStore {
    async fn migrate(&self) -> Result<()> {
        self.inner.migrate().await
    }

    fn database(&self) -> &Database {
        self.inner.database()
    }

    async fn insert(&self, tx: Option<&mut Tx>, saga: &NewSaga) -> Result<Inserted> {
        let last = self.count()?;
        let answer = self.inner.insert(tx, saga).await;
        self.answer(last, answer)
    }

    async fn due(&self, request: &ClaimRequest) -> Result<u32> {
        self.living()?;
        self.inner.due(request).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>> {
        // Looking in vain is not an event: only a claim that finds something is counted.
        self.living()?;
        let claimed = self.inner.claim(request).await?;
        if claimed.is_empty() {
            return Ok(claimed);
        }
        let last = self.count()?;
        self.answer(last, Ok(claimed))
    }

    async fn advance(&self, tx: Option<Tx>, advance: &Advance) -> Result<Advanced> {
        // A crash before it drops the step's transaction: the database rolls it back.
        let last = self.count()?;
        let answer = self.inner.advance(tx, advance).await;
        self.answer(last, answer)
    }

    async fn heartbeat(&self, node: Uuid, ttl: Duration) -> Result<()> {
        self.living()?;
        self.inner.heartbeat(node, ttl).await
    }

    async fn retire(&self, node: Uuid, clean: bool) -> Result<()> {
        self.living()?;
        self.inner.retire(node, clean).await
    }

    async fn park_unknown(
        &self,
        registered: &[(&'static str, u32)],
        grace: Duration,
    ) -> Result<u64> {
        self.living()?;
        self.inner.park_unknown(registered, grace).await
    }

    async fn request_cancel(&self, id: Uuid) -> Result<()> {
        let last = self.count()?;
        let answer = self.inner.request_cancel(id).await;
        self.answer(last, answer)
    }

    async fn resume(&self, id: Uuid) -> Result<()> {
        let last = self.count()?;
        let answer = self.inner.resume(id).await;
        self.answer(last, answer)
    }

    async fn get(&self, id: Uuid) -> Result<Option<SagaRecord>> {
        self.living()?;
        self.inner.get(id).await
    }

    async fn log(&self, id: Uuid) -> Result<Vec<LogRecord>> {
        self.living()?;
        self.inner.log(id).await
    }

    async fn list(&self, filter: &SagaFilter) -> Result<(Vec<SagaRecord>, u64)> {
        self.living()?;
        self.inner.list(filter).await
    }

    async fn purge(&self, before: DateTime<Utc>, limit: u32) -> Result<u64> {
        self.living()?;
        self.inner.purge(before, limit).await
    }
}
