//! From an attempt's outcome to what is written. Pure: no I/O; the random number is an argument.

use std::time::Duration;

use potter_core::Json;

use crate::definition::{Definition, NodeKind};
use crate::outcome::{StepError, StepErrorKind};
use crate::progress::{EntryKind, LogEntry, Progress};

/// What is written after an attempt.
#[derive(Debug)]
pub(crate) struct Decision {
    /// In order; they are written together.
    pub(crate) entries: Vec<LogEntry>,
    /// The wait before the next attempt: the saga is given back until then.
    pub(crate) wait: Option<Duration>,
}

impl Decision {
    fn now(entries: Vec<LogEntry>) -> Self {
        Self { entries, wait: None }
    }
}

/// After running the step at the cursor. `uncertain`: an earlier attempt may have had an effect.
pub(crate) fn after_run(
    definition: &Definition,
    progress: &Progress,
    outcome: Result<Json, StepError>,
    uncertain: bool,
    took: Duration,
    random: f64,
) -> Decision {
    let node = &definition.nodes[progress.cursor];
    let entry = |kind| LogEntry {
        duration_us: i64::try_from(took.as_micros()).unwrap_or(i64::MAX),
        ..progress.step_entry(definition, kind)
    };
    let error = match outcome {
        Ok(output) => {
            return Decision::now(vec![LogEntry {
                output: Some(output),
                ..entry(EntryKind::Completed)
            }]);
        }
        Err(error) => error,
    };
    // What a local step did not commit did not happen.
    let open = matches!(error.kind, StepErrorKind::Unknown | StepErrorKind::ParkUncertain);
    let unknown = open && !node.options.local;
    let uncertain = uncertain || unknown;
    let failed = |kind| LogEntry { uncertain, error: Some(error.message.clone()), ..entry(kind) };

    match error.kind {
        StepErrorKind::Park | StepErrorKind::ParkUncertain => {
            Decision::now(vec![LogEntry { step_name: None, ..failed(EntryKind::Parked) }])
        }
        StepErrorKind::Rejected => {
            give_up(definition, progress, failed(EntryKind::Rejected), "rejected")
        }
        StepErrorKind::Retry | StepErrorKind::Unknown => {
            let kind = if unknown { EntryKind::Unknown } else { EntryKind::Retry };
            match node.options.backoff.delay(progress.attempts + 1, Duration::ZERO, random) {
                Some(wait) => Decision { entries: vec![failed(kind)], wait: Some(wait) },
                // After the pivot there is only forward: the last wait again, for ever.
                None if node.kind == NodeKind::Retriable => {
                    let wait = node.options.backoff.clone().unlimited().delay(
                        progress.attempts + 1,
                        Duration::ZERO,
                        1.0,
                    );
                    Decision { entries: vec![failed(kind)], wait }
                }
                None => give_up(definition, progress, failed(kind), "out of attempts"),
            }
        }
    }
}

/// Back if there is a way back, and otherwise a hand is needed.
fn give_up(definition: &Definition, progress: &Progress, failed: LogEntry, why: &str) -> Decision {
    let mut after = progress.clone();
    after.uncertain = failed.uncertain;
    let step = definition.nodes[progress.cursor].name;
    let reason = format!("step {step} {why}: {}", failed.error.as_deref().unwrap_or_default());
    let last = if after.can_compensate(definition) {
        after.saga_entry(EntryKind::Compensating, reason)
    } else {
        after.saga_entry(
            EntryKind::Parked,
            format!("{reason}; past the point of no return, resume it by hand"),
        )
    };
    Decision::now(vec![failed, last])
}

/// After undoing the step at the cursor.
pub(crate) fn after_undo(
    definition: &Definition,
    progress: &Progress,
    outcome: Result<(), StepError>,
    took: Duration,
    random: f64,
) -> Decision {
    let node = &definition.nodes[progress.cursor];
    let entry = |kind| LogEntry {
        duration_us: i64::try_from(took.as_micros()).unwrap_or(i64::MAX),
        ..progress.step_entry(definition, kind)
    };
    let error = match outcome {
        Ok(()) => return Decision::now(vec![entry(EntryKind::Undone)]),
        Err(error) => error,
    };
    let failed = LogEntry { error: Some(error.message.clone()), ..entry(EntryKind::UndoRetry) };
    let wait = node.options.undo_backoff.delay(progress.attempts + 1, Duration::ZERO, random);
    match wait {
        Some(wait) if !matches!(error.kind, StepErrorKind::Park | StepErrorKind::ParkUncertain) => {
            Decision { entries: vec![failed], wait: Some(wait) }
        }
        _ => {
            let reason = format!("step {} can't be undone: {}", node.name, error.message);
            let parked = progress.saga_entry(EntryKind::Parked, reason);
            Decision::now(vec![failed, parked])
        }
    }
}
