//! Where sagas are kept.
//!
//! # Invariants
//! 1. A saga is advanced only by the process that claimed it last: every write carries the
//!    fencing token of its claim and changes nothing when that has moved on.
//! 2. An advance and the step's own transaction commit together or not at all.
//! 3. A saga that is not final and not parked is claimed again some time after its owner is gone.
//!
//! Interleavings that could break them: an owner is paused inside a step, loses its lease, its
//! saga is claimed and finished elsewhere, then it commits: the advance is the transaction's last
//! statement, finds a higher token and the transaction is rolled back. Two processes claim at
//! once: the claim locks rows and skips locked ones. A list of due sagas grows old: there is no
//! list, claiming is one statement. A process starts again under the same configuration: its id
//! is new at each start.

mod memory;
mod record;
mod rules;
mod sql;
mod sql_claim;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use potter_core::{Database, Engine, Json, Tx};
use uuid::Uuid;

pub use memory::MemorySagaStore;
pub use record::{LogRecord, NewSaga, SagaRecord};
pub use sql::{MIGRATIONS, SqlSagaStore};

use crate::error::Result;
use crate::progress::LogEntry;
use crate::status::SagaStatus;

/// What came of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is new.
    Created,
    /// The key was used before with the same input: this is that saga.
    Existing(Uuid),
}

/// Which sagas a process asks for.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The process.
    pub node: Uuid,
    /// The names and versions that it can run.
    pub registered: Vec<(&'static str, u32)>,
    /// Sagas of its own that it knows to have lost (a write failed): they are due.
    pub lost: Vec<Uuid>,
    /// Those that it was running when it made the request. A saga of its own that is not among
    /// them, and was not touched for [`UNNOTICED`], was lost without its notice: it is due too.
    /// The time is for those that it has begun since.
    pub running: Vec<Uuid>,
    /// How many at most.
    pub limit: u32,
}

/// See [`ClaimRequest::running`]. Longer than a request may wait for a connection.
pub const UNNOTICED: Duration = Duration::from_secs(30);

/// A claimed saga.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The saga, with its new fencing token.
    pub record: SagaRecord,
    /// It had an owner that is gone: the step at its cursor may have been under way.
    pub taken_over: bool,
    /// Its log, in order.
    pub log: Vec<LogEntry>,
    /// It is past its deadline.
    pub overdue: bool,
}

/// What changes with one advance.
#[derive(Clone, Debug)]
pub struct Advance {
    /// The saga.
    pub saga_id: Uuid,
    /// The token of the claim.
    pub fence: i64,
    /// Rows in the log before this.
    pub seq: i64,
    /// What happened, in order.
    pub entries: Vec<LogEntry>,
    /// The status after it.
    pub status: SagaStatus,
    /// The step at the cursor after it.
    pub step: usize,
    /// Failed attempts at that step.
    pub attempt: u32,
    /// The pivot is done.
    pub past_pivot: bool,
    /// It goes back.
    pub compensating: bool,
    /// Why it waits for a hand.
    pub parked: Option<String>,
    /// The last error, kept for display.
    pub error: Option<String>,
    /// Give it back, due again after this wait. `None` keeps it (final and parked ones are
    /// always given back).
    pub release_after: Option<Duration>,
}

/// What an advance learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advanced {
    /// Someone asked to cancel it.
    pub cancel_requested: bool,
    /// It is past its deadline.
    pub overdue: bool,
}

/// What to list. Everything that is set must match.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SagaFilter {
    /// Only in this status.
    pub status: Option<SagaStatus>,
    /// Only of this name.
    pub name: Option<String>,
    /// Only of this version of the definition.
    pub version: Option<u32>,
    /// Only those that are not at their end: parked ones too.
    pub unfinished: bool,
    /// Only with this correlation id.
    pub correlation_id: Option<String>,
    /// At most so many (500 at most).
    pub limit: u32,
    /// After leaving out so many.
    pub offset: u32,
}

impl Default for SagaFilter {
    fn default() -> Self {
        Self {
            status: None,
            name: None,
            version: None,
            unfinished: false,
            correlation_id: None,
            limit: 50,
            offset: 0,
        }
    }
}

impl SagaFilter {
    pub(crate) const LIMIT_MAX: u32 = 500;

    /// All sagas, 50 at a time.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only in this status.
    #[must_use]
    pub fn status(mut self, status: SagaStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// Only of this name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only of this version of the definition.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = Some(version);
        self
    }

