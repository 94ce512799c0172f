//! Projections: read models that follow the log, each event applied once.
//!
//! # Invariants
//! 1. **Exactly once for the read model.** The read model's rows and the checkpoint of every
//!    segment that they came from are committed in one transaction. The checkpoint is moved
//!    first, by comparing it with where it is believed to be, so whoever is late waits for the
//!    row and then finds that it was moved: nothing is applied twice, whoever the worker is.
//! 2. **A worker that lost a segment cannot write.** Owner and fencing token are compared in the
//!    same statement. Leases (on the database's clock) only decide who may take over; a worker
//!    that was paused between its check and its commit holds the row's lock, so nobody takes over
//!    before that transaction has ended.
//! 3. **In order within a stream.** A stream is in one segment, a segment has one checkpoint, and
//!    events above it are not touched before those below. An event that fails stops its segment
//!    until it succeeds, is parked, or the projection is told to stop there.
//! 4. **Nothing is skipped.** A checkpoint moves only to a position up to which the store promises
//!    that the page was whole ([`Page::through`](crate::Page::through)).
//!
//! A projection has a fixed number of segments of the space of streams; a partition is a set of
//! segments, so the number of workers can change without losing a checkpoint. The checkpoint of
//! a segment without new events is written late (it would be a write for nothing): its worker
//! knows how far it has read, and a successor reads that part of its index again.
//!
//! The idea of segments is Axon's, that of a checkpoint in the read model's transaction Marten's;
//! the fencing token is Kleppmann's ("How to do distributed locking", 2016).

mod admin;
mod batch;
mod checkpoints;
mod follow;
mod inline;
mod lag;
mod membership;
mod options;
mod owned;
mod parked;
mod pool;
mod rebuild;
mod shadow;
mod status;
mod subscriber;
mod target;
mod upcasted;
mod worker;

use async_trait::async_trait;
use potter_core::Tx;

pub use admin::ProjectionAdmin;
pub use checkpoints::CheckpointStorage;
#[cfg(feature = "mongodb")]
pub(crate) use checkpoints::mongodb::MongoCheckpoints;
pub use follow::follow;
pub use inline::InlineEventStore;
pub use options::{OnFailure, WorkerOptions};
pub use parked::ParkedEvent;
pub use pool::{Running, WorkerPool};
pub use rebuild::{Rebuild, Rebuildable, Rebuilt};
pub use shadow::ShadowTable;
pub use status::{ProjectionState, ProjectionStatus, SegmentStatus};
pub use subscriber::Subscriber;
pub use upcasted::Upcasted;
pub use worker::{CaughtUp, Worker};

use crate::event::RecordedEvent;
use crate::store::EventFilter;

/// Why a handler failed. The text is kept with parked events: keep secrets out of it.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// A read model that is built from events.
///
/// ```
/// use async_trait::async_trait;
/// use potter_core::{Sql, Tx, values};
/// use potter_eventsourcing::{EventFilter, HandlerError, Projection, RecordedEvent};
///
/// struct Deposits;
///
/// const ADD: Sql = Sql::same(
///     "INSERT INTO deposits (account, count) VALUES ($1, 1)
///      ON CONFLICT (account) DO UPDATE SET count = deposits.count + 1",
/// );
///
/// #[async_trait]
/// impl Projection for Deposits {
///     fn name(&self) -> &str {
///         "deposits"
///     }
///
///     fn filter(&self) -> EventFilter {
///         EventFilter::all().event_types(["account.deposited"])
///     }
///
///     async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
///         tx.execute(ADD, values![event.stream_id.id()]).await?;
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// Names it, and its checkpoints: 1 to 200 bytes. Never changes.
    fn name(&self) -> &str;

    /// The version of the read model that this code writes: raise it when the tables or their
    /// meaning change. Code of another version than the read model's does not run: the newer one
    /// [rebuilds](Rebuild) it first, the older one stops then.
    fn version(&self) -> u32 {
        1
    }

    /// Which events it wants. The others are not even read.
    fn filter(&self) -> EventFilter {
        EventFilter::all()
    }

    /// Applies one event, as it was stored: for today's shape of old ones put the projection into
    /// [`Upcasted`]. `tx` also moves the checkpoint: do all writes through it, and nothing
    /// that it could not undo.
    ///
    /// # Errors
    /// Whatever went wrong: the transaction is rolled back, and the event tried again, parked or
    /// stopped at, as [`WorkerOptions`] say.
    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError>;

    /// Applies events that come one after the other, in one go: the way to speed. When it fails,
    /// the batch is split until the event that fails is found.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
    async fn handle_batch(
        &self,
        tx: &mut Tx,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        for event in events {
            self.handle(tx, event).await?;
        }
        Ok(())
    }

    /// Empties the read model, for [`ProjectionAdmin::reset`].
    ///
    /// # Errors
    /// By default, that it can't.
    async fn reset(&self, tx: &mut Tx) -> Result<(), HandlerError> {
        let _ = tx;
        Err(format!("the projection {} does not say how it is reset", self.name()).into())
    }
}
