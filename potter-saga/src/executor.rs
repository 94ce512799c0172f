//! Runs one claimed saga until it rests, waits or is lost.
//!
//! # Invariant
//! What a step did is written before the next step begins, under the fencing token of the claim.
//! When the write fails the saga in memory is dropped, never guessed at: it is claimed again and
//! rebuilt from the log, and a step that may have run by then counts as uncertain.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use potter_core::{Json, Metadata, Tx, jitter};
use tokio_util::sync::CancellationToken;

use crate::decide::{self, Decision};
use crate::definition::{Definition, Node};
use crate::error::{Error, ErrorKind};
use crate::outcome::{Probe, StepError};
use crate::progress::{Action, EntryKind, Progress};
use crate::status::SagaStatus;
use crate::step::{Direction, StepContext};
use crate::store::{Advance, Claimed, SagaStore};

/// A saga that this process runs.
pub(crate) struct Owned {
    pub(crate) definition: Arc<Definition>,
    pub(crate) progress: Progress,
    pub(crate) fence: i64,
    pub(crate) metadata: Metadata,
    pub(crate) cancel_requested: bool,
    /// It was told so once; the request stays set in the store.
    pub(crate) cancel_refused: bool,
    pub(crate) overdue: bool,
    /// The definition is not the one that the saga was started with.
    pub(crate) edited: bool,
}

impl Owned {
    /// Rebuilds a claimed saga from its log.
    pub(crate) fn from_claim(definition: Arc<Definition>, claimed: Claimed) -> Self {
        let Claimed { record, taken_over, log, overdue } = claimed;
        let edited = record.definition_hash != definition.hash;
        let mut progress = Progress::new(record.id, record.input, definition.nodes.len());
        let cancel_refused = log.iter().any(|entry| entry.kind == EntryKind::CancelRefused);
        let cancel_requested = record.cancel_requested && !cancel_refused;
        if edited {
            progress.seq = i64::try_from(log.len()).unwrap_or(i64::MAX);
            progress.cursor = record.step.min(definition.nodes.len());
        } else {
            for entry in &log {
                progress.apply(&definition, entry);
            }
            let under_way = taken_over && progress.direction == Direction::Forward;
            let local = definition.nodes.get(progress.cursor).is_none_or(|node| node.options.local);
            progress.uncertain |= under_way && !local;
        }
        let fence = record.fence;
        Self {
            definition,
            progress,
            fence,
            metadata: record.metadata,
            cancel_requested,
            cancel_refused,
            overdue,
            edited,
        }
    }
}

/// Why the executor stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Final or parked.
    AtRest(SagaStatus),
    /// Given back until its next attempt.
    Waiting(Duration),
    /// The process is shutting down, or can't be sure that it still lives in others' eyes.
    Interrupted,
    /// Another process has it.
    Fenced,
    /// The store failed: what is there must be read again.
    Lost,
}

pub(crate) struct Executor {
    pub(crate) store: Arc<dyn SagaStore>,
    pub(crate) draining: CancellationToken,
    pub(crate) alive: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// An attempt that is over, with the transaction to commit if it went well.
struct Attempt<T> {
    outcome: Result<T, StepError>,
    tx: Option<Tx>,
    uncertain: bool,
    took: Duration,
}

impl Executor {
    pub(crate) async fn drive(&self, saga: &mut Owned) -> Left {
        loop {
            if self.draining.is_cancelled() || !(self.alive)() {
                return Left::Interrupted;
            }
            let written = match self.turn(saga) {
                Some(decision) => self.write(saga, decision, None).await,
                None => match saga.progress.next() {
                    Action::Rest => return Left::AtRest(saga.progress.status),
                    Action::Run { step, ask_first } => self.run(saga, step, ask_first).await,
                    Action::Undo { step } => self.undo(saga, step).await,
                },
            };
            match written {
                Ok(Some(wait)) => return Left::Waiting(wait),
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Fenced => {
                    tracing::warn!(saga_id = %saga.progress.saga_id, %error, "lost a saga to another process");
                    return Left::Fenced;
                }
                Err(error) => {
                    tracing::warn!(saga_id = %saga.progress.saga_id, %error, "a saga's progress could not be written");
                    return Left::Lost;
                }
            }
        }
    }

