//! The event store: streams of events, and the order of all of them.

mod append;
mod commit_queue;
mod condition;
mod filter;
mod memory;
mod options;
mod pages;
mod plan;
mod postgres;
mod read;
pub(crate) mod rows;
mod sqlite;
mod tenant;
mod wanted;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use potter_core::{Database, Engine, Tx, Waiter};
use uuid::Uuid;

pub use append::ExpectedVersion;
pub use condition::{AppendCondition, Matching, StreamAppend};
pub use filter::{EventFilter, SegmentSet};
pub use memory::MemoryEventStore;
pub use options::StoreOptions;
pub use postgres::{LogPart, PartitionedLog, PostgresEventStore};
pub use read::{Direction, Page, ReadAllOptions, ReadOptions};
pub use sqlite::SqliteEventStore;
pub use tenant::TenantEventStore;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::query::EventQuery;
use crate::stream_id::StreamId;

/// Where events are kept. A store of your own passes `testing::conformance` (feature `testing`).
///
/// # What every store promises
/// 1. The versions of a stream are 1, 2, 3, … without a gap, and an append is there as a whole
///    or not at all. Of two appends that expect the same version, one gets `Conflict`.
/// 2. Appending events whose ids are all in that stream already, in the same order and with the
///    same type, schema version and payload, writes nothing and is answered as the first time
///    (with `duplicate` set), whatever version is expected. So an append whose outcome is
///    unknown is simply made again.
/// 3. [`read_all`](Self::read_all) never skips: once it has answered with position `p`, no event
///    with a lower position appears later.
#[async_trait]
pub trait EventStore: Send + Sync + 'static {
    /// The database that the events are in, when it is one that transactions of the caller's own
    /// ([`Tx`]) can be had from: `None` on MongoDB.
    fn database(&self) -> Option<&Database>;

    /// Creates or updates the tables. Safe at every start, from many processes.
    ///
    /// # Errors
    /// See [`potter_core::Migrations::apply`].
    async fn migrate(&self) -> Result<()>;

    /// Appends `events` to `stream` in a transaction of the store's own. When it answers, they
    /// are durable.
    ///
    /// Dropping the future does not undo: the append may still take effect.
    ///
    /// # Errors
    /// `Conflict` when the stream is not as `expected`; `DuplicateEventId` when an id was used
    /// for another event; `InvalidInput` for no event, a malformed one or the same id twice;
    /// `LimitExceeded` beyond the limits of [`StoreOptions`]; `Unknown` when the connection
    /// broke and stayed broken: append the same events again later.
    async fn append(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended>;

    /// The same inside the caller's transaction: the events are there if and only if it commits.
    ///
    /// After `Conflict`, `DuplicateEventId`, `InvalidInput` and `LimitExceeded` from a comparison
    /// the transaction is still usable. The stream stays locked until the transaction ends, and
    /// readers of all events wait at the first position of an open one: keep it short. To append
    /// to several streams, take them in one order everywhere, or the database ends a deadlock by
    /// failing one of the transactions with `Conflict`.
    ///
    /// # Errors
    /// As [`append`](Self::append); `Config` when `tx` is of another engine; `Unsupported` when
    /// the store has no transactions of that kind.
    async fn append_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended>;

    /// Appends to several streams in a transaction of the store's own, all or nothing. The answers
    /// and the positions are in the order of `appends`.
    ///
    /// # Errors
    /// As [`append`](Self::append), of whichever stream; `InvalidInput` when a stream is in it
    /// twice; `Unsupported` when the store can't (MongoDB).
    async fn append_streams(&self, appends: Vec<StreamAppend>) -> Result<Vec<Appended>> {
        self.append_if(appends, AppendCondition::none()).await
    }

    /// The same if a condition holds too (a *dynamic consistency boundary*): no event that its
    /// query wants was added since the decision was made. [`read_matching`](Self::read_matching)
    /// gives the events to decide from, and the condition. Conditions that no event concerns both
    /// of do not disturb each other.
    ///
    /// The same events again are answered as the first time, before the condition is looked at:
    /// an append whose outcome is unknown is simply made again.
    ///
    /// # Errors
    /// As [`append_streams`](Self::append_streams); `Conflict` when the condition does not hold:
    /// read and decide again.
    async fn append_if(
        &self,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        let _ = (appends, condition);
        Err(no_batches())
    }

    /// The same inside the caller's transaction. What that appended before counts too. PostgreSQL:
    /// the transaction must be `READ COMMITTED` when there is a condition; nobody else appends
    /// what the condition concerns until it ends.
    ///
    /// # Errors
    /// As [`append_if`](Self::append_if) and [`append_in`](Self::append_in).
    async fn append_if_in(
        &self,
        tx: &mut Tx,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        let _ = (tx, appends, condition);
        Err(no_batches())
    }

    /// All events above `after` that a query wants, and the condition that none came since. `after`
    /// is 0, or the [`position`](Matching::position) of an earlier answer whose events were kept.
    ///
    /// # Errors
    /// `LimitExceeded` for more than 100 000 events; else as [`read_page`](Self::read_page).
    async fn read_matching(&self, query: &EventQuery, after: u64) -> Result<Matching> {
        pages::matching(self, query, after).await
    }

    /// The events of one stream, read page by page as the stream is polled. A stream that does
    /// not exist is empty.
    fn read_stream(
        &self,
        stream: &StreamId,
        options: ReadOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>>;

    /// The same inside the caller's transaction, own appends included, at most one page: without
    /// a limit of its own, [`ReadOptions::PAGE`] events. Go on from the last one's version.
    ///
    /// # Errors
    /// `Corrupt` when a row can't be read back; `Unavailable` when the connection broke.
    async fn read_stream_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        options: ReadOptions,
    ) -> Result<Vec<RecordedEvent>>;

    /// All events with a position above `after`, in the order of positions, that are final now.
    /// It ends there: to go on, call it again with the position of the last event that came.
    ///
    /// `after` is 0, the position of an event that this method gave, or a
    /// [`safe_position`](Self::safe_position).
    fn read_all(&self, after: u64, options: ReadAllOptions)
    -> BoxStream<'_, Result<RecordedEvent>>;

    /// The next events above `after` that `filter` wants, `limit` at most, and how far that was
    /// looked: what a projection goes on from. It may be short, or empty, without being at the
    /// end: go on from [`Page::through`] until that is [`Page::head`].
    ///
    /// `after` is as for [`read_all`](Self::read_all), or the `through` of a page.
    ///
    /// # Errors
    /// As [`safe_position`](Self::safe_position); `Corrupt` when a row can't be read back.
    async fn read_page(&self, after: u64, filter: &EventFilter, limit: u64) -> Result<Page> {
        pages::filtered(self, after, filter, limit).await
    }

    /// Hints that there may be new events: from appends of this process, and where the database
    /// can tell, of others. `None` when nothing ever hints: ask again from time to time.
    fn changes(&self) -> Option<Waiter> {
        None
    }

    /// The event with this id, if it is there. The default reads all events until it comes.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    async fn event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>> {
        let all = self.read_all(0, ReadAllOptions::new());
        all.try_filter(|event| std::future::ready(event.event_id == event_id)).try_next().await
    }

    /// How many events above `after`, up to and with `until`, `filter` wants. The default reads
    /// them.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    async fn count(&self, after: u64, until: u64, filter: &EventFilter) -> Result<u64> {
        pages::count(self, after, until, filter).await
    }

    /// The position that stands for a time: that before the first event that was recorded later.
    /// A later time is never a lower position, also where a clock was set back. The default reads
    /// all events.
    ///
    /// # Errors
    /// As [`safe_position`](Self::safe_position).
    async fn position_at(&self, time: DateTime<Utc>) -> Result<u64> {
        let safe = self.safe_position().await?;
        let mut all = self.read_all(0, ReadAllOptions::new());
        while let Some(event) = all.try_next().await? {
            if event.recorded_at > time {
                return Ok(event.global_position - 1);
            }
        }
        Ok(safe)
    }

    /// The version of the last event of a stream; 0 when there is none.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    async fn stream_version(&self, stream: &StreamId) -> Result<u64>;

    /// The highest position of any committed event; 0 when there is none. There may be lower
    /// ones to come: see [`safe_position`](Self::safe_position).
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    async fn head_position(&self) -> Result<u64>;

    /// A position up to which everything is final: no event at or below it is still to come.
    ///
    /// # Errors
    /// `Unavailable` when the database is; `Unsupported` on a standby server.
    async fn safe_position(&self) -> Result<u64>;
}

