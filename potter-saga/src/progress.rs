//! The state of one saga as the fold of its log, and what to do next. Pure: no I/O, no clock.
//!
//! # Invariants
//! 1. What the log says is true: a step is done only if its output is in the log.
//! 2. A step whose effect may be there without a record is `uncertain`; the saga never goes back
//!    past an uncertain step without undoing it, and never passes over an uncertain pivot.
//! 3. Steps are undone in the reverse of the order in which they were done, each until its undo
//!    is in the log.

use potter_core::Json;
use uuid::Uuid;

use crate::definition::{Definition, NodeKind};
use crate::flow::Outputs;
use crate::status::SagaStatus;
use crate::step::Direction;

/// What happened: one row of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// What.
    pub kind: EntryKind,
    /// The step's index; for entries about the whole saga the one that it was at.
    pub step: usize,
    /// The step's name; `None` for entries about the whole saga.
    pub step_name: Option<String>,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// From here on an effect of this step may be there without a record of it.
    pub uncertain: bool,
    /// The step's output, when it is done.
    pub output: Option<Json>,
    /// Why not, when it is not.
    pub error: Option<String>,
    /// How long the attempt took, in microseconds.
    pub duration_us: i64,
}

/// Kinds of log entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// A step is done.
    Completed,
    /// An attempt had no effect and is made again.
    Retry,
    /// The outcome of an attempt is not known.
    Unknown,
    /// A step was refused for good.
    Rejected,
    /// From here on steps are undone.
    Compensating,
    /// The same, because the saga was cancelled.
    Cancelling,
    /// A cancellation came too late: the pivot is done.
    CancelRefused,
    /// A step is undone.
    Undone,
    /// An attempt to undo failed and is made again.
    UndoRetry,
    /// The saga waits for a hand.
    Parked,
    /// It goes on by hand.
    Resumed,
}

impl EntryKind {
    const ALL: [Self; 11] = [
        Self::Completed,
        Self::Retry,
        Self::Unknown,
        Self::Rejected,
        Self::Compensating,
        Self::Cancelling,
        Self::CancelRefused,
        Self::Undone,
        Self::UndoRetry,
        Self::Parked,
        Self::Resumed,
    ];

    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Retry => "retry",
            Self::Unknown => "unknown",
            Self::Rejected => "rejected",
            Self::Compensating => "compensating",
            Self::Cancelling => "cancelling",
            Self::CancelRefused => "cancel_refused",
            Self::Undone => "undone",
            Self::UndoRetry => "undo_retry",
            Self::Parked => "parked",
            Self::Resumed => "resumed",
        }
    }

    /// The kind that a word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Run this step, after asking what became of an earlier attempt if that is open.
    Run { step: usize, ask_first: bool },
    /// Undo this step.
    Undo { step: usize },
    /// Nothing: it is finished or parked.
    Rest,
}

/// A saga in memory.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) saga_id: Uuid,
    pub(crate) status: SagaStatus,
    pub(crate) direction: Direction,
    /// Going forward: the step to run. Going back: the step to undo.
    pub(crate) cursor: usize,
    /// Failed attempts at the cursor.
    pub(crate) attempts: u32,
    pub(crate) uncertain: bool,
    pub(crate) outputs: Outputs,
    cancelled: bool,
    /// Why it goes back.
    pub(crate) reason: Option<String>,
    /// Rows in the log.
    pub(crate) seq: i64,
}

impl Progress {
    pub(crate) fn new(saga_id: Uuid, input: Json, steps: usize) -> Self {
        Self {
            saga_id,
            status: SagaStatus::Pending,
            direction: Direction::Forward,
            cursor: 0,
            attempts: 0,
            uncertain: false,
            outputs: Outputs { input, steps: vec![None; steps] },
            cancelled: false,
            reason: None,
            seq: 0,
        }
    }

