//! Snapshots: the state of an aggregate at a version, so that a load reads only what came after.
//!
//! # Invariants
//! 1. A snapshot is only a saving: leaving all of them out gives the same states. One of another
//!    schema version, one that can't be decoded, and one that is ahead of its stream or of another
//!    history (the event at its version has another id: a restored backup) is not used, and the
//!    events are folded from the first one on.
//! 2. Only what is committed gets into one: a state from a transaction of the caller's is saved by
//!    [`Tx::on_commit`](potter_core::Tx::on_commit).
//! 3. Saving is off the command's path: a task of its own writes what waits, the newest of each
//!    stream; when too much waits, it is left out. [`Snapshots::flush`] waits for it.

mod keeper;
mod memory;
#[cfg(feature = "mongodb")]
mod mongodb;
mod sql;
mod strategy;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use potter_core::{Database, Engine, Json, Tx};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[cfg(feature = "mongodb")]
pub(crate) use mongodb::MongoSnapshots;
pub use strategy::{Frequency, Hybrid, SnapshotMoment, SnapshotStrategy, TimeBased};

use crate::aggregate::Aggregate;
use crate::error::Result;
use crate::stream_id::StreamId;
use keeper::Keeper;

/// An aggregate whose state can be kept.
pub trait Snapshottable: Aggregate + Serialize + DeserializeOwned {
    /// The shape of the state: raise it when the fields, or what they mean, change. Snapshots of
    /// other versions are not used any more.
    const SNAPSHOT_VERSION: u32;
}

/// The state of an aggregate at a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// Names it.
    pub id: Uuid,
    /// Whose state.
    pub stream_id: StreamId,
    /// The version of the last event in it.
    pub version: u64,
    /// [`Snapshottable::SNAPSHOT_VERSION`] of the code that took it.
    pub schema_version: u32,
    /// The id of the last event in it.
    pub event_id: Uuid,
    /// The state.
    pub state: Json,
    /// When it was taken, on the database's clock.
    pub taken_at: DateTime<Utc>,
}

/// A snapshot to save.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NewSnapshot {
    /// Whose state.
    pub stream_id: StreamId,
    /// The version of the last event in it.
    pub version: u64,
    /// The shape of the state.
    pub schema_version: u32,
    /// The id of the last event in it.
    pub event_id: Uuid,
    /// The state.
    pub state: Json,
}

impl NewSnapshot {
    /// A snapshot of `stream_id` at `version`, whose event there has the id `event_id`.
    pub fn new(
        stream_id: StreamId,
        version: u64,
        event_id: Uuid,
        schema_version: u32,
        state: Json,
    ) -> Self {
        Self { stream_id, version, schema_version, event_id, state }
    }
}

/// Where snapshots are kept.
#[async_trait]
pub trait SnapshotStore: fmt::Debug + Send + Sync + 'static {
    /// Saves one, in the place of one at the same version, and deletes all but the newest `keep`
    /// of that stream and schema version.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    async fn save(&self, snapshot: NewSnapshot, keep: u32) -> Result<()>;

    /// The newest at or below version `at_most`.
    ///
    /// # Errors
    /// `Unavailable` when the database is; `Corrupt` when the row can't be read.
    async fn latest(
        &self,
        stream: &StreamId,
        schema_version: u32,
        at_most: u64,
    ) -> Result<Option<Snapshot>>;

    /// The same in the caller's transaction.
    ///
    /// # Errors
    /// As [`latest`](Self::latest); `Config` when `tx` is of another engine.
    async fn latest_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        schema_version: u32,
        at_most: u64,
    ) -> Result<Option<Snapshot>>;

    /// Of one stream, or all: `limit` at most after the first `offset`, by stream, newest first.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    async fn list(
        &self,
        stream: Option<&StreamId>,
        offset: u64,
        limit: u32,
    ) -> Result<Vec<Snapshot>>;

    /// Deletes one; answers whether it was there.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    async fn delete(&self, id: Uuid) -> Result<bool>;

    /// Deletes those of a stream below version `before`; answers how many.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    async fn delete_before(&self, stream: &StreamId, before: u64) -> Result<u64>;
}

/// The snapshots in `database`, whatever its engine. Their table is made by
/// [`EventStore::migrate`](crate::EventStore::migrate).
pub fn snapshot_store(database: &Database) -> Arc<dyn SnapshotStore> {
    match database.engine() {
        Engine::Memory => Arc::new(memory::MemorySnapshots::new(database.clone())),
        _ => Arc::new(sql::SqlSnapshots::new(database.clone())),
    }
}

/// When snapshots are taken, and where they are kept: for
/// [`Repository::with_snapshots`](crate::Repository::with_snapshots). Cheap to clone.
#[derive(Clone)]
pub struct Snapshots {
    store: Arc<dyn SnapshotStore>,
    strategy: Arc<dyn SnapshotStrategy>,
    keeper: Arc<Keeper>,
}

impl Snapshots {
    /// Of each stream, the newest this many are kept.
    pub const KEEP: u32 = 3;

    /// Snapshots in `store`, taken when `strategy` says so.
    pub fn new(store: Arc<dyn SnapshotStore>, strategy: impl SnapshotStrategy) -> Self {
        Self {
            keeper: Arc::new(Keeper::new(Arc::clone(&store), Self::KEEP)),
            store,
            strategy: Arc::new(strategy),
        }
    }

    /// How many of each stream are kept (at least 1).
    #[must_use]
    pub fn keep(mut self, snapshots: u32) -> Self {
        self.keeper = Arc::new(Keeper::new(Arc::clone(&self.store), snapshots.max(1)));
        self
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn SnapshotStore> {
        &self.store
    }

    /// Waits until what was due is saved, or could not be.
    pub async fn flush(&self) {
        self.keeper.flush().await;
    }

    pub(crate) fn is_due(&self, moment: &SnapshotMoment) -> bool {
        self.strategy.is_due(moment)
    }

    pub(crate) fn save_soon(&self, snapshot: NewSnapshot) {
        self.keeper.save_soon(snapshot);
    }

    pub(crate) fn keeper(&self) -> Arc<Keeper> {
        Arc::clone(&self.keeper)
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").field("store", &self.store).finish_non_exhaustive()
    }
}
