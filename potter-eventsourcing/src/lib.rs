//! Event sourcing that skips no event.
//!
//! State is the sum of what happened: an [`Aggregate`] decides which events a command leads to,
//! an [`EventStore`] keeps them, a [`Repository`] joins the two. The same program runs in memory,
//! on an SQLite file and on PostgreSQL; the URL decides.
//!
//! ```
//! use potter_core::{Database, Metadata};
//! use potter_eventsourcing::{Aggregate, Repository, domain_events, event_store};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Debug, Serialize, Deserialize)]
//! pub struct Amount {
//!     pub cents: u64,
//! }
//!
//! domain_events! {
//!     /// What happens to an account. The names are what is stored.
//!     #[derive(Clone, Debug)]
//!     pub enum AccountEvent {
//!         /// Money came.
//!         Deposited(Amount) => "account.deposited" v 1,
//!         /// Money went.
//!         Withdrawn(Amount) => "account.withdrawn" v 1,
//!     }
//! }
//!
//! pub enum Command {
//!     Deposit(u64),
//!     Withdraw(u64),
//! }
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("there are only {available} cents")]
//! pub struct NotEnough {
//!     available: u64,
//! }
//!
//! #[derive(Default)]
//! pub struct Account {
//!     cents: u64,
//! }
//!
//! impl Aggregate for Account {
//!     const TYPE: &'static str = "account";
//!     type Command = Command;
//!     type Event = AccountEvent;
//!     type Error = NotEnough;
//!
//!     fn decide(&self, command: &Command) -> Result<Vec<AccountEvent>, NotEnough> {
//!         match *command {
//!             Command::Deposit(cents) => Ok(vec![AccountEvent::Deposited(Amount { cents })]),
//!             Command::Withdraw(cents) if cents > self.cents => {
//!                 Err(NotEnough { available: self.cents })
//!             }
//!             Command::Withdraw(cents) => Ok(vec![AccountEvent::Withdrawn(Amount { cents })]),
//!         }
//!     }
//!
//!     fn evolve(&mut self, event: &AccountEvent) {
//!         match event {
//!             AccountEvent::Deposited(amount) => self.cents += amount.cents,
//!             AccountEvent::Withdrawn(amount) => self.cents -= amount.cents,
//!         }
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Or sqlite://data/bank.db, or postgres://user:password@host:5432/bank
//! let database = Database::connect("memory:").await?;
//! let store = event_store(&database)?;
//! store.migrate().await?;
//!
//! let accounts = Repository::<Account>::new(store);
//! accounts.execute("alice", &Command::Deposit(500), Metadata::correlated()).await?;
//! let done = accounts.execute("alice", &Command::Withdraw(200), Metadata::correlated()).await?;
//! assert_eq!((done.state.cents, done.version), (300, 2));
//!
//! let refused = accounts.execute("alice", &Command::Withdraw(900), Metadata::new()).await;
//! assert!(refused.is_err_and(|error| error.rejected().is_some()));
//! # Ok(())
//! # }
//! ```
//!
//! Features: `sqlite` (default), `postgres`, `mongodb`, `clickhouse` for a mirror for analytics,
//! `erasure` for personal data that can be erased by its key, and `testing` for the conformance suite.

mod aggregate;
mod analytics;
#[cfg(feature = "clickhouse")]
pub mod clickhouse;
mod diff;
mod domain_event;
#[cfg(feature = "erasure")]
mod erasure;
mod error;
mod event;
mod personal;
mod projection;
mod query;
mod replay;
mod repository;
mod schema;
mod snapshot;
mod store;
mod stream_id;
#[cfg(feature = "testing")]
pub mod testing;
mod upcast;

pub use aggregate::Aggregate;
pub use analytics::{
    Bucket, BucketTotals, EventAnalytics, EventTypeTotals, Slice, StreamTotals, StreamTypeTotals,
    Totals, event_analytics,
};
#[cfg(feature = "clickhouse")]
pub use clickhouse::{ClickHouse, ClickHouseMirror, MirrorHandle, MirrorStatus};
pub use diff::{Change, Difference, differences};
pub use domain_event::DomainEvent;
#[cfg(feature = "erasure")]
pub use erasure::{
    DataKey, ErasableEventStore, KEY_MIGRATIONS, KeyStore, KeyTable, MemoryKeys, SubjectKey, Vault,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{Appended, NewEvent, RecordedEvent};
pub use personal::Personal;
#[doc(hidden)]
pub use projection::CheckpointStorage;
pub use projection::{
    CaughtUp, HandlerError, InlineEventStore, OnFailure, ParkedEvent, Projection, ProjectionAdmin,
    ProjectionState, ProjectionStatus, Rebuild, Rebuildable, Rebuilt, Running, SegmentStatus,
    ShadowTable, Subscriber, Upcasted, Worker, WorkerOptions, WorkerPool, follow,
};
pub use query::{EventQuery, QueryItem};
pub use replay::{Replay, ReplayProgress};
pub use repository::{At, ExecuteError, Executed, Loaded, Repository, TimelineEntry, WhatIf};
pub use schema::MIGRATIONS;
pub use snapshot::{
    Frequency, Hybrid, NewSnapshot, Snapshot, SnapshotMoment, SnapshotStore, SnapshotStrategy,
    Snapshots, Snapshottable, TimeBased, snapshot_store,
};
pub use store::{
    AppendCondition, Direction, EventFilter, EventStore, ExpectedVersion, LogPart, Matching,
    MemoryEventStore, Page, PartitionedLog, PostgresEventStore, ReadAllOptions, ReadOptions,
    SegmentSet, SqliteEventStore, StoreOptions, StreamAppend, TenantEventStore, event_store,
    event_store_with,
};
#[cfg(feature = "mongodb")]
pub use store::{MONGO_INDEXES, MongoEventStore, MongoIndexes, MongoOptions};
pub use stream_id::{SEGMENTS, StreamId};
pub use upcast::{UnknownEvents, Upcast, Upcasters};

/// What [`domain_events!`] writes uses.
#[doc(hidden)]
pub mod __private {
    pub use potter_core::Json;
    pub use serde;

    /// The payload of an event that has none.
    #[derive(Debug, serde::Serialize)]
    pub struct Empty {}

    /// The error for an event that the code does not know.
    pub fn unknown_event(of: &str, event_type: &str, schema_version: u32) -> crate::Error {
        let message =
            format!("{of} has no event \"{event_type}\" of schema version {schema_version}");
        crate::Error::new(crate::ErrorKind::UnknownEvent, message)
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
