//! Events in PostgreSQL.
//!
//! Appending is one call of the function `potter_append` (see the migration), or one plain
//! statement for one stream (`single`): one round trip, its own transaction. Reading all events follows
//! a safe position (`safe_position`).

mod call;
mod locks;
mod partitions;
mod safe_position;
mod single;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use potter_core::{Database, Engine, Signal, Tx, Waiter};
use uuid::Uuid;

use super::append::{Append, ExpectedVersion};
use super::commit_queue::{Commit, CommitQueue, settled};
use super::condition::{AppendCondition, Batch, MATCHING_MAX, Matching, StreamAppend};
use super::filter::EventFilter;
use super::options::StoreOptions;
use super::pages::{AllCursor, pages, within_limit};
use super::read::{Page, ReadAllOptions, ReadOptions};
use super::rows::{self, Source};
use super::{EventStore, engine_is, wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::query::EventQuery;
use crate::schema::MIGRATIONS;
use crate::stream_id::StreamId;
use locks::{Choice, Locks};
pub use partitions::{LogPart, PartitionedLog};
use safe_position::SafePosition;

/// The channel that tells of new events.
const CHANGED: &str = "potter_events";

/// The event store on PostgreSQL.
pub struct PostgresEventStore {
    database: Database,
    options: StoreOptions,
    queue: CommitQueue<Writer>,
    safe: SafePosition,
    locks: Arc<Choice>,
    changed: Signal,
}

impl PostgresEventStore {
    /// The store in `database`, with the default options.
    ///
    /// # Errors
    /// `Config` when the database is of another engine.
    pub fn new(database: Database) -> Result<Self> {
        Self::with_options(database, StoreOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_options(database: Database, options: StoreOptions) -> Result<Self> {
        engine_is(Engine::Postgres, database.engine())?;
        // A signal of a database in memory stays in this process.
        let changed = if options.listen { database.clone() } else { Database::memory() };
        let changed = Signal::new(&changed, CHANGED);
        let wanted = if options.advisory_locks { Locks::Advisory } else { Locks::Rows };
        let locks = Arc::new(Choice::new(database.clone(), wanted));
        let writer = Writer {
            database: database.clone(),
            locks: Arc::clone(&locks),
            changed: changed.clone(),
        };
        let queue = CommitQueue::new(writer, options.clone(), options.committers_max);
        let safe = SafePosition::new(database.clone(), Arc::clone(&locks));
        Ok(Self { database, options, queue, safe, locks, changed })
    }

    /// One page of all events. The first page settles how far to go.
    ///
    /// Up to the safe position every row that will ever be is visible, whatever gaps there are.
    /// Beyond it a row counts only if there is no gap before it: an open transaction may still
    /// fill one.
    async fn all_page(
        &self,
        mut cursor: AllCursor,
    ) -> Result<(Vec<RecordedEvent>, Option<AllCursor>)> {
        if cursor.until == 0 {
            cursor.until = self.safe.refresh().await?.safe.max(cursor.after);
        }
        // A statement of its own: its snapshot is younger than the safe position.
        let mut page = rows::all_page(&self.database, cursor).await?;
        self.safe.check_archived(cursor.after).await?;
        let next = cursor.next(&page);
        let (asked, got) = (cursor.page(), page.len() as u64);
        if next.is_none() && got < asked {
            page.extend(self.run_beyond(cursor.until, asked - got).await?);
        }
        Ok((page, next))
    }

    /// The events right behind the safe position, up to the first gap.
    async fn run_beyond(&self, safe: u64, limit: u64) -> Result<Vec<RecordedEvent>> {
        let mut beyond = rows::all_between(&self.database, safe, u64::MAX, limit).await?;
        let whole = beyond
            .iter()
            .zip(safe.saturating_add(1)..)
            .take_while(|(event, position)| event.global_position == *position);
        beyond.truncate(whole.count());
        Ok(beyond)
    }
}

impl std::fmt::Debug for PostgresEventStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresEventStore").field("options", &self.options).finish_non_exhaustive()
    }
}

struct Writer {
    database: Database,
    locks: Arc<Choice>,
    changed: Signal,
}

#[async_trait]
impl Commit for Writer {
    async fn commit(&self, appends: &[Append]) -> Result<Vec<Result<Appended>>> {
        let answers = self.append(appends).await;
        self.changed.send();
        answers
    }
}

impl Writer {
    async fn append(&self, appends: &[Append]) -> Result<Vec<Result<Appended>>> {
        let locks = self.locks.locks().await?;
        if let Some((statement, values)) = single::statement(appends, locks) {
            match self.database.write(statement, &values).await {
                Ok(rows) => {
                    if let Some(appended) = single::appended(appends, &rows)? {
                        return Ok(vec![Ok(appended)]);
                    }
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (statement, values) = call::group(appends, locks, false)?;
        let rows = match self.database.write(statement, &values).await {
            // An id is there, or a deadlock was ended at its cost.
            Err(error) if error.is_conflict() => {
                let (statement, values) = call::group(appends, locks, true)?;
                self.database.write(statement, &values).await?
            }
            rows => rows?,
        };
        call::answers(appends, &rows)
    }
}

/// Commits an append to several streams.
struct BatchWriter<'a> {
    writer: &'a PostgresEventStore,
    batch: &'a Batch,
}

impl BatchWriter<'_> {
    /// The outer result is about the transaction, the inner one is its answer.
    async fn commit(&self) -> Result<Result<Vec<Appended>>> {
        let (statement, values) = call::batch(self.batch, self.writer.locks.locks().await?)?;
        let rows = self.writer.database.write(statement, &values).await;
        self.writer.changed.send();
        Ok(call::batch_answer(self.batch, &rows?))
    }
}

#[async_trait]
impl EventStore for PostgresEventStore {
    fn database(&self) -> Option<&Database> {
        Some(&self.database)
    }

    async fn migrate(&self) -> Result<()> {
        MIGRATIONS.apply(&self.database).await?;
        self.locks.choose().await?;
        self.safe.check_sequence().await
    }

    async fn append(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        self.queue.append(Append::new(stream, expected, events, &self.options)?).await
    }

    async fn append_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        engine_is(Engine::Postgres, tx.engine())?;
        let append = Append::new(stream, expected, events, &self.options)?;
        let appends = std::slice::from_ref(&append);
        let (statement, values) = call::group(appends, self.locks.locks().await?, true)?;
        let rows = tx.fetch_all(statement, &values).await?;
        let changed = self.changed.clone();
        tx.on_commit(move || changed.send());
        let answer = call::answers(appends, &rows)?.pop();
        answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "an append was not answered")))
    }

    async fn append_if(
        &self,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        let batch = Batch::new(appends, condition, &self.options)?;
        let writer = BatchWriter { writer: self, batch: &batch };
        settled(|| writer.commit(), true).await?
    }

    async fn append_if_in(
        &self,
        tx: &mut Tx,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        engine_is(Engine::Postgres, tx.engine())?;
        let batch = Batch::new(appends, condition, &self.options)?;
        let (statement, values) = call::batch(&batch, self.locks.locks().await?)?;
        let rows = tx.fetch_all(statement, &values).await?;
        let changed = self.changed.clone();
        tx.on_commit(move || changed.send());
        call::batch_answer(&batch, &rows)
    }

    /// What is final page by page; what is committed beyond that at once, as the condition names
    /// each event of it.
    async fn read_matching(&self, query: &EventQuery, after: u64) -> Result<Matching> {
        query.check()?;
        let filter = EventFilter::all().query(query.clone());
        let safe = self.safe.refresh().await?.safe.max(after);
        let (mut events, mut through) = (Vec::new(), after);
        while through < safe {
            let limit = ReadOptions::PAGE;
            let (page, reached) =
                wanted::filtered(&self.database, through, safe, &filter, limit).await?;
            events.extend(page);
            within_limit(&events)?;
            through = reached;
        }
        let rest = (MATCHING_MAX as u64 + 1).saturating_sub(events.len() as u64);
        let mut beyond = wanted::page(&self.database, (safe, u64::MAX), &filter, rest).await?;
        beyond.retain(|event| query.matches(event));
        events.extend(beyond);
        within_limit(&events)?;
        self.safe.check_archived(after).await?;
        Ok(Matching::new(query.clone(), events, safe))
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
                let source = Source::Database(&self.database);
                let found = rows::stream_page_and_next(source, &stream, options).await?;
                if found.0.is_empty() && self.safe.in_parts().await? {
                    let source = Source::Database(&self.database);
                    rows::check_empty(source, &stream, options).await?;
                }
                Ok(found)
            }
        })
    }

    async fn read_stream_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        options: ReadOptions,
    ) -> Result<Vec<RecordedEvent>> {
        engine_is(Engine::Postgres, tx.engine())?;
        let page = rows::stream_page(Source::Tx(tx), stream, options).await?;
        if page.is_empty() && self.safe.in_parts().await? {
            rows::check_empty(Source::Tx(tx), stream, options).await?;
        }
        Ok(page)
    }

    fn read_all(
        &self,
        after: u64,
        options: ReadAllOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        let first = AllCursor { after, until: 0, limit: options.limit };
        pages(first, move |cursor| self.all_page(cursor))
    }

    async fn read_page(&self, after: u64, filter: &EventFilter, limit: u64) -> Result<Page> {
        let known = self.safe.refresh().await?;
        let (safe, limit) = (known.safe.max(after), limit.max(1));
        if !filter.is_all() {
            let (events, through) =
                wanted::filtered(&self.database, after, safe, filter, limit).await?;
            self.safe.check_archived(after).await?;
            return Ok(Page { events, through, head: known.fence.max(through) });
        }
        let mut events = rows::all_between(&self.database, after, safe, limit).await?;
        let got = events.len() as u64;
        if got < limit && known.fence > safe {
            events.extend(self.run_beyond(safe, limit - got).await?);
        }
        self.safe.check_archived(after).await?;
        let last = events.last().map_or(after, |event| event.global_position);
        let through = if got < limit { last.max(safe) } else { last };
        Ok(Page { events, through, head: known.fence.max(through) })
    }

    fn changes(&self) -> Option<Waiter> {
        Some(self.changed.subscribe())
    }

    async fn event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>> {
        rows::event(&self.database, event_id).await
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<u64> {
        let safe = self.safe_position().await?;
        rows::position_at(&self.database, time, safe).await
    }

    async fn stream_version(&self, stream: &StreamId) -> Result<u64> {
        rows::stream_version(Source::Database(&self.database), stream).await
    }

    async fn head_position(&self) -> Result<u64> {
        rows::head_position(&self.database).await
    }

    async fn safe_position(&self) -> Result<u64> {
        Ok(self.safe.refresh().await?.safe)
    }
}
