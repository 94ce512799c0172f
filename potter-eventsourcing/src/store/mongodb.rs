//! Events in MongoDB: a document an append, on a standalone server as on a replica set.
//!
//! # The end of the log is the lock
//! An append is one document, and one document is written as a whole or not at all. Its `_id` is
//! its first position; it says what its last one is. Whoever appends reads the last document,
//! then the versions of the streams, then the event ids, decides, and inserts at the position
//! after the last. `_id` is unique, so of those who saw the same end one gets in, and the others
//! find the place taken and begin again. From this follow
//!
//! 1. **Positions are dense and in the order of commits.** A document at `p + 1` is inserted only
//!    by somebody who has seen the one that ends at `p`. So what is visible is final, and a reader
//!    of the order of positions skips nothing. (With a counter, or `$inc` for blocks of positions,
//!    a late commit would be passed.)
//! 2. **Every check is exact.** What was read before an insert that succeeded is still true at the
//!    moment of the insert: nothing was written after the end that was read first, or the insert
//!    would have failed. That holds for versions, event ids, and any other condition. The unique
//!    index on (stream, version) is a second lock on the same door; that on event ids is not even
//!    unique, as not every server keeps uniqueness inside of arrays.
//! 3. **A refusal is exact too.** It only stands on event ids that were read after the versions. If
//!    a repeated append were to find its own version in the way, it finds its ids as well, and is
//!    answered as the first time.
//!
//! A process that appended last knows the end, and does not ask for it: it reads versions and ids at
//! once and inserts, two round trips. Whatever came behind that end makes the insert fail. Before it
//! refuses it reads again, in order.
//!
//! Within a process there is one committer, and what comes meanwhile is inserted together, in
//! order ([`CommitQueue`]): processes compete for the end of the log, tasks do not. At least one
//! competitor gets on each time, so there is always progress; who loses waits a random while, longer
//! each time.
//!
//! # Interleavings
//! * **A late insert**: the answer was lost, or the request lies around in a network and arrives
//!   minutes later. Its `_id` was taken by the append that came after it (or by its own repetition),
//!   so it does nothing: the position is a fencing token. That is why an append without an answer
//!   is simply sent again: if its event ids are there it is answered as the first time, if they are
//!   not it is made again, and the two can't both be there.
//! * **A group that is cut in the middle** (the place of its third document is taken, the
//!   connection breaks): what is in front of the cut is written and answered, what is behind was
//!   decided on what did not happen and is decided anew.
//! * **A change of the primary.** Writes wait for a majority and the journal; readers read what a
//!   majority has (`majority`, a setting that a standalone server takes as well). Who appends reads
//!   the newest (`local`): if that is taken back, so is the insert behind it. "It is there already"
//!   is only said of what a majority has. A write that no majority confirms in time is `Unknown`.
//!   The store sets these concerns itself; a weaker one in the URL has no effect.
//! * **Two primaries for a moment**: the old one can't get a majority. Its inserts are `Unknown`
//!   and taken back.
//! * **Readers on secondaries** could see different ends one after the other. All reads go to the
//!   primary, whatever the URL says.
//!
//! # Limits
//! An append is 16 MiB at most. The collection is not sharded: `_id` would not be unique. The
//! last document must not be deleted (older ones may be). There are no transactions of the
//! caller's: [`database`](EventStore::database) is `None`, and what needs one is `Unsupported`.

pub(crate) mod append;
pub(crate) mod clock;
pub(crate) mod connect;
pub(crate) mod document;
pub(crate) mod failure;
mod indexes;
mod options;
mod read;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use potter_core::{Database, Signal, Tx, Waiter};
use uuid::Uuid;

pub use indexes::{MONGO_INDEXES, MongoIndexes};
pub use options::MongoOptions;

use super::EventStore;
use super::append::{Append, ExpectedVersion};
use super::commit_queue::{CommitQueue, settled};
use super::condition::{AppendCondition, Batch, StreamAppend};
use super::filter::EventFilter;
use super::pages::{AllCursor, next_in_stream, pages};
use super::read::{Page, ReadAllOptions, ReadOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::projection::{CheckpointStorage, MongoCheckpoints};
use crate::snapshot::{MongoSnapshots, SnapshotStore};
use crate::stream_id::StreamId;
use append::Writer;
use connect::Mongo;
use read::Events;

/// The event store on MongoDB, standalone or replica set. It is for servers of version 5.0 or
/// later, and passes the conformance suite on FerretDB 1.24.
///
/// ```no_run
/// # async fn example() -> potter_eventsourcing::Result<()> {
/// use potter_eventsourcing::{EventStore, MongoEventStore};
///
/// let store = MongoEventStore::connect("mongodb://127.0.0.1:27017/bank").await?;
/// store.migrate().await?;
/// # Ok(())
/// # }
/// ```
pub struct MongoEventStore {
    mongo: Mongo,
    events: Events,
    queue: CommitQueue<Writer>,
    changed: Signal,
}

impl MongoEventStore {
    /// Connects with the default options. `url` is a [connection
    /// string](https://www.mongodb.com/docs/manual/reference/connection-string/) that names a
    /// database.
    ///
    /// # Errors
    /// `Config` for a URL that is malformed or names no database, and when the server refuses the
    /// user; `Unavailable` when it can't be reached (the host is named). The password is in none
    /// of them.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, MongoOptions::default()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `Config` for a malformed option.
    pub async fn connect_with(url: &str, options: MongoOptions) -> Result<Self> {
        let mongo = Mongo::connect(url, options).await?;
        let changed = Signal::in_process("potter_events");
        let writer = Writer::new(&mongo, changed.clone());
        let queue = CommitQueue::new(writer, mongo.options.store.clone(), 1);
        Ok(Self { events: Events::new(&mongo, true), mongo, queue, changed })
    }

    /// The driver's handle on the database: for read models of your own beside the events.
    pub fn driver(&self) -> &mongodb::Database {
        &self.mongo.database
    }

    /// Snapshots in the same database. [`migrate`](EventStore::migrate) makes their indexes.
    pub fn snapshot_store(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(MongoSnapshots::new(&self.mongo))
    }
}

impl std::fmt::Debug for MongoEventStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MongoEventStore")
            .field("database", &self.mongo.database.name())
            .field("options", &self.mongo.options)
            .finish_non_exhaustive()
    }
}

