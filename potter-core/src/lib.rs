#![doc = include_str!("../README.md")]

mod backoff;
pub mod bus;
mod clock;
mod database;
mod error;
mod id;
mod idempotency;
mod json;
mod lease;
mod metadata;
mod outbox;
mod schema;
mod signal;
#[cfg(feature = "telemetry")]
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod trace_context;

pub use backoff::{Backoff, jitter};
pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use database::{
    Column, Database, DatabaseOptions, Engine, Identifier, MemoryDatabase, MemoryTable, MemoryTx,
    Migration, MigrationState, MigrationStatus, Migrations, Row, Sql, SqlValue, Tx,
};
pub use error::{Error, ErrorKind, Result};
pub use id::{derived_id, new_id};
pub use idempotency::{Begun, IdempotencyStore, Ticket};
pub use json::Json;
pub use lease::Lease;
pub use metadata::Metadata;
pub use outbox::{
    InProcessBus, MessageBus, MessageHandler, Outbox, OutboxMessage, Relay, RelayOptions, Relayed,
};
pub use schema::{MIGRATIONS, migrate};
pub use signal::{Signal, Waiter};
pub use trace_context::TraceContext;

/// What stops a [`Relay`] and other long work: `tokio_util`'s own, so that no other version gets in
/// between.
pub use tokio_util::sync::CancellationToken;
/// What sagas, events, messages and leases are named by: the crate `uuid`'s.
pub use uuid::Uuid;
