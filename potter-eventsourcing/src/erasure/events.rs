//! An event store whose personal data is encrypted.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use potter_core::{Database, Tx, Waiter};
use uuid::Uuid;

use super::{Vault, open, seal};
use crate::error::Result;
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::query::EventQuery;
use crate::store::{
    AppendCondition, EventFilter, EventStore, ExpectedVersion, Matching, Page, ReadAllOptions,
    ReadOptions, StreamAppend,
};
use crate::stream_id::StreamId;

/// How many events are opened together, with one question to the key store.
const TOGETHER: usize = 500;

/// An event store around another one: see [`Vault::events`].
#[derive(Clone)]
pub struct ErasableEventStore {
    store: Arc<dyn EventStore>,
    vault: Vault,
}

impl ErasableEventStore {
    pub(super) fn new(store: Arc<dyn EventStore>, vault: Vault) -> Self {
        Self { store, vault }
    }

    async fn sealed(
        &self,
        tx: Option<&mut Tx>,
        stream: &StreamId,
        mut events: Vec<NewEvent>,
    ) -> Result<Vec<NewEvent>> {
        let keys = self.vault.keys_to_seal(tx, events.iter().map(|new| &new.payload)).await?;
        for event in &mut events {
            event.payload = seal(&event.payload, &keys, &place(stream, event.event_id))?;
        }
        Ok(events)
    }

    async fn all_sealed(
        &self,
        mut tx: Option<&mut Tx>,
        appends: Vec<StreamAppend>,
    ) -> Result<Vec<StreamAppend>> {
        let mut sealed = Vec::with_capacity(appends.len());
        for StreamAppend { stream, expected, events } in appends {
            let events = self.sealed(tx.as_deref_mut(), &stream, events).await?;
            sealed.push(StreamAppend { stream, expected, events });
        }
        Ok(sealed)
    }

    async fn opened(&self, events: Vec<RecordedEvent>) -> Result<Vec<RecordedEvent>> {
        self.opened_with(None, events).await
    }

    async fn opened_with(
        &self,
        tx: Option<&mut Tx>,
        mut events: Vec<RecordedEvent>,
    ) -> Result<Vec<RecordedEvent>> {
        let keys = self.vault.keys_to_open(tx, events.iter().map(|event| &event.payload)).await?;
        for event in &mut events {
            let place = place(&event.stream_id, event.event_id);
            event.payload = open(&event.payload, &keys, &place)?;
        }
        Ok(events)
    }

    fn opened_stream<'a>(
        &'a self,
        events: BoxStream<'a, Result<RecordedEvent>>,
    ) -> BoxStream<'a, Result<RecordedEvent>> {
        events
            .try_ready_chunks(TOGETHER)
            .map_err(|error| error.1)
            .and_then(move |chunk| self.opened(chunk))
            .map_ok(|events| stream::iter(events.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }
}

fn place(stream: &StreamId, event_id: Uuid) -> String {
    format!("{stream}|{event_id}")
}

impl std::fmt::Debug for ErasableEventStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ErasableEventStore").field("vault", &self.vault).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for ErasableEventStore {
    fn database(&self) -> Option<&Database> {
        self.store.database()
    }

    fn checkpoint_storage(&self) -> Option<crate::projection::CheckpointStorage> {
        self.store.checkpoint_storage()
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
        let events = self.sealed(None, stream, events).await?;
        self.store.append(stream, expected, events).await
    }

    async fn append_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        let events = self.sealed(Some(tx), stream, events).await?;
        self.store.append_in(tx, stream, expected, events).await
    }

    async fn append_if(
        &self,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        let appends = self.all_sealed(None, appends).await?;
        self.store.append_if(appends, condition).await
    }

    async fn append_if_in(
        &self,
        tx: &mut Tx,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        let appends = self.all_sealed(Some(tx), appends).await?;
        self.store.append_if_in(tx, appends, condition).await
    }

    async fn read_matching(&self, query: &EventQuery, after: u64) -> Result<Matching> {
        let mut found = self.store.read_matching(query, after).await?;
        found.events = self.opened(found.events).await?;
        Ok(found)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        options: ReadOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        self.opened_stream(self.store.read_stream(stream, options))
    }

    async fn read_stream_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        options: ReadOptions,
    ) -> Result<Vec<RecordedEvent>> {
        let events = self.store.read_stream_in(tx, stream, options).await?;
        self.opened_with(Some(tx), events).await
    }

    fn read_all(
        &self,
        after: u64,
        options: ReadAllOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        self.opened_stream(self.store.read_all(after, options))
    }

    async fn read_page(&self, after: u64, filter: &EventFilter, limit: u64) -> Result<Page> {
        let mut page = self.store.read_page(after, filter, limit).await?;
        page.events = self.opened(page.events).await?;
        Ok(page)
    }

    fn changes(&self) -> Option<Waiter> {
        self.store.changes()
    }

    async fn event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>> {
        let found = self.store.event(event_id).await?;
        Ok(self.opened(found.into_iter().collect()).await?.pop())
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
