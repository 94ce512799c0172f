//! A saga's history for people: attempts of steps, with times.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::progress::EntryKind;
use crate::status::{SagaStatus, StepStatus};
use crate::store::{LogRecord, SagaRecord};

/// One attempt of one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StepHistory {
    /// The step.
    pub step_name: String,
    /// What became of this attempt.
    pub status: StepStatus,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended; `None` while it runs.
    pub completed_at: Option<DateTime<Utc>>,
    /// How long it took ("12.3ms").
    pub duration: Option<String>,
    /// The same in milliseconds.
    pub duration_ms: Option<i64>,
    /// Why it failed.
    pub error: Option<String>,
    /// It failed, and nobody knew then whether it had an effect: the next attempt asks first. In
    /// JSON only if it is so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub outcome_unknown: bool,
    /// 0 for the first attempt.
    pub retry_attempt: u32,
}

/// The attempts of all steps, in order; the one that is under way last.
pub fn step_history<'a>(
    record: &SagaRecord,
    log: &[LogRecord],
    step_names: impl IntoIterator<Item = &'a str>,
) -> Vec<StepHistory> {
    let mut history: Vec<_> = log.iter().filter_map(attempt).collect();
    let under_way = match record.status {
        SagaStatus::Pending | SagaStatus::Running => Some(StepStatus::Running),
        SagaStatus::Compensating => Some(StepStatus::Compensating),
        _ => None,
    };
    let name = step_names.into_iter().nth(record.step);
    if let (Some(status), Some(name), true) = (under_way, name, record.owner.is_some()) {
        history.push(StepHistory {
            step_name: name.to_owned(),
            status,
            started_at: record.updated_at,
            completed_at: None,
            duration: None,
            duration_ms: None,
            error: None,
            outcome_unknown: false,
            retry_attempt: record.attempt,
        });
    }
    history
}

fn attempt(record: &LogRecord) -> Option<StepHistory> {
    let entry = &record.entry;
    let step_name = entry.step_name.clone()?;
    let status = match entry.kind {
        EntryKind::Completed => StepStatus::Completed,
        EntryKind::Undone => StepStatus::Compensated,
        EntryKind::UndoRetry => StepStatus::Compensating,
        _ => StepStatus::Failed,
    };
    let duration = std::time::Duration::from_micros(entry.duration_us.unsigned_abs());
    Some(StepHistory {
        step_name,
        status,
        started_at: record.started_at(),
        completed_at: Some(record.at),
        duration: Some(format!("{duration:?}")),
        duration_ms: Some(entry.duration_us / 1000),
        error: entry.error.clone(),
        outcome_unknown: entry.kind == EntryKind::Unknown,
        retry_attempt: entry.attempt.saturating_sub(1),
    })
}