    /// Only those that are not at their end: parked ones too.
    #[must_use]
    pub fn unfinished(mut self) -> Self {
        self.unfinished = true;
        self
    }

    /// Only with this correlation id.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// So many at most (500 at most), after leaving out `offset`.
    #[must_use]
    pub fn page(mut self, limit: u32, offset: u32) -> Self {
        (self.limit, self.offset) = (limit, offset);
        self
    }
}

/// A backend for sagas. Implement it to keep sagas elsewhere, and run
/// `testing::conformance` on it.
#[async_trait]
pub trait SagaStore: Send + Sync + 'static {
    /// Creates or updates the tables.
    async fn migrate(&self) -> Result<()>;

    /// Where steps get their transactions from.
    fn database(&self) -> &Database;

    /// Stores a new saga, in the caller's transaction if one is given.
    ///
    /// # Errors
    /// `KeyReused` when the key was used with another input.
    async fn insert(&self, tx: Option<&mut Tx>, saga: &NewSaga) -> Result<Inserted>;

    /// How many sagas are due, at most the request's limit. Only a look: another process may
    /// take them first.
    async fn due(&self, request: &ClaimRequest) -> Result<u32>;

    /// Takes due sagas; see [`ClaimRequest`].
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>>;

    /// Writes what happened and commits it together with `tx`.
    ///
    /// # Errors
    /// `Fenced` when another process has taken the saga over: nothing is written, `tx` is rolled
    /// back. `Unknown` when no answer came: claim it again to learn what is there.
    async fn advance(&self, tx: Option<Tx>, advance: &Advance) -> Result<Advanced>;

    /// Says that the process `node` lives for another `ttl`.
    async fn heartbeat(&self, node: Uuid, ttl: Duration) -> Result<()>;

    /// Says that it does not any more. Its sagas are due; with `clean`, none was under way.
    async fn retire(&self, node: Uuid, clean: bool) -> Result<()>;

    /// Parks due sagas of a registered name whose version is not, and that no one has taken for
    /// `grace`; puts those back that were parked so and can be run now. Answers how many were
    /// parked.
    async fn park_unknown(
        &self,
        registered: &[(&'static str, u32)],
        grace: Duration,
    ) -> Result<u64>;

    /// Asks for a saga to be cancelled.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` when it is finished or past its pivot.
    async fn request_cancel(&self, id: Uuid) -> Result<()>;

    /// Lets a parked saga go on, or one that waits for its next attempt go on now.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` when it is finished.
    async fn resume(&self, id: Uuid) -> Result<()>;

    /// The saga with this id.
    async fn get(&self, id: Uuid) -> Result<Option<SagaRecord>>;

    /// Its log, in order.
    async fn log(&self, id: Uuid) -> Result<Vec<LogRecord>>;

    /// Sagas, newest first, and how many match in all.
    async fn list(&self, filter: &SagaFilter) -> Result<(Vec<SagaRecord>, u64)>;

    /// Removes up to `limit` finished sagas that ended before `before`; answers how many.
    async fn purge(&self, before: DateTime<Utc>, limit: u32) -> Result<u64>;
}

/// The store for a database, whatever its engine.
pub fn saga_store(database: &Database) -> Arc<dyn SagaStore> {
    match database.engine() {
        Engine::Memory => Arc::new(MemorySagaStore::new(database.clone())),
        _ => Arc::new(SqlSagaStore::new(database.clone())),
    }
}

/// Reason word of sagas that were parked because no process knows their version.
pub(crate) const UNKNOWN_VERSION: &str = "unknown version";

pub(crate) fn saga_json(entries: &[LogEntry]) -> Result<Json> {
    #[derive(serde::Serialize)]
    struct Row<'a> {
        kind: &'a str,
        step: usize,
        step_name: Option<&'a str>,
        attempt: u32,
        uncertain: bool,
        output: Option<&'a Json>,
        error: Option<&'a str>,
        duration_us: i64,
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| Row {
            kind: entry.kind.as_str(),
            step: entry.step,
            step_name: entry.step_name.as_deref(),
            attempt: entry.attempt,
            uncertain: entry.uncertain,
            output: entry.output.as_ref(),
            error: entry.error.as_deref(),
            duration_us: entry.duration_us,
        })
        .collect();
    Ok(Json::of(&rows)?)
}