/// What a caller's transaction can't be used for here.
pub(crate) fn no_transactions() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "events in MongoDB can't be appended or read in a transaction of another database: use \
         append(), and derive the event ids from the command, so that it can be repeated",
    )
}

#[async_trait]
impl EventStore for MongoEventStore {
    fn database(&self) -> Option<&Database> {
        None
    }

    fn checkpoint_storage(&self) -> Option<CheckpointStorage> {
        Some(CheckpointStorage::new(MongoCheckpoints::new(&self.mongo)))
    }

    /// Creates the indexes that are missing. An existing one of the same name and another
    /// definition is an error, and is left alone.
    async fn migrate(&self) -> Result<()> {
        indexes::create(&self.mongo).await
    }

    async fn append(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        let append = Append::new(stream, expected, events, &self.mongo.options.store)?;
        document::check_size(&append)?;
        self.queue.append(append).await
    }

    async fn append_in(
        &self,
        _: &mut Tx,
        _: &StreamId,
        _: ExpectedVersion,
        _: Vec<NewEvent>,
    ) -> Result<Appended> {
        Err(no_transactions())
    }

    async fn append_if(
        &self,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        if appends.len() > 1 {
            let streams = appends.len();
            let message = format!(
                "an append to {streams} streams: on MongoDB an append is one document, of one \
                 stream. Put the events into one stream and tag them: a condition over tags sees \
                 all streams"
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let batch = Batch::new(appends, condition, &self.mongo.options.store)?;
        batch.appends.iter().try_for_each(document::check_size)?;
        let writer = self.queue.target();
        settled(|| writer.append_if(&batch), true).await?
    }

    async fn append_if_in(
        &self,
        _: &mut Tx,
        _: Vec<StreamAppend>,
        _: AppendCondition,
    ) -> Result<Vec<Appended>> {
        Err(no_transactions())
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
                let page = self.events.stream_page(&stream, options).await?;
                let next = next_in_stream(options, &page);
                Ok((page, next))
            }
        })
    }

    async fn read_stream_in(
        &self,
        _: &mut Tx,
        _: &StreamId,
        _: ReadOptions,
    ) -> Result<Vec<RecordedEvent>> {
        Err(no_transactions())
    }

    fn read_all(
        &self,
        after: u64,
        options: ReadAllOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        let first = AllCursor { after, until: 0, limit: options.limit };
        pages(first, move |mut cursor| async move {
            if cursor.until == 0 {
                cursor.until = self.events.head().await?;
            }
            let (after, until, limit) = (cursor.after, cursor.until, cursor.page());
            let (page, _) = self.events.page(after, until, &EventFilter::all(), limit).await?;
            let next = cursor.next(&page);
            Ok((page, next))
        })
    }

    async fn read_page(&self, after: u64, filter: &EventFilter, limit: u64) -> Result<Page> {
        // A statement of its own: what is up to here is there for the next one.
        let head = self.events.head().await?.max(after);
        let (events, through) = self.events.page(after, head, filter, limit.max(1)).await?;
        Ok(Page { events, through, head })
    }

    fn changes(&self) -> Option<Waiter> {
        Some(self.changed.subscribe())
    }

    async fn event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>> {
        self.events.event(event_id).await
    }

    async fn count(&self, after: u64, until: u64, filter: &EventFilter) -> Result<u64> {
        self.events.count(after, until, filter).await
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<u64> {
        // First the end, then the search: what comes in between is recorded later or not looked at.
        let head = self.events.head().await?;
        Ok(self.events.before(time).await?.map_or(head, |before| before.min(head)))
    }

    async fn stream_version(&self, stream: &StreamId) -> Result<u64> {
        self.events.stream_version(stream).await
    }

    async fn head_position(&self) -> Result<u64> {
        self.events.head().await
    }

    async fn safe_position(&self) -> Result<u64> {
        self.events.head().await
    }
}