/// The store for `database`, whatever its engine, with the default options.
///
/// # Errors
/// `Config` when there is no store for the engine.
pub fn event_store(database: &Database) -> Result<Arc<dyn EventStore>> {
    event_store_with(database, &StoreOptions::default())
}

/// The same with options.
///
/// # Errors
/// As [`event_store`].
pub fn event_store_with(
    database: &Database,
    options: &StoreOptions,
) -> Result<Arc<dyn EventStore>> {
    let (database, options) = (database.clone(), options.clone());
    match database.engine() {
        Engine::Memory => Ok(Arc::new(MemoryEventStore::with_options(database, options)?)),
        Engine::Sqlite => Ok(Arc::new(SqliteEventStore::with_options(database, options)?)),
        Engine::Postgres => Ok(Arc::new(PostgresEventStore::with_options(database, options)?)),
        other => Err(Error::new(ErrorKind::Config, format!("no event store on {other}"))),
    }
}

fn no_batches() -> Error {
    let message = "this event store can't append to several streams, or on a condition";
    Error::new(ErrorKind::Unsupported, message)
}

fn engine_is(wanted: Engine, found: Engine) -> Result<()> {
    if wanted == found {
        return Ok(());
    }
    let message =
        format!("this event store is for {wanted}; the database or transaction is {found}");
    Err(Error::new(ErrorKind::Config, message))
}

