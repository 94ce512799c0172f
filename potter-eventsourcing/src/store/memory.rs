//! Events in memory: for tests, examples and everything that may be forgotten.
//!
//! The memory database has one transaction at a time. So positions are in the order of commits,
//! and a read waits for the open transaction to end: inside one, read with `read_stream_in`.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use potter_core::{Database, Engine, MemoryTable, MemoryTx, Signal, Tx, Waiter};
use uuid::Uuid;

use super::append::{Append, ExpectedVersion};
use super::condition::{AppendCondition, Batch, StreamAppend};
use super::filter::EventFilter;
use super::options::StoreOptions;
use super::pages::{AllCursor, next_in_stream, pages};
use super::plan::{Insert, Known, KnownEvent, plan, plan_batch};
use super::read::{Direction, Page, ReadAllOptions, ReadOptions};
use super::{EventStore, engine_is};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::stream_id::StreamId;

/// The event store on [`Database::memory`].
#[derive(Clone, Debug)]
pub struct MemoryEventStore {
    database: Database,
    options: StoreOptions,
    changed: Signal,
}

struct Events;

impl MemoryTable for Events {
    type Key = u64;
    type Row = Arc<RecordedEvent>;
}

/// The versions of each stream, and where they are.
struct Streams;

impl MemoryTable for Streams {
    type Key = (StreamId, u64);
    type Row = u64;
}

struct EventIds;

impl MemoryTable for EventIds {
    type Key = Uuid;
    type Row = u64;
}

impl MemoryEventStore {
    /// The store in `database`, with the default options.
    ///
    /// # Errors
    /// `Config` when the database is not in memory.
    pub fn new(database: Database) -> Result<Self> {
        Self::with_options(database, StoreOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_options(database: Database, options: StoreOptions) -> Result<Self> {
        engine_is(Engine::Memory, database.engine())?;
        let changed = Signal::new(&database, "potter_events");
        Ok(Self { database, options, changed })
    }
}

#[async_trait]
impl EventStore for MemoryEventStore {
    fn database(&self) -> Option<&Database> {
        Some(&self.database)
    }

    async fn migrate(&self) -> Result<()> {
        Ok(())
    }

    async fn append(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        let mut tx = self.database.begin().await?;
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
        let append = Append::new(stream, expected, events, &self.options)?;
        let appended = append_one(memory(tx)?, &append)?;
        let changed = self.changed.clone();
        tx.on_commit(move || changed.send());
        Ok(appended)
    }

    async fn append_if(
        &self,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        let mut tx = self.database.begin().await?;
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
        let batch = Batch::new(appends, condition, &self.options)?;
        let appended = append_batch(memory(tx)?, &batch)?;
        let changed = self.changed.clone();
        tx.on_commit(move || changed.send());
        Ok(appended)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        options: ReadOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        let stream = stream.clone();
        pages(options, move |options| {
            let stream = stream.clone();
            async move {
                let mut tx = self.database.begin().await?;
                let page = stream_page(memory(&mut tx)?, &stream, options);
                let next = next_in_stream(options, &page);
                Ok((page, next))
            }
        })
    }

    async fn read_stream_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        options: ReadOptions,
    ) -> Result<Vec<RecordedEvent>> {
        Ok(stream_page(memory(tx)?, stream, options))
    }

    fn read_all(
        &self,
        after: u64,
        options: ReadAllOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        let first = AllCursor { after, until: 0, limit: options.limit };
        pages(first, move |mut cursor| async move {
            let mut tx = self.database.begin().await?;
            let memory = memory(&mut tx)?;
            if cursor.until == 0 {
                cursor.until = head(memory);
            }
            let page = all_page(memory, cursor);
            let next = cursor.next(&page);
            Ok((page, next))
        })
    }

    async fn read_page(&self, after: u64, filter: &EventFilter, limit: u64) -> Result<Page> {
        let mut tx = self.database.begin().await?;
        let memory = memory(&mut tx)?;
        let head = head(memory).max(after);
        let limit = usize::try_from(limit.max(1)).unwrap_or(usize::MAX);
        let range = memory.rows::<Events>().range(after.saturating_add(1)..);
        let wanted = range.map(|(_, event)| event).filter(|event| filter.matches(event));
        let events: Vec<_> = wanted.take(limit).map(|event| RecordedEvent::clone(event)).collect();
        let full = events.len() >= limit;
        let through = events.last().filter(|_| full).map_or(head, |last| last.global_position);
        Ok(Page { events, through, head })
    }

    fn changes(&self) -> Option<Waiter> {
        Some(self.changed.subscribe())
    }

    async fn event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>> {
        let mut tx = self.database.begin().await?;
        let memory = memory(&mut tx)?;
        let Some(position) = memory.get::<EventIds>(&event_id).copied() else { return Ok(None) };
        Ok(memory.get::<Events>(&position).map(|event| RecordedEvent::clone(event)))
    }

    async fn stream_version(&self, stream: &StreamId) -> Result<u64> {
        let mut tx = self.database.begin().await?;
        Ok(version(memory(&mut tx)?, stream))
    }

    async fn head_position(&self) -> Result<u64> {
        let mut tx = self.database.begin().await?;
        Ok(head(memory(&mut tx)?))
    }

    async fn safe_position(&self) -> Result<u64> {
        self.head_position().await
    }
}

fn memory(tx: &mut Tx) -> Result<&mut MemoryTx> {
    engine_is(Engine::Memory, tx.engine())?;
    tx.memory().ok_or_else(|| Error::new(ErrorKind::Config, "the transaction is not in memory"))
}

fn append_one(memory: &mut MemoryTx, append: &Append) -> Result<Appended> {
    let appends = std::slice::from_ref(append);
    let mut planned = plan(appends, known(memory, appends));
    store(memory, planned.inserts);
    let answer = planned.answers.pop();
    answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "an append was not answered")))
}

