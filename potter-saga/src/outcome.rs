//! What a step may answer.
//!
//! Four answers, because the third state matters: after a request was sent and no answer came,
//! its effect is *unknown*. Treating that as a failure loses money; treating it as a success
//! invents it. So an error is unknown unless the step says better.

use std::any::Any;
use std::fmt;

/// Why a step is not done.
///
/// `?` on any error gives [`unknown`](Self::unknown): whoever knows that nothing has happened
/// says so with [`retry`](Self::retry) or [`rejected`](Self::rejected). Errors of the database
/// that come from the step's own transaction are retried: what was not committed did not happen.
#[derive(Debug)]
pub struct StepError {
    pub(crate) kind: StepErrorKind,
    pub(crate) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepErrorKind {
    Rejected,
    Retry,
    Unknown,
    /// The engine's own: it can't go on without a hand. Nothing has happened.
    Park,
    /// The same, and it may have taken effect.
    ParkUncertain,
}

impl StepError {
    /// It surely has no effect and never will: the business says no. The saga is compensated.
    pub fn rejected(reason: impl fmt::Display) -> Self {
        Self { kind: StepErrorKind::Rejected, message: reason.to_string() }
    }

    /// It surely had no effect this time; another attempt may succeed.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self { kind: StepErrorKind::Retry, message: reason.to_string() }
    }

    /// It may or may not have taken effect. It is asked again ([`Step::probe`](crate::Step::probe),
    /// then another attempt with the same idempotency key), and undone if that settles nothing.
    pub fn unknown(reason: impl fmt::Display) -> Self {
        Self { kind: StepErrorKind::Unknown, message: reason.to_string() }
    }

    pub(crate) fn park(reason: impl fmt::Display) -> Self {
        Self { kind: StepErrorKind::Park, message: reason.to_string() }
    }

    pub(crate) fn park_uncertain(reason: impl fmt::Display) -> Self {
        Self { kind: StepErrorKind::ParkUncertain, message: reason.to_string() }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for StepError {
    fn from(error: E) -> Self {
        let any: &dyn Any = &error;
        let unknown =
            match (any.downcast_ref::<potter_core::Error>(), any.downcast_ref::<crate::Error>()) {
                (Some(core), _) => core.kind() == potter_core::ErrorKind::Unknown,
                (_, Some(saga)) => saga.kind() == crate::ErrorKind::Unknown,
                _ => true,
            };
        if unknown { Self::unknown(error) } else { Self::retry(error) }
    }
}

/// What is known of an attempt whose outcome was unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Probe<T> {
    /// It took effect; this was its result.
    Done(T),
    /// It did not and never will: it is safe to run, or to leave.
    NotDone,
    /// There is no way to ask but to run it again with the same idempotency key.
    RunAgain,
}
