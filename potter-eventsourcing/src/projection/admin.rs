//! What people who run projections look at and do.

use std::sync::Arc;
use std::time::Duration;

use super::Projection;
use super::checkpoints::{CheckpointsAdmin, checkpoints_admin, no_such_projection};
use super::lag::waiting;
use super::parked::ParkedEvent;
use super::status::{ProjectionState, ProjectionStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::store::{EventFilter, EventStore};
use crate::stream_id::StreamId;
use potter_core::Database;

/// Lists projections, says how they are, and tells them what to do; from any process.
#[derive(Clone, Debug)]
pub struct ProjectionAdmin {
    store: DebugStore,
    database: Database,
    checkpoints: Arc<dyn CheckpointsAdmin>,
}

#[derive(Clone)]
struct DebugStore(Arc<dyn EventStore>);

impl std::fmt::Debug for DebugStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventStore")
    }
}

impl ProjectionAdmin {
    /// For the projections whose checkpoints are in the store's database.
    ///
    /// # Errors
    /// `Unsupported` when the store has no transactions for projections.
    pub fn new(store: Arc<dyn EventStore>) -> Result<Self> {
        let none = || {
            let message = "this event store keeps no checkpoints of projections";
            Error::new(ErrorKind::Unsupported, message)
        };
        let database = store.database().ok_or_else(none)?.clone();
        let checkpoints = checkpoints_admin(&database);
        Ok(Self { store: DebugStore(store), database, checkpoints })
    }

    pub(super) fn checkpoints(&self) -> &dyn CheckpointsAdmin {
        &*self.checkpoints
    }