    /// Takes in what happened.
    pub(crate) fn apply(&mut self, definition: &Definition, entry: &LogEntry) {
        self.seq += 1;
        match entry.kind {
            EntryKind::Completed => {
                if let Some(slot) = self.outputs.steps.get_mut(entry.step) {
                    *slot = entry.output.clone();
                }
                self.cursor = entry.step + 1;
                self.attempts = 0;
                self.uncertain = false;
                let all = self.cursor == definition.nodes.len();
                self.status = if all { SagaStatus::Completed } else { SagaStatus::Running };
            }
            EntryKind::Retry | EntryKind::Unknown | EntryKind::Rejected => {
                self.attempts += 1;
                self.uncertain = entry.uncertain;
                self.status = SagaStatus::Running;
            }
            EntryKind::Compensating | EntryKind::Cancelling => {
                self.cancelled |= entry.kind == EntryKind::Cancelling;
                self.direction = Direction::Backward;
                self.reason.clone_from(&entry.error);
                self.uncertain = entry.uncertain;
                let from = if entry.uncertain { self.cursor + 1 } else { self.cursor };
                self.go_back(definition, from);
            }
            EntryKind::Undone => self.go_back(definition, entry.step),
            EntryKind::UndoRetry => self.attempts += 1,
            EntryKind::CancelRefused => {}
            EntryKind::Parked => {
                self.status = SagaStatus::Failed;
                self.uncertain = entry.uncertain;
            }
            EntryKind::Resumed => {
                self.attempts = 0;
                self.status = match self.direction {
                    Direction::Forward => SagaStatus::Running,
                    Direction::Backward => SagaStatus::Compensating,
                };
            }
        }
    }

    /// Stands at the last step before `from` that has an undo, or ends.
    fn go_back(&mut self, definition: &Definition, from: usize) {
        self.attempts = 0;
        let undoable = |step: &usize| definition.nodes[*step].kind == NodeKind::Compensable;
        let from = from.min(definition.nodes.len());
        match (0..from).rev().find(undoable) {
            Some(step) => {
                self.cursor = step;
                self.status = SagaStatus::Compensating;
            }
            None if self.cancelled => self.status = SagaStatus::Cancelled,
            None => self.status = SagaStatus::Compensated,
        }
    }

    pub(crate) fn next(&self) -> Action {
        match (self.status, self.direction) {
            (SagaStatus::Pending | SagaStatus::Running, Direction::Forward) => {
                Action::Run { step: self.cursor, ask_first: self.uncertain }
            }
            (SagaStatus::Compensating, Direction::Backward) => Action::Undo { step: self.cursor },
            _ => Action::Rest,
        }
    }

    pub(crate) fn past_pivot(&self, definition: &Definition) -> bool {
        self.direction == Direction::Forward
            && definition.pivot().is_some_and(|pivot| self.cursor > pivot)
    }

    /// May it still go back? Not past the pivot, and not while the pivot itself is open.
    pub(crate) fn can_compensate(&self, definition: &Definition) -> bool {
        if self.direction == Direction::Backward || self.past_pivot(definition) {
            return false;
        }
        let at_pivot = definition.pivot() == Some(self.cursor);
        !(at_pivot && self.uncertain)
    }

    /// The output of the step at the cursor, when going back over a step that was recorded.
    pub(crate) fn recorded_output(&self, step: usize) -> Option<&Json> {
        self.outputs.steps.get(step).and_then(Option::as_ref)
    }

    /// An entry about the step at the cursor.
    pub(crate) fn step_entry(&self, definition: &Definition, kind: EntryKind) -> LogEntry {
        let name = definition.nodes.get(self.cursor).map(|node| node.name.to_owned());
        LogEntry {
            kind,
            step: self.cursor,
            step_name: name,
            attempt: self.attempts + 1,
            uncertain: false,
            output: None,
            error: None,
            duration_us: 0,
        }
    }

    /// An entry about the whole saga.
    pub(crate) fn saga_entry(&self, kind: EntryKind, reason: impl Into<String>) -> LogEntry {
        LogEntry {
            kind,
            step: self.cursor,
            step_name: None,
            attempt: self.attempts,
            uncertain: self.uncertain,
            output: None,
            error: Some(reason.into()),
            duration_us: 0,
        }
    }
}
