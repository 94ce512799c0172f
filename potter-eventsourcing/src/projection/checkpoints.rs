//! Where projections keep how far they are, and whose the segments are.

mod memory;
#[cfg(feature = "mongodb")]
pub(crate) mod mongodb;
mod sql;
mod sql_admin;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use potter_core::{Database, Engine, Tx};
use uuid::Uuid;

use super::options::Partition;
use super::parked::ParkedEvent;
use super::status::{ProjectionState, SegmentStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;

/// A segment as its owner holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) segment: u16,
    pub(crate) position: u64,
    pub(crate) token: i64,
    /// Why it stands still.
    pub(crate) failure: Option<String>,
}

/// A move of a segment's checkpoint, `from` where it is believed to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) segment: u16,
    pub(crate) token: i64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// How many events were applied.
    pub(crate) handled: u64,
}

/// Who else is there, and whether there is work to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The live elastic workers, in order.
    pub(crate) elastic: Vec<Uuid>,
    pub(crate) state: ProjectionState,
    /// The version of the read model; `None` when nothing is known of the projection.
    pub(crate) version: Option<u32>,
}

/// What is kept of a projection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registered {
    pub(crate) state: ProjectionState,
    pub(crate) version: u32,
    pub(crate) segments: u16,
    /// Has it a live elastic worker?
    pub(crate) at_work: bool,
}

/// A worker, as the others see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerId<'a> {
    pub(crate) projection: &'a str,
    pub(crate) version: u32,
    pub(crate) id: Uuid,
}