    /// What must happen before any step: an edited definition, a cancellation, a deadline.
    fn turn(&self, saga: &Owned) -> Option<Decision> {
        let (definition, progress) = (&saga.definition, &saga.progress);
        let entry = if saga.edited {
            if progress.status == SagaStatus::Failed {
                return None;
            }
            let message = format!(
                "the definition of version {} of saga \"{}\" was edited: give the edited one a new version",
                definition.version, definition.name
            );
            progress.saga_entry(EntryKind::Parked, message)
        } else if progress.next() == Action::Rest || progress.direction == Direction::Backward {
            return None;
        } else if saga.cancel_requested && progress.can_compensate(definition) {
            progress.saga_entry(EntryKind::Cancelling, "cancelled on request")
        } else if saga.cancel_requested && progress.past_pivot(definition) {
            progress
                .saga_entry(EntryKind::CancelRefused, "the request to cancel came after the pivot")
        } else if saga.overdue && progress.can_compensate(definition) {
            progress.saga_entry(EntryKind::Compensating, "the time limit of the saga is over")
        } else {
            return None;
        };
        Some(Decision { entries: vec![entry], wait: None })
    }

    async fn run(
        &self,
        saga: &mut Owned,
        step: usize,
        ask_first: bool,
    ) -> Result<Option<Duration>, Error> {
        let definition = Arc::clone(&saga.definition);
        let node = &definition.nodes[step];
        let attempt = self.attempt_run(saga, node, ask_first).await;
        observe(&definition, node, "run", &attempt);
        let Attempt { outcome, tx, uncertain, took } = attempt;
        let decision =
            decide::after_run(&definition, &saga.progress, outcome, uncertain, took, jitter());
        let done = decision.entries.first().is_some_and(|entry| entry.kind == EntryKind::Completed);
        match self.write(saga, decision, tx.filter(|_| done)).await {
            Err(error) if done && definitely_not_written(&error) => {
                // The commit itself was refused (a deferred constraint, a serialization
                // failure): it counts as a failed attempt of the step.
                let failed = if node.options.local {
                    StepError::retry(&error)
                } else {
                    StepError::unknown(&error)
                };
                let again = decide::after_run(
                    &definition,
                    &saga.progress,
                    Err(failed),
                    uncertain,
                    took,
                    jitter(),
                );
                self.write(saga, again, None).await
            }
            written => written,
        }
    }

    async fn attempt_run(&self, saga: &Owned, node: &Node, ask_first: bool) -> Attempt<Json> {
        let began = Instant::now();
        let mut cx = self.context(saga, node, Direction::Forward);
        let outputs = &saga.progress.outputs;
        let mut uncertain = ask_first;
        if ask_first {
            let asked = guarded(node, node.step.probe(&mut cx, outputs)).await;
            let settled = match asked {
                Ok(Probe::Done(output)) => Some(Ok(output)),
                Ok(Probe::RunAgain) => None,
                Ok(Probe::NotDone) => {
                    uncertain = false;
                    None
                }
                Err(error) => Some(Err(StepError::unknown(format!(
                    "its outcome can't be found out: {error}"
                )))),
            };
            if let Some(outcome) = settled {
                return Attempt { outcome, tx: cx.tx.take(), uncertain, took: began.elapsed() };
            }
            cx = self.context(saga, node, Direction::Forward);
        }
        let outcome = guarded(node, node.step.run(&mut cx, outputs)).await;
        Attempt { outcome, tx: cx.tx.take(), uncertain, took: began.elapsed() }
    }

