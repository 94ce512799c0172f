//! Events in PostgreSQL.
//!
//! Appending is one call of the function `potter_append` (see the migration): one round trip,
//! its own transaction. Reading all events follows a safe position (`safe_position`).

mod call;
mod safe_position;

use async_trait::async_trait;
use futures::stream::BoxStream;
use potter_core::{Database, Engine, Tx};

use super::append::{Append, ExpectedVersion};
use super::commit_queue::{Commit, CommitQueue};
use super::options::StoreOptions;
use super::pages::{AllCursor, next_in_stream, pages};
use super::read::{ReadAllOptions, ReadOptions};
use super::rows::{self, Source};
use super::{EventStore, engine_is};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::schema::MIGRATIONS;
use crate::stream_id::StreamId;
use safe_position::SafePosition;

/// The event store on PostgreSQL.
pub struct PostgresEventStore {
    database: Database,
    options: StoreOptions,
    queue: CommitQueue<Writer>,
    safe: SafePosition,
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
        let writer = Writer { database: database.clone() };
        let queue = CommitQueue::new(writer, options.clone(), options.committers_max);
        let safe = SafePosition::new(database.clone());
        Ok(Self { database, options, queue, safe })
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
            cursor.until = self.safe.refresh().await?.max(cursor.after);
        }
        // A statement of its own: its snapshot is younger than the safe position.
        let mut page = rows::all_page(&self.database, cursor).await?;
        let next = cursor.next(&page);
        let (asked, got) = (cursor.page(), page.len() as u64);
        if next.is_none() && got < asked {
            let run = AllCursor { after: cursor.until, until: u64::MAX, limit: Some(asked - got) };
            let beyond = rows::all_page(&self.database, run).await?;
            let mut last = cursor.until;
            for event in beyond {
                if event.global_position - 1 != last {
                    break;
                }
                last = event.global_position;
                page.push(event);
            }
        }
        Ok((page, next))
    }
}

impl std::fmt::Debug for PostgresEventStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresEventStore").field("options", &self.options).finish_non_exhaustive()
    }
}

struct Writer {
    database: Database,
}

#[async_trait]
impl Commit for Writer {
    async fn commit(&self, appends: &[Append]) -> Result<Vec<Result<Appended>>> {
        let rows = self.database.write(call::APPEND, &call::values(appends)).await?;
        call::answers(appends, &rows)
    }
}

#[async_trait]
impl EventStore for PostgresEventStore {
    fn database(&self) -> &Database {
        &self.database
    }

    async fn migrate(&self) -> Result<()> {
        MIGRATIONS.apply(&self.database).await?;
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
        let rows = tx.fetch_all(call::APPEND, &call::values(appends)).await?;
        let answer = call::answers(appends, &rows)?.pop();
        answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "an append was not answered")))
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
                let page = rows::stream_page(source, &stream, options).await?;
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
        engine_is(Engine::Postgres, tx.engine())?;
        rows::stream_page(Source::Tx(tx), stream, options).await
    }

    fn read_all(
        &self,
        after: u64,
        options: ReadAllOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        let first = AllCursor { after, until: 0, limit: options.limit };
        pages(first, move |cursor| self.all_page(cursor))
    }

    async fn stream_version(&self, stream: &StreamId) -> Result<u64> {
        rows::stream_version(Source::Database(&self.database), stream).await
    }

    async fn head_position(&self) -> Result<u64> {
        rows::head_position(&self.database).await
    }

    async fn safe_position(&self) -> Result<u64> {
        self.safe.refresh().await
    }
}