/// The storage behind workers. What must hold is in the docs of the module above.
#[async_trait]
pub(crate) trait Checkpoints: fmt::Debug + Send + Sync + 'static {
    /// Makes the projection known; answers how many segments it has.
    async fn register(&self, projection: &str, version: u32, segments: Option<u16>) -> Result<u16>;

    /// Renews the worker's lease, and looks around.
    async fn heartbeat(
        &self,
        worker: WorkerId<'_>,
        partition: Option<Partition>,
        lease: Duration,
    ) -> Result<Membership>;

    /// Takes up to `at_most` segments that no live worker owns.
    async fn claim(
        &self,
        worker: WorkerId<'_>,
        partition: Option<Partition>,
        at_most: u16,
    ) -> Result<Vec<Claimed>>;

    /// What the worker owns.
    async fn owned(&self, worker: WorkerId<'_>) -> Result<Vec<Claimed>>;

    /// Gives segments up.
    async fn release(&self, worker: WorkerId<'_>, segments: &[u16]) -> Result<()>;

    /// Gives everything up, lease included.
    async fn leave(&self, worker: WorkerId<'_>) -> Result<()>;

    /// Moves checkpoints in `tx`: all of them, or `false` when one is not the worker's any more,
    /// not where it was believed, stopped, or the projection is held or of another version.
    async fn advance_in(&self, tx: &mut Tx, worker: WorkerId<'_>, moves: &[Move]) -> Result<bool>;

    /// The same in a transaction of its own.
    async fn advance(&self, worker: WorkerId<'_>, moves: &[Move]) -> Result<bool>;

    /// Stops a segment of the worker's where it is.
    async fn stop(&self, worker: WorkerId<'_>, at: &Claimed, failure: &str) -> Result<bool>;

    /// Sets events aside.
    async fn park_in(
        &self,
        tx: &mut Tx,
        projection: &str,
        events: &[(&RecordedEvent, u16)],
        error: &str,
        attempts: u32,
    ) -> Result<()>;

    /// Which of these streams have parked events.
    async fn parked_streams_in(
        &self,
        tx: &mut Tx,
        projection: &str,
        streams: &[&str],
    ) -> Result<Vec<String>>;

    /// The lowest checkpoint of all segments, and why the first stopped one stands still.
    async fn lowest(&self, projection: &str) -> Result<(u64, Option<String>)>;
}

/// What people who run projections do with the same storage.
#[async_trait]
pub(crate) trait CheckpointsAdmin: fmt::Debug + Send + Sync + 'static {
    async fn projections(&self) -> Result<Vec<String>>;

    /// `None` when there is no such projection.
    async fn registered(&self, projection: &str) -> Result<Option<Registered>>;

    async fn segments(&self, projection: &str) -> Result<Vec<SegmentStatus>>;

    /// Sets the state, and waits for batches that began before.
    async fn set_state(
        &self,
        projection: &str,
        state: ProjectionState,
        at_most: Option<Duration>,
    ) -> Result<bool>;

    /// Locks all segments until the transaction ends; answers where they are.
    async fn lock_in(&self, tx: &mut Tx, projection: &str) -> Result<Vec<(u16, u64)>>;

    /// Puts all segments back to the start, for code of `version`, and drops what is parked. They
    /// must be locked.
    async fn restart_in(&self, tx: &mut Tx, projection: &str, version: u32) -> Result<()>;

    /// Gives `to` the checkpoints, parked events and version of `from`, and forgets `from`. The
    /// segments of both must be locked.
    async fn adopt_in(&self, tx: &mut Tx, from: &str, to: &str) -> Result<()>;

    /// Lets stopped segments go on; answers how many.
    async fn clear_failures(&self, projection: &str) -> Result<u64>;

    /// Forgets a projection: checkpoints, workers, parked events.
    async fn forget_in(&self, tx: &mut Tx, projection: &str) -> Result<()>;

    /// The same where there are no transactions.
    async fn forget(&self, projection: &str) -> Result<()> {
        let message = format!("projection {projection} is forgotten in a transaction only");
        Err(Error::new(ErrorKind::Internal, message))
    }

    async fn parked(&self, projection: &str, after: u64, limit: u64) -> Result<Vec<ParkedEvent>>;

    async fn parked_count(&self, projection: &str) -> Result<u64>;

    async fn parked_of_stream_in(
        &self,
        tx: &mut Tx,
        projection: &str,
        stream: &str,
    ) -> Result<Vec<ParkedEvent>>;

    /// Takes parked events away; answers how many there were.
    async fn unpark_in(&self, tx: &mut Tx, projection: &str, positions: &[u64]) -> Result<u64>;
}

/// Checkpoints of a store that is in no [`Database`]: for subscribers.
#[derive(Clone, Debug)]
pub struct CheckpointStorage {
    pub(crate) checkpoints: Arc<dyn Checkpoints>,
    pub(crate) admin: Arc<dyn CheckpointsAdmin>,
}

#[cfg(feature = "mongodb")]
impl CheckpointStorage {
    pub(crate) fn new(storage: impl Checkpoints + CheckpointsAdmin + Clone) -> Self {
        Self { checkpoints: Arc::new(storage.clone()), admin: Arc::new(storage) }
    }
}

/// The storage in `database`.
pub(crate) fn checkpoints(database: &Database) -> Arc<dyn Checkpoints> {
    match database.engine() {
        Engine::Memory => Arc::new(memory::MemoryCheckpoints::new(database.clone())),
        _ => Arc::new(sql::SqlCheckpoints::new(database.clone())),
    }
}

/// The same, for people.
pub(crate) fn checkpoints_admin(database: &Database) -> Arc<dyn CheckpointsAdmin> {
    match database.engine() {
        Engine::Memory => Arc::new(memory::MemoryCheckpoints::new(database.clone())),
        _ => Arc::new(sql::SqlCheckpoints::new(database.clone())),
    }
}

/// The segments of a projection that is registered with `wanted`, where there are `found`.
fn same_segments(projection: &str, wanted: Option<u16>, found: u16) -> Result<u16> {
    match wanted {
        Some(wanted) if wanted != found => {
            let message = format!(
                "projection {projection} has {found} segments, not {wanted}: leave the number out, \
                 or forget the projection and build it anew"
            );
            Err(Error::new(ErrorKind::Config, message))
        }
        _ => Ok(found),
    }
}

/// Code of one version and a read model of another do not go together.
fn same_version(projection: &str, code: u32, found: u32) -> Result<()> {
    if code == found {
        return Ok(());
    }
    let what = if code < found {
        "a newer version has taken over: update this program"
    } else {
        "rebuild it, or reset it"
    };
    let message = format!(
        "the read model of projection {projection} is of version {found}, this code of version {code}: {what}"
    );
    Err(Error::new(ErrorKind::Config, message))
}

fn checked_segments(segments: u16) -> Result<u16> {
    crate::store::SegmentSet::new(segments, []).map(|set| set.count())
}

fn checked_name(projection: &str) -> Result<&str> {
    if projection.is_empty() || projection.len() > 200 || projection.contains('\0') {
        let message = format!(
            "a projection's name has 1 to 200 bytes and no NUL character; this one has {}",
            projection.len()
        );
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(projection)
}

pub(crate) fn no_such_projection(projection: &str) -> Error {
    let message = format!("there is no projection {projection}: it is made when it first runs");
    Error::new(ErrorKind::NotFound, message)
}
