//! What loading an aggregate and carrying out a command come to.

use std::fmt;

use crate::aggregate::Aggregate;
use crate::error::Error;

/// An aggregate as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded<A> {
    /// The sum of its events; the default when there is none.
    pub state: A,
    /// The version of the last event; 0 when there is none.
    pub version: u64,
}

/// What a command did.
#[non_exhaustive]
pub struct Executed<A: Aggregate> {
    /// The aggregate after the command.
    pub state: A,
    /// Its version then.
    pub version: u64,
    /// What happened; nothing if there was nothing to do.
    pub events: Vec<A::Event>,
    /// The global position of the last of them; `None` if there was none.
    pub last_position: Option<u64>,
    /// The command had been carried out before, under the same key; this is what came of it.
    pub duplicate: bool,
}

impl<A: Aggregate> fmt::Debug for Executed<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executed")
            .field("aggregate", &A::TYPE)
            .field("version", &self.version)
            .field("events", &self.events.len())
            .field("duplicate", &self.duplicate)
            .finish_non_exhaustive()
    }
}

/// Why a command was not carried out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ExecuteError<E> {
    /// The aggregate refused it.
    Rejected(E),
    /// The store failed.
    Store(Error),
}

impl<E> ExecuteError<E> {
    /// Others kept changing the aggregate first.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_conflict())
    }

    /// The same call may succeed later without any change.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }

    /// The aggregate's reason, if it was that.
    pub fn rejected(&self) -> Option<&E> {
        match self {
            Self::Rejected(reason) => Some(reason),
            Self::Store(_) => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for ExecuteError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(reason) => write!(f, "the command was refused: {reason}"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ExecuteError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rejected(reason) => Some(reason),
            Self::Store(error) => error.source(),
        }
    }
}

impl<E> From<Error> for ExecuteError<E> {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}
