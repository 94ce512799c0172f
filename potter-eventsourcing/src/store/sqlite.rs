//! Events in SQLite.
//!
//! SQLite has one writer at a time, and every append takes its place before it reads. So
//! positions are in the order of commits, and what is visible is final. An append alone is one
//! statement; a group is three, whatever its size (`group`).

mod group;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use potter_core::{Database, Engine, Signal, Tx, Waiter};
use uuid::Uuid;

use super::append::{Append, ExpectedVersion};
use super::commit_queue::{Commit, CommitQueue};
use super::condition::{AppendCondition, Batch, StreamAppend};
use super::filter::EventFilter;
use super::options::StoreOptions;
use super::pages::{AllCursor, pages};
use super::read::{Page, ReadAllOptions, ReadOptions};
use super::rows::{self, Source, unsigned};
use super::{EventStore, engine_is, wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::schema::MIGRATIONS;
use crate::stream_id::StreamId;

/// The event store on an SQLite file.
pub struct SqliteEventStore {
    database: Database,
    options: StoreOptions,
    queue: CommitQueue<Writer>,
    changed: Signal,
}

impl SqliteEventStore {
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
        engine_is(Engine::Sqlite, database.engine())?;
        let changed = Signal::new(&database, "potter_events");
        let writer = Writer { database: database.clone(), changed: changed.clone() };
        let queue = CommitQueue::new(writer, options.clone(), 1);
        Ok(Self { database, options, queue, changed })
    }
}

impl std::fmt::Debug for SqliteEventStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteEventStore").field("options", &self.options).finish_non_exhaustive()
    }
}

struct Writer {
    database: Database,
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
        if let [append] = appends
            && let Some(appended) = self.commit_alone(append).await?
        {
            return Ok(vec![Ok(appended)]);
        }
        let mut tx = self.database.begin().await?;
        let answers = group::append(&mut tx, appends).await?;
        tx.commit().await?;
        Ok(answers)
    }

    /// One append in one statement. `None` when it wrote nothing: why is for the group to say.
    async fn commit_alone(&self, append: &Append) -> Result<Option<Appended>> {
        let rows = self.database.write(group::ALONE, &group::alone_values(append)?).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        // SQLite promises no order for what it returns.
        let (mut first_version, mut last_version, mut last_position) = (u64::MAX, 0, 0);
        for row in &rows {
            let version = unsigned(row, "version")?;
            first_version = first_version.min(version);
            last_version = last_version.max(version);
            last_position = last_position.max(unsigned(row, "global_position")?);
        }
        Ok(Some(Appended { first_version, last_version, last_position, duplicate: false }))
    }
}

#[async_trait]
impl EventStore for SqliteEventStore {
    fn database(&self) -> Option<&Database> {
        Some(&self.database)
    }

    async fn migrate(&self) -> Result<()> {
        Ok(MIGRATIONS.apply(&self.database).await?)
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
        engine_is(Engine::Sqlite, tx.engine())?;
        let append = Append::new(stream, expected, events, &self.options)?;
        let mut answers = group::append(tx, std::slice::from_ref(&append)).await?;
        let changed = self.changed.clone();
        tx.on_commit(move || changed.send());
        let answer = answers.pop();
        answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "an append was not answered")))
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
        engine_is(Engine::Sqlite, tx.engine())?;
        let batch = Batch::new(appends, condition, &self.options)?;
        let appended = group::append_batch(tx, &batch).await?;
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
                let source = Source::Database(&self.database);
                rows::stream_page_and_next(source, &stream, options).await
            }
        })
    }

    async fn read_stream_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        options: ReadOptions,
    ) -> Result<Vec<RecordedEvent>> {
        engine_is(Engine::Sqlite, tx.engine())?;
        rows::stream_page(Source::Tx(tx), stream, options).await
    }

    fn read_all(
        &self,
        after: u64,
        options: ReadAllOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        let first = AllCursor { after, until: 0, limit: options.limit };
        pages(first, move |mut cursor| async move {
            if cursor.until == 0 {
                cursor.until = rows::head_position(&self.database).await?;
            }
            let page = rows::all_page(&self.database, cursor).await?;
            let next = cursor.next(&page);
            Ok((page, next))
        })
    }

    async fn read_page(&self, after: u64, filter: &EventFilter, limit: u64) -> Result<Page> {
        let head = rows::head_position(&self.database).await?;
        let (safe, limit) = (head.max(after), limit.max(1));
        let (events, through) = if filter.is_all() {
            let events = rows::all_between(&self.database, after, safe, limit).await?;
            let full = events.len() as u64 >= limit;
            let through = events.last().filter(|_| full).map_or(safe, |last| last.global_position);
            (events, through)
        } else {
            wanted::filtered(&self.database, after, safe, filter, limit).await?
        };
        Ok(Page { events, through, head: safe })
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
        self.head_position().await
    }
}