#[async_trait]
impl<S: EventStore + ?Sized> EventStore for Arc<S> {
    fn database(&self) -> Option<&Database> {
        (**self).database()
    }

    async fn migrate(&self) -> Result<()> {
        (**self).migrate().await
    }

    async fn append(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        (**self).append(stream, expected, events).await
    }

    async fn append_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        (**self).append_in(tx, stream, expected, events).await
    }

    async fn append_streams(&self, appends: Vec<StreamAppend>) -> Result<Vec<Appended>> {
        (**self).append_streams(appends).await
    }

    async fn append_if(
        &self,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        (**self).append_if(appends, condition).await
    }

    async fn append_if_in(
        &self,
        tx: &mut Tx,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        (**self).append_if_in(tx, appends, condition).await
    }

    async fn read_matching(&self, query: &EventQuery, after: u64) -> Result<Matching> {
        (**self).read_matching(query, after).await
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        options: ReadOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        (**self).read_stream(stream, options)
    }

    async fn read_stream_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        options: ReadOptions,
    ) -> Result<Vec<RecordedEvent>> {
        (**self).read_stream_in(tx, stream, options).await
    }

    fn read_all(
        &self,
        after: u64,
        options: ReadAllOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        (**self).read_all(after, options)
    }

    async fn read_page(&self, after: u64, filter: &EventFilter, limit: u64) -> Result<Page> {
        (**self).read_page(after, filter, limit).await
    }

    fn changes(&self) -> Option<Waiter> {
        (**self).changes()
    }

    async fn event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>> {
        (**self).event(event_id).await
    }

    async fn count(&self, after: u64, until: u64, filter: &EventFilter) -> Result<u64> {
        (**self).count(after, until, filter).await
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<u64> {
        (**self).position_at(time).await
    }

    async fn stream_version(&self, stream: &StreamId) -> Result<u64> {
        (**self).stream_version(stream).await
    }

    async fn head_position(&self) -> Result<u64> {
        (**self).head_position().await
    }

    async fn safe_position(&self) -> Result<u64> {
        (**self).safe_position().await
    }
}
