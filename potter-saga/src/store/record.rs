//! Rows as types.

use std::time::Duration;

use chrono::{DateTime, Utc};
use potter_core::{Json, Metadata};
use uuid::Uuid;

use crate::progress::LogEntry;
use crate::status::SagaStatus;

/// A saga to be stored.
#[derive(Clone, Debug)]
pub struct NewSaga {
    /// Its id.
    pub id: Uuid,
    /// Its definition's name.
    pub name: &'static str,
    /// Its definition's version.
    pub version: u32,
    /// A hash over its steps: a definition that was edited in place is noticed.
    pub definition_hash: String,
    /// Its idempotency key, unique within the name.
    pub key: String,
    /// A hash over its input, to tell a repeated start from a different one.
    pub input_hash: String,
    /// What it is started with.
    pub input: Json,
    /// Context.
    pub metadata: Metadata,
    /// How many steps it has.
    pub steps_total: usize,
    /// The time limit of the whole.
    pub timeout: Option<Duration>,
    /// The process that runs it from the start, if one does. Its fencing token is then 1.
    pub owner: Option<Uuid>,
}

/// A stored saga.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SagaRecord {
    /// Its id.
    pub id: Uuid,
    /// Its definition's name.
    pub name: String,
    /// Its definition's version.
    pub version: u32,
    /// A hash over its steps.
    pub definition_hash: String,
    /// Its idempotency key.
    pub key: String,
    /// What it was started with.
    pub input: Json,
    /// Context.
    pub metadata: Metadata,
    /// Where it is.
    pub status: SagaStatus,
    /// How many steps it has.
    pub steps_total: usize,
    /// The index of the step that it is at.
    pub step: usize,
    /// Failed attempts at that step.
    pub attempt: u32,
    /// The last error.
    pub error: Option<String>,
    /// Why it waits for a hand.
    pub parked: Option<String>,
    /// The pivot is done: it can't be cancelled.
    pub past_pivot: bool,
    /// It goes back, or would if it were not parked.
    pub compensating: bool,
    /// Someone asked to cancel it.
    pub cancel_requested: bool,
    /// The process that runs it.
    pub owner: Option<Uuid>,
    /// The fencing token of the last claim.
    pub fence: i64,
    /// When it is due next.
    pub wake_at: DateTime<Utc>,
    /// Until when it must have passed its pivot.
    pub deadline_at: Option<DateTime<Utc>>,
    /// When it was started.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// A log entry with its time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogRecord {
    /// What happened.
    pub entry: LogEntry,
    /// When it was written, on the database's clock.
    pub at: DateTime<Utc>,
}

impl LogRecord {
    /// When the attempt began.
    pub fn started_at(&self) -> DateTime<Utc> {
        self.at - chrono::Duration::microseconds(self.entry.duration_us)
    }
}