    async fn undo(&self, saga: &mut Owned, step: usize) -> Result<Option<Duration>, Error> {
        let definition = Arc::clone(&saga.definition);
        let node = &definition.nodes[step];
        let began = Instant::now();
        let mut cx = self.context(saga, node, Direction::Backward);
        let output = saga.progress.recorded_output(step);
        let outcome = guarded(node, node.step.undo(&mut cx, &saga.progress.outputs, output)).await;
        let attempt =
            Attempt { outcome, tx: cx.tx.take(), uncertain: false, took: began.elapsed() };
        observe(&definition, node, "undo", &attempt);
        let Attempt { outcome, tx, took, .. } = attempt;
        let done = outcome.is_ok();
        let decision = decide::after_undo(&definition, &saga.progress, outcome, took, jitter());
        match self.write(saga, decision, tx.filter(|_| done)).await {
            Err(error) if done && definitely_not_written(&error) => {
                let failed = Err(StepError::retry(&error));
                let again = decide::after_undo(&definition, &saga.progress, failed, took, jitter());
                self.write(saga, again, None).await
            }
            written => written,
        }
    }

    fn context(&self, saga: &Owned, node: &Node, direction: Direction) -> StepContext {
        StepContext {
            store: Arc::clone(&self.store),
            tx: None,
            saga_id: saga.progress.saga_id,
            step_name: node.name,
            direction,
            attempt: saga.progress.attempts + 1,
            fence: saga.fence,
            metadata: saga.metadata.clone(),
            reason: saga.progress.reason.clone(),
        }
    }

    /// Writes what was decided, together with the step's transaction; then, and only then, it
    /// is true in memory too. Answers the wait if the saga was given back.
    async fn write(
        &self,
        saga: &mut Owned,
        decision: Decision,
        tx: Option<Tx>,
    ) -> Result<Option<Duration>, Error> {
        let mut after = saga.progress.clone();
        if saga.edited {
            after.status = SagaStatus::Failed;
            after.seq += 1;
        } else {
            for entry in &decision.entries {
                after.apply(&saga.definition, entry);
            }
        }
        let advance = advance_of(saga, &after, &decision);
        let advanced = self.store.advance(tx, &advance).await?;
        saga.progress = after;
        saga.cancel_refused |=
            decision.entries.iter().any(|entry| entry.kind == EntryKind::CancelRefused);
        saga.cancel_requested = advanced.cancel_requested && !saga.cancel_refused;
        saga.overdue = advanced.overdue;
        Ok(decision.wait)
    }
}

fn advance_of(saga: &Owned, after: &Progress, decision: &Decision) -> Advance {
    let parked = decision.entries.iter().find(|entry| entry.kind == EntryKind::Parked);
    Advance {
        saga_id: after.saga_id,
        fence: saga.fence,
        seq: saga.progress.seq,
        entries: decision.entries.clone(),
        status: after.status,
        step: after.cursor,
        attempt: after.attempts,
        past_pivot: after.past_pivot(&saga.definition),
        compensating: after.direction == Direction::Backward,
        parked: parked.and_then(|entry| entry.error.clone()),
        error: decision.entries.iter().rev().find_map(|entry| entry.error.clone()),
        release_after: decision.wait,
    }
}

/// The database answered that it did not commit.
fn definitely_not_written(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::InvalidInput)
}

/// With the step's time limit, and a panic contained.
async fn guarded<T>(
    node: &Node,
    work: impl Future<Output = Result<T, StepError>> + Send,
) -> Result<T, StepError> {
    let limit = node.options.timeout;
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => Err(StepError::park_uncertain(format!(
            "step {} panicked: {}",
            node.name,
            panic_text(panic.as_ref())
        ))),
        Err(_) => Err(StepError::unknown(format!("no answer within {limit:?}"))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn observe<T>(definition: &Definition, node: &Node, direction: &'static str, attempt: &Attempt<T>) {
    let outcome = match &attempt.outcome {
        Ok(_) => "done",
        Err(error) => match error.kind {
            crate::outcome::StepErrorKind::Rejected => "rejected",
            crate::outcome::StepErrorKind::Retry => "retry",
            crate::outcome::StepErrorKind::Unknown => "unknown",
            _ => "parked",
        },
    };
    metrics::histogram!("potter_saga_step_duration_seconds", "saga" => definition.name, "step" => node.name,
        "direction" => direction, "outcome" => outcome)
    .record(attempt.took.as_secs_f64());
    if let Err(error) = &attempt.outcome {
        tracing::info!(saga = definition.name, step = node.name, direction, outcome, %error, "a step is not done");
    }
}