    /// The names of the projections that ever ran.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn list(&self) -> Result<Vec<String>> {
        self.checkpoints.projections().await
    }

    /// How a projection is.
    ///
    /// # Errors
    /// `NotFound` when it never ran; `Unavailable` when the database is.
    pub async fn status(&self, projection: &str) -> Result<ProjectionStatus> {
        let registered = self.checkpoints.registered(projection).await?;
        let registered = registered.ok_or_else(|| no_such_projection(projection))?;
        let segments = self.checkpoints.segments(projection).await?;
        let head = self.store.0.head_position().await?;
        let (lag_events, oldest) =
            waiting(&*self.store.0, &self.database, projection, &segments).await?;
        let lag = match oldest {
            Some(oldest) => (self.database.now().await? - oldest).to_std().unwrap_or_default(),
            None => Duration::ZERO,
        };
        let lowest = segments.iter().map(|segment| segment.position).min().unwrap_or(0);
        Ok(ProjectionStatus {
            name: projection.to_owned(),
            state: registered.state,
            version: registered.version,
            position: if lag_events == 0 { head.max(lowest) } else { lowest },
            head,
            handled: segments.iter().map(|segment| segment.handled).sum(),
            lag_events,
            lag,
            parked: self.checkpoints.parked_count(projection).await?,
            segments,
        })
    }

    /// Waits until everything up to `position` is applied, `at_most` so long; answers whether it
    /// is. To read one's own writes: with the position that the append answered. A projection
    /// that never ran is waited for, too.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn wait_for(
        &self,
        projection: &str,
        position: u64,
        at_most: Duration,
    ) -> Result<bool> {
        const POLL_MIN: Duration = Duration::from_millis(2);
        const POLL_MAX: Duration = Duration::from_millis(50);
        let (began, mut poll) = (tokio::time::Instant::now(), POLL_MIN);
        loop {
            match self.status(projection).await {
                Ok(status) if status.position >= position => return Ok(true),
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let left = at_most.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            tokio::time::sleep(poll.min(left)).await;
            poll = (poll * 2).min(POLL_MAX);
        }
    }

    /// Makes it stand still. When this returns, no batch that began before is under way.
    ///
    /// # Errors
    /// `NotFound` when it never ran.
    pub async fn pause(&self, projection: &str) -> Result<()> {
        self.set_state(projection, ProjectionState::Paused, None).await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// `NotFound` when it never ran.
    pub async fn resume(&self, projection: &str) -> Result<()> {
        self.set_state(projection, ProjectionState::Running, None).await
    }

    pub(super) async fn set_state(
        &self,
        projection: &str,
        state: ProjectionState,
        at_most: Option<Duration>,
    ) -> Result<()> {
        let found = self.checkpoints.set_state(projection, state, at_most).await?;
        if found { Ok(()) } else { Err(no_such_projection(projection)) }
    }

    /// Lets segments that stopped in front of an event try it again; answers how many.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn resume_failed(&self, projection: &str) -> Result<u64> {
        self.checkpoints.clear_failures(projection).await
    }

    /// Empties the read model and begins again at the first event, in one transaction. Workers may
    /// be running. Until they have caught up, queries see a part.
    ///
    /// # Errors
    /// `NotFound` when it never ran; `Handler` when its `reset` failed.
    pub async fn reset(&self, projection: &dyn Projection) -> Result<()> {
        let name = projection.name();
        let mut tx = self.database.begin().await?;
        let at = self.checkpoints.lock_in(&mut tx, name).await?;
        if at.is_empty() {
            return Err(no_such_projection(name));
        }
        projection
            .reset(&mut tx)
            .await
            .map_err(|error| failed(name, "could not be reset", error))?;
        self.checkpoints.restart_in(&mut tx, name, projection.version()).await?;
        Ok(tx.commit().await?)
    }

    /// Forgets its checkpoints and parked events; the read model stays. Stop its workers first.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn forget(&self, projection: &str) -> Result<()> {
        let mut tx = self.database.begin().await?;
        self.checkpoints.lock_in(&mut tx, projection).await?;
        self.checkpoints.forget_in(&mut tx, projection).await?;
        Ok(tx.commit().await?)
    }

    /// Parked events with a position above `after`, in order, `limit` at most.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn parked(
        &self,
        projection: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<ParkedEvent>> {
        self.checkpoints.parked(projection, after, u64::from(limit)).await
    }

    /// Applies the parked events of a stream, in order, and takes them out, in one transaction;
    /// answers how many.
    ///
    /// # Errors
    /// `Handler` when one fails again (all stay parked); `Conflict` when others changed the same
    /// entries all the time.
    pub async fn retry_parked(
        &self,
        projection: &dyn Projection,
        stream: &StreamId,
    ) -> Result<u64> {
        let name = projection.name();
        for _ in 0..8 {
            // Read before the transaction: in memory there is one transaction at a time.
            let events = self.parked_events(name, stream).await?;
            let mut tx = self.database.begin().await?;
            // Nobody parks anything while the segments are locked.
            self.checkpoints.lock_in(&mut tx, name).await?;
            let now = self.checkpoints.parked_of_stream_in(&mut tx, name, stream.as_str()).await?;
            let positions: Vec<_> = now.iter().map(|one| one.global_position).collect();
            if !positions.iter().copied().eq(events.iter().map(|event| event.global_position)) {
                continue;
            }
            if events.is_empty() {
                return Ok(0);
            }
            let applied = projection.handle_batch(&mut tx, &events).await;
            applied.map_err(|error| failed(name, "failed again on parked events", error))?;
            let retried = self.checkpoints.unpark_in(&mut tx, name, &positions).await?;
            tx.commit().await?;
            return Ok(retried);
        }
        let message = format!("the parked events of {stream} changed all the time: try again");
        Err(Error::new(ErrorKind::Conflict, message))
    }

    /// Gives up on parked events: takes them out without applying them; answers how many.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn drop_parked(&self, projection: &str, positions: &[u64]) -> Result<u64> {
        let mut tx = self.database.begin().await?;
        let dropped = self.checkpoints.unpark_in(&mut tx, projection, positions).await?;
        tx.commit().await?;
        Ok(dropped)
    }

    async fn parked_events(&self, name: &str, stream: &StreamId) -> Result<Vec<RecordedEvent>> {
        let mut tx = self.database.begin().await?;
        let parked = self.checkpoints.parked_of_stream_in(&mut tx, name, stream.as_str()).await?;
        tx.rollback().await?;
        let mut events = Vec::with_capacity(parked.len());
        for one in parked {
            let page =
                self.store.0.read_page(one.global_position - 1, &EventFilter::all(), 1).await?;
            events.extend(page.events.into_iter().filter(|event| event.event_id == one.event_id));
        }
        Ok(events)
    }
}

pub(super) fn failed(name: &str, what: &str, source: super::HandlerError) -> Error {
    Error::with_source(
        ErrorKind::Handler,
        format!("the projection {name} {what}: {source}"),
        source,
    )
}
