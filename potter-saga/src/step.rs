//! Steps: what users write.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use potter_core::{Backoff, Metadata, Outbox, OutboxMessage, Tx, derived_id};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::outcome::{Probe, StepError};
use crate::store::SagaStore;

/// One step of a saga.
///
/// A step may be run more than once (after a crash, after an unknown outcome), always with the
/// same [`StepContext::idempotency_key`]. What it writes through [`StepContext::tx`] commits
/// together with the saga's progress: exactly once. What it does elsewhere must be idempotent
/// under that key.
#[async_trait]
pub trait Step: Send + Sync + 'static {
    /// Its name in the log, for ever: never derived from a Rust name.
    const NAME: &'static str;
    /// What it needs.
    type Input: Serialize + DeserializeOwned + Send + 'static;
    /// What later steps may use.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Does it.
    ///
    /// # Errors
    /// See [`StepError`]: rejected, retry or unknown.
    async fn run(
        &self,
        cx: &mut StepContext,
        input: Self::Input,
    ) -> Result<Self::Output, StepError>;

    /// Asks what became of an attempt with unknown outcome. By default the step is run again.
    ///
    /// # Errors
    /// As [`run`](Self::run); counted as a failed attempt.
    async fn probe(
        &self,
        cx: &mut StepContext,
        input: Self::Input,
    ) -> Result<Probe<Self::Output>, StepError> {
        let _ = (cx, input);
        Ok(Probe::RunAgain)
    }

    /// Time limit, retries, and whether all of its effects are in the database.
    fn options(&self) -> StepOptions {
        StepOptions::default()
    }
}

/// A step that can be undone.
#[diagnostic::on_unimplemented(
    message = "the step `{Self}` has no undo",
    note = "before the pivot a step implements `Compensate`, or is added by `step_without_undo` because it leaves nothing to undo"
)]
#[async_trait]
pub trait Compensate: Step {
    /// Undoes it. `output` is `None` when it is not known whether [`run`](Step::run) took
    /// effect: then undo what may have happened, and make sure that a late arrival finds the
    /// door closed. May be run more than once, with the same idempotency key (another one than
    /// that of `run`).
    ///
    /// # Errors
    /// Whatever it is, it is tried again; when the retries end the saga waits for a hand.
    async fn undo(
        &self,
        cx: &mut StepContext,
        input: Self::Input,
        output: Option<Self::Output>,
    ) -> Result<(), StepError>;
}

/// How a step is run. Defaults: 30 s an attempt, retried exponentially from 100 ms up to 30 s,
/// 10 attempts (undo: without end), effects outside of the database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepOptions {
    /// The limit of one attempt. Reaching it leaves the outcome unknown.
    pub timeout: Duration,
    /// The retries of running it.
    pub backoff: Backoff,
    /// The retries of undoing it; at their end the saga waits for a hand.
    pub undo_backoff: Backoff,
    /// All of its effects go through [`StepContext::tx`]. Then a crash, a panic or a time-out
    /// leaves nothing unknown: what was not committed did not happen.
    pub local: bool,
}

impl Default for StepOptions {
    fn default() -> Self {
        let backoff = Backoff::exponential(Duration::from_millis(100));
        Self {
            timeout: Duration::from_secs(30),
            undo_backoff: backoff.clone().unlimited(),
            backoff,
            local: false,
        }
    }
}

impl StepOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// All effects go through the step's transaction.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// Sets the limit of one attempt.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the retries of running it.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the retries of undoing it.
    #[must_use]
    pub fn undo_backoff(mut self, backoff: Backoff) -> Self {
        self.undo_backoff = backoff;
        self
    }
}

/// Which way a saga goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Running steps.
    Forward,
    /// Undoing them.
    Backward,
}

/// What a step is given.
pub struct StepContext {
    pub(crate) store: Arc<dyn SagaStore>,
    pub(crate) tx: Option<Tx>,
    pub(crate) saga_id: Uuid,
    pub(crate) step_name: &'static str,
    pub(crate) direction: Direction,
    pub(crate) attempt: u32,
    pub(crate) fence: i64,
    pub(crate) metadata: Metadata,
    pub(crate) reason: Option<String>,
}

impl StepContext {
    /// The transaction that also records this step's progress. It begins at the first call: do
    /// slow work (other services) before, for it holds locks, and on SQLite the only writer.
    /// When the step fails it is rolled back.
    ///
    /// # Errors
    /// `Unavailable` when no transaction can be begun.
    pub async fn tx(&mut self) -> potter_core::Result<&mut Tx> {
        let tx = match self.tx.take() {
            Some(tx) => tx,
            None => self.store.database().begin().await?,
        };
        Ok(self.tx.insert(tx))
    }

    /// Sends a message if, and only if, this step's progress commits. Its id should be stable:
    /// [`derived_id`] of the idempotency key, for example.
    ///
    /// # Errors
    /// See [`Outbox::enqueue`].
    pub async fn send(&mut self, message: OutboxMessage) -> potter_core::Result<()> {
        let message = message.with_metadata(&self.metadata.caused_by(self.saga_id.to_string()));
        Outbox.enqueue(self.tx().await?, &message).await
    }

    /// The saga.
    pub fn saga_id(&self) -> Uuid {
        self.saga_id
    }

    /// The step's name.
    pub fn step_name(&self) -> &'static str {
        self.step_name
    }

    /// Running or undoing.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// 1 for the first attempt. Attempts that ended with their process are not counted.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The same for every attempt of this step of this saga, another one for its undo, unique
    /// otherwise. Give it to whatever the step calls.
    pub fn idempotency_key(&self) -> Uuid {
        let direction = match self.direction {
            Direction::Forward => "run",
            Direction::Backward => "undo",
        };
        derived_id(&[&self.saga_id.to_string(), self.step_name, direction])
    }

    /// The key that [`run`](Step::run) was or would have been given: what an undo looks for.
    pub fn run_key(&self) -> Uuid {
        derived_id(&[&self.saga_id.to_string(), self.step_name, "run"])
    }

    /// Grows whenever another process takes the saga over. A participant that refuses a lower
    /// one than it has seen is safe from a process that was paused.
    pub fn fencing_token(&self) -> i64 {
        self.fence
    }

    /// Why the saga goes back (the step that refused and its reason, a cancellation, a deadline);
    /// `None` while it goes forward.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Correlation id, tenant, trace: as given at the start of the saga.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}
