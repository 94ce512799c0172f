//! What all stores share: what may be done to a saga by hand, and the words of errors.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Advance, Inserted, NewSaga, SagaRecord, UNKNOWN_VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{EntryKind, LogEntry};
use crate::status::SagaStatus;

/// Marks it as to be cancelled; answers whether it was parked and goes on now.
pub(super) fn cancel(record: &mut SagaRecord) -> Result<bool> {
    let id = record.id;
    if record.status == SagaStatus::Cancelled {
        return Ok(false);
    }
    if record.status.is_final() {
        let message = format!("saga {id} is {}: there is nothing to cancel", record.status);
        return Err(Error::new(ErrorKind::InvalidState, message));
    }
    if record.past_pivot {
        let message = format!("saga {id} is past its point of no return and will be completed");
        return Err(Error::new(ErrorKind::InvalidState, message));
    }
    record.cancel_requested = true;
    let parked = record.status == SagaStatus::Failed;
    if parked {
        unpark(record);
    }
    Ok(parked)
}

/// Lets it go on now; answers whether it was parked.
pub(super) fn resume(record: &mut SagaRecord) -> Result<bool> {
    if record.status.is_final() {
        let message =
            format!("saga {} is {}: there is nothing to resume", record.id, record.status);
        return Err(Error::new(ErrorKind::InvalidState, message));
    }
    let parked = record.status == SagaStatus::Failed;
    if parked {
        unpark(record);
    }
    Ok(parked)
}

pub(super) fn unpark(record: &mut SagaRecord) {
    record.parked = None;
    record.attempt = 0;
    record.status =
        if record.compensating { SagaStatus::Compensating } else { SagaStatus::Running };
}

pub(super) fn resumed_entry(record: &SagaRecord) -> LogEntry {
    whole_entry(record, EntryKind::Resumed, None)
}

pub(super) fn whole_entry(record: &SagaRecord, kind: EntryKind, error: Option<String>) -> LogEntry {
    LogEntry {
        kind,
        step: record.step,
        step_name: None,
        attempt: record.attempt,
        uncertain: false,
        output: None,
        error,
        duration_us: 0,
    }
}

/// When it is due again: after the wait, but not later than a deadline that still counts.
pub(super) fn wake(
    now: DateTime<Utc>,
    wait: Duration,
    deadline: Option<DateTime<Utc>>,
) -> DateTime<Utc> {
    let at = now + wait;
    deadline.map_or(at, |deadline| at.min(deadline))
}

pub(super) fn unknown_version(record: &SagaRecord) -> String {
    format!(
        "{UNKNOWN_VERSION}: no process here has version {} of saga \"{}\" registered; it goes on when one has",
        record.version, record.name
    )
}

/// What a start with a key that was used before comes to.
pub(super) fn existing_id(saga: &NewSaga, id: Uuid, input_hash: &str) -> Result<Inserted> {
    if input_hash == saga.input_hash {
        return Ok(Inserted::Existing(id));
    }
    let message = format!(
        "the key \"{}\" was used before to start saga \"{}\" with another input: use a new key",
        saga.key, saga.name
    );
    Err(Error::new(ErrorKind::KeyReused, message))
}

pub(super) fn id_taken(saga: &NewSaga) -> Error {
    let message = format!(
        "saga {} is another one, or the one with key \"{}\" was removed at the same moment",
        saga.id, saga.key
    );
    Error::new(ErrorKind::Conflict, message)
}

pub(super) fn fenced(advance: &Advance) -> Error {
    let message = format!(
        "saga {} was taken over by another process (token {} is not the last): nothing was written",
        advance.saga_id, advance.fence
    );
    Error::new(ErrorKind::Fenced, message)
}

pub(super) fn not_found(id: Uuid) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no saga {id}"))
}