fn append_batch(memory: &mut MemoryTx, batch: &Batch) -> Result<Vec<Appended>> {
    let condition = &batch.condition;
    let broken = if condition.is_none() {
        None
    } else {
        let mut since = memory.rows::<Events>().range(condition.after().saturating_add(1)..);
        since.find(|(_, event)| condition.is_broken_by(event)).map(|(position, _)| *position)
    };
    let known = known(memory, &batch.appends);
    let (answers, inserts) = plan_batch(batch, known, broken)?;
    store(memory, inserts);
    Ok(answers)
}

fn store(memory: &mut MemoryTx, inserts: Vec<Insert<'_>>) {
    let recorded_at = memory.now();
    for insert in inserts {
        let event = &insert.event.event;
        let recorded = RecordedEvent {
            event_id: event.event_id,
            stream_id: insert.stream.clone(),
            version: insert.version,
            global_position: insert.global_position,
            event_type: event.event_type.clone(),
            schema_version: event.schema_version,
            payload: event.payload.clone(),
            metadata: event.metadata.clone(),
            tags: event.tags.clone(),
            recorded_at,
        };
        let position = insert.global_position;
        memory.put::<Streams>((insert.stream.clone(), insert.version), position);
        memory.put::<EventIds>(event.event_id, position);
        memory.put::<Events>(position, Arc::new(recorded));
    }
}

fn known(memory: &mut MemoryTx, appends: &[Append]) -> Known {
    let mut known = Known { last_position: head(memory), ..Known::default() };
    for append in appends {
        known.heads.insert(append.stream.clone(), version(memory, &append.stream));
    }
    for new in appends.iter().flat_map(|append| &append.events) {
        let id = new.event.event_id;
        let Some(position) = memory.get::<EventIds>(&id).copied() else {
            continue;
        };
        if let Some(event) = memory.get::<Events>(&position) {
            let event = KnownEvent {
                stream: event.stream_id.clone(),
                version: event.version,
                global_position: position,
                event_type: event.event_type.clone(),
                schema_version: event.schema_version,
                payload: event.payload.clone(),
            };
            known.events.insert(id, event);
        }
    }
    known
}

fn version(memory: &mut MemoryTx, stream: &StreamId) -> u64 {
    let versions = (stream.clone(), 0)..=(stream.clone(), u64::MAX);
    let last = memory.rows::<Streams>().range(versions).next_back();
    last.map_or(0, |((_, version), _)| *version)
}

fn head(memory: &mut MemoryTx) -> u64 {
    memory.rows::<Events>().last_key_value().map_or(0, |(position, _)| *position)
}

fn stream_page(
    memory: &mut MemoryTx,
    stream: &StreamId,
    options: ReadOptions,
) -> Vec<RecordedEvent> {
    let limit = usize::try_from(options.page()).unwrap_or(usize::MAX);
    let key = |version| (stream.clone(), version);
    let streams = memory.rows::<Streams>();
    let positions: Vec<u64> = match options.direction {
        Direction::Forwards => {
            let range = streams.range(key(options.start())..=key(u64::MAX));
            range.take(limit).map(|(_, position)| *position).collect()
        }
        Direction::Backwards => {
            let range = streams.range(key(0)..=key(options.start())).rev();
            range.take(limit).map(|(_, position)| *position).collect()
        }
    };
    let events = memory.rows::<Events>();
    positions
        .iter()
        .filter_map(|position| events.get(position))
        .map(|event| RecordedEvent::clone(event))
        .collect()
}

fn all_page(memory: &mut MemoryTx, cursor: AllCursor) -> Vec<RecordedEvent> {
    if cursor.after >= cursor.until {
        return Vec::new();
    }
    let limit = usize::try_from(cursor.page()).unwrap_or(usize::MAX);
    let range = memory.rows::<Events>().range(cursor.after + 1..=cursor.until);
    range.take(limit).map(|(_, event)| RecordedEvent::clone(event)).collect()
}
