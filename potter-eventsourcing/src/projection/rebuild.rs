//! Blue/green: a read model is built anew beside the live one, and takes over.
//!
//! # Invariants
//! 1. The live read model is written and read all the time but for the moment of the switch, in
//!    which it is only read. A query that runs across it sees the old table to its end.
//! 2. The new one takes over in one transaction that holds the locks of all segments of both: its
//!    tables get the live names, and the live checkpoints become its own. So what follows is
//!    applied to it from exactly where it is.
//! 3. It is never behind the old one: checked under those locks. To get there in spite of load,
//!    the live one is held for the switch; the hold ends by itself, should this process die.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use potter_core::Tx;

use super::admin::{ProjectionAdmin, failed};
use super::checkpoints::no_such_projection;
use super::options::WorkerOptions;
use super::shadow::ShadowTable;
use super::status::ProjectionState;
use super::worker::Worker;
use super::{HandlerError, Projection};
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::store::{EventFilter, EventStore};

/// How long the live projection stands still at most, should the switch not come to its end.
const HOLD_MAX: Duration = Duration::from_secs(30);
const SWITCHES_MAX: u32 = 5;

/// A projection that can be built beside itself.
#[async_trait]
pub trait Rebuildable: Projection {
    /// Its tables.
    fn tables(&self) -> Vec<ShadowTable>;

    /// The same projection, writing to [`ShadowTable::next`] of each table.
    fn shadow(&self) -> Arc<dyn Projection>;

    /// Makes the empty shadow tables. Override it when they have other columns than the live ones.
    ///
    /// # Errors
    /// Whatever went wrong.
    async fn create_shadow(&self, tx: &mut Tx) -> Result<(), HandlerError> {
        for table in self.tables() {
            table.create_next(tx).await?;
        }
        Ok(())
    }
}

/// Rebuilds a read model beside the live one.
pub struct Rebuild {
    store: Arc<dyn EventStore>,
    projection: Arc<dyn Rebuildable>,
    admin: ProjectionAdmin,
    options: WorkerOptions,
    workers: usize,
}

/// What a rebuild did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebuilt {
    /// How many events the new read model was built from.
    pub handled: u64,
    /// Where it was when it took over: everything up to here is in it.
    pub position: u64,
}

impl std::fmt::Debug for Rebuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rebuild")
            .field("projection", &self.projection.name())
            .finish_non_exhaustive()
    }
}

/// The shadow under a name of its own, so that it has checkpoints of its own.
struct Next {
    name: String,
    shadow: Arc<dyn Projection>,
    version: u32,
}

#[async_trait]
impl Projection for Next {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn filter(&self) -> EventFilter {
        self.shadow.filter()
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        self.shadow.handle(tx, event).await
    }

    async fn handle_batch(
        &self,
        tx: &mut Tx,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        self.shadow.handle_batch(tx, events).await
    }
}

impl Rebuild {
    /// Of `projection`, on the default options and one worker.
    ///
    /// # Errors
    /// `Unsupported` when the store has no transactions for projections.
    pub fn new(store: Arc<dyn EventStore>, projection: Arc<dyn Rebuildable>) -> Result<Self> {
        let admin = ProjectionAdmin::new(Arc::clone(&store))?;
        Ok(Self { store, projection, admin, options: WorkerOptions::default(), workers: 1 })
    }

    /// Sets the options of its workers (not the segments: they are those of the projection).
    #[must_use]
    pub fn options(mut self, options: WorkerOptions) -> Self {
        self.options = options;
        self
    }

    /// How many workers build it.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Builds it, lets it take over, and returns. What a rebuild that was given up left behind is
    /// thrown away first.
    ///
    /// # Errors
    /// `NotFound` when the projection never ran; `Conflict` when another process rebuilds it;
    /// `Handler` when the new code fails on an event: the live read model is as it was;
    /// `Unsupported` in memory.
    pub async fn run(self) -> Result<Rebuilt> {
        let next = self.prepare().await?;
        let live = self.projection.name();
        // Once for the bulk, once for what came meanwhile.
        let mut handled = self.catch_up(&next).await? + self.catch_up(&next).await?;
        for _ in 0..SWITCHES_MAX {
            self.admin.set_state(live, ProjectionState::Switching, Some(HOLD_MAX)).await?;
            let switched = async {
                handled += self.catch_up(&next).await?;
                self.switch(&next).await
            };
            match switched.await {
                Ok(Some(position)) => return Ok(Rebuilt { handled, position }),
                Ok(None) => {}
                Err(error) => {
                    self.admin.resume(live).await?;
                    return Err(error);
                }
            }
        }
        self.admin.resume(live).await?;
        let message = format!("the rebuilt {live} did not get ahead of the live one: try again");
        Err(Error::new(ErrorKind::Conflict, message))
    }

    async fn prepare(&self) -> Result<Arc<Next>> {
        let live = self.projection.name();
        let checkpoints = self.admin.checkpoints();
        if checkpoints.registered(live).await?.is_none() {
            return Err(no_such_projection(live));
        }
        let name = format!("{live}~next");
        if checkpoints.registered(&name).await?.is_some_and(|found| found.at_work) {
            let message = format!("another process rebuilds the projection {live}");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let mut tx = self.begin().await?;
        checkpoints.lock_in(&mut tx, &name).await?;
        checkpoints.forget_in(&mut tx, &name).await?;
        self.projection
            .create_shadow(&mut tx)
            .await
            .map_err(|error| failed(live, "could not make its shadow tables", error))?;
        tx.commit().await?;
        let (shadow, version) = (self.projection.shadow(), self.projection.version());
        Ok(Arc::new(Next { name, shadow, version }))
    }

    async fn begin(&self) -> Result<Tx> {
        let none = || Error::new(ErrorKind::Unsupported, "the event store has no transactions");
        let database = self.store.database().ok_or_else(none)?;
        if database.engine() == potter_core::Engine::Memory {
            let message = "the memory database has no tables to swap: reset the projection instead";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(database.begin().await?)
    }

    async fn catch_up(&self, next: &Arc<Next>) -> Result<u64> {
        let found = self.admin.checkpoints().registered(self.projection.name()).await?;
        let segments = found.ok_or_else(|| no_such_projection(self.projection.name()))?.segments;
        let mut options = self.options.clone().segments(segments);
        options.partition = None;
        let workers = (0..self.workers).map(|_| {
            let projection = Arc::clone(next) as Arc<dyn Projection>;
            let worker = Worker::shared(Arc::clone(&self.store), projection);
            let options = options.clone();
            async move { worker?.options(options).catch_up().await }
        });
        let done = futures::future::try_join_all(workers).await?;
        Ok(done.iter().map(|done| done.handled).sum())
    }

    /// The switch. `None` when the live one is ahead: the hold ran out.
    async fn switch(&self, next: &Next) -> Result<Option<u64>> {
        let live = self.projection.name();
        let checkpoints = self.admin.checkpoints();
        let mut tx = self.begin().await?;
        let at = checkpoints.lock_in(&mut tx, live).await?;
        let next_at = checkpoints.lock_in(&mut tx, &next.name).await?;
        let behind = |((_, live), (_, next)): (&(u16, u64), &(u16, u64))| next < live;
        if at.len() != next_at.len() || at.iter().zip(&next_at).any(behind) {
            return Ok(None);
        }
        for table in self.projection.tables() {
            table.swap(&mut tx).await?;
        }
        checkpoints.adopt_in(&mut tx, &next.name, live).await?;
        tx.commit().await?;
        Ok(next_at.iter().map(|(_, position)| *position).min())
    }
}
