//! Projections inside the append's transaction: the read model is never behind.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use potter_core::{Database, Tx, Waiter};
use uuid::Uuid;

use super::Projection;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::query::EventQuery;
use crate::store::{
    AppendCondition, EventFilter, EventStore, ExpectedVersion, Matching, Page, ReadAllOptions,
    ReadOptions, StreamAppend,
};
use crate::stream_id::StreamId;

/// An event store whose appends also update read models, in the same transaction: an append and
/// its effect on them are there together or not at all.
///
/// Each append has a transaction of its own (there is no group commit), and waits for the
/// handlers. A handler that fails makes the append fail with `Handler`. Use it for the few read
/// models that must not be behind, a [`Worker`](super::Worker) for the rest; one projection is
/// driven by one of the two.
#[derive(Clone)]
pub struct InlineEventStore {
    store: Arc<dyn EventStore>,
    projections: Vec<Arc<dyn Projection>>,
}

impl InlineEventStore {
    /// Around `store`.
    ///
    /// # Errors
    /// `Unsupported` when the store has no transactions for projections.
    pub fn new(store: Arc<dyn EventStore>) -> Result<Self> {
        if store.database().is_none() {
            let message = "this event store has no transactions that a projection could be in";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(Self { store, projections: Vec::new() })
    }

    /// Adds a projection. Its segments do not matter, and it has no checkpoint.
    #[must_use]
    pub fn projection(mut self, projection: impl Projection) -> Self {
        self.projections.push(Arc::new(projection));
        self
    }

    async fn project(&self, tx: &mut Tx, stream: &StreamId, appended: Appended) -> Result<()> {
        if appended.duplicate || self.projections.is_empty() {
            return Ok(());
        }
        let mut version = appended.first_version;
        while version <= appended.last_version {
            let left = appended.last_version - version + 1;
            let options = ReadOptions::forwards().from_version(version).limit(left);
            let page = self.store.read_stream_in(tx, stream, options).await?;
            let Some(last) = page.last() else { break };
            version = last.version + 1;
            for projection in &self.projections {
                apply(&**projection, tx, &page).await?;
            }
        }
        Ok(())
    }
}

async fn apply(projection: &dyn Projection, tx: &mut Tx, page: &[RecordedEvent]) -> Result<()> {
    let filter = projection.filter();
    let wanted: Vec<_> = page.iter().filter(|event| filter.matches(event)).cloned().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    projection.handle_batch(tx, &wanted).await.map_err(|source| {
        let message = format!("the inline projection {} failed: {source}", projection.name());
        Error::with_source(ErrorKind::Handler, message, source)
    })
}

impl std::fmt::Debug for InlineEventStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.projections.iter().map(|one| one.name()).collect();
        f.debug_struct("InlineEventStore").field("projections", &names).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for InlineEventStore {
    fn database(&self) -> Option<&Database> {
        self.store.database()
    }

    async fn migrate(&self) -> Result<()> {
        self.store.migrate().await
    }

    async fn append(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        let none = || Error::new(ErrorKind::Unsupported, "the event store has no transactions");
        let mut tx = self.database().ok_or_else(none)?.begin().await?;
        let appended = self.append_in(&mut tx, stream, expected, events).await?;
        tx.commit().await?;
        Ok(appended)
    }

    async fn append_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        let appended = self.store.append_in(tx, stream, expected, events).await?;
        self.project(tx, stream, appended).await?;
        Ok(appended)
    }

    async fn append_if(
        &self,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        let none = || Error::new(ErrorKind::Unsupported, "the event store has no transactions");
        let mut tx = self.database().ok_or_else(none)?.begin().await?;
        let appended = self.append_if_in(&mut tx, appends, condition).await?;
        tx.commit().await?;
        Ok(appended)
    }

    async fn append_if_in(
        &self,
        tx: &mut Tx,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        let streams: Vec<_> = appends.iter().map(|append| append.stream.clone()).collect();
        let appended = self.store.append_if_in(tx, appends, condition).await?;
        for (stream, appended) in streams.iter().zip(&appended) {
            self.project(tx, stream, *appended).await?;
        }
        Ok(appended)
    }

    async fn read_matching(&self, query: &EventQuery, after: u64) -> Result<Matching> {
        self.store.read_matching(query, after).await
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        options: ReadOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        self.store.read_stream(stream, options)
    }

    async fn read_stream_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        options: ReadOptions,
    ) -> Result<Vec<RecordedEvent>> {
        self.store.read_stream_in(tx, stream, options).await
    }

    fn read_all(
        &self,
        after: u64,
        options: ReadAllOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        self.store.read_all(after, options)
    }

    async fn read_page(&self, after: u64, filter: &EventFilter, limit: u64) -> Result<Page> {
        self.store.read_page(after, filter, limit).await
    }

    fn changes(&self) -> Option<Waiter> {
        self.store.changes()
    }

    async fn event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>> {
        self.store.event(event_id).await
    }

    async fn count(&self, after: u64, until: u64, filter: &EventFilter) -> Result<u64> {
        self.store.count(after, until, filter).await
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<u64> {
        self.store.position_at(time).await
    }

    async fn stream_version(&self, stream: &StreamId) -> Result<u64> {
        self.store.stream_version(stream).await
    }

    async fn head_position(&self) -> Result<u64> {
        self.store.head_position().await
    }

    async fn safe_position(&self) -> Result<u64> {
        self.store.safe_position().await
    }
}
