//! What can go wrong, in terms that a caller can act on.

use std::sync::Arc;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// One actor wrote two histories: it was restored from an older copy, cloned, or given to two
    /// processes. Nothing was merged. Go on under a new incarnation ([`crate::ActorId::incarnation`]).
    ActorReused,
    /// The state is older than its writer: load the state that belongs to the writer.
    StaleState,
    /// A counter, a sequence number or a clock would pass its limit. Nothing was changed.
    Overflow,
    /// A bounded counter has not enough rights on this replica: ask another for a transfer.
    InsufficientRights,
    /// A timestamp is further in the future than allowed.
    ClockAhead,
    /// An argument is malformed.
    InvalidInput,
    /// A limit was reached (actors in a document, bytes of an id, elements in an input).
    LimitExceeded,
    /// Bytes or JSON that are no state of this crate.
    Malformed,
    /// A state of another CRDT type than asked for.
    WrongType,
    /// A format version that this release does not know.
    UnsupportedVersion,
}

impl ErrorKind {
    fn conflict(self) -> bool {
        matches!(self, Self::ActorReused | Self::StaleState)
    }
}

/// The error of `potter-crdt`. Cheap to clone; `kind()` says what to do about it. No call that
/// returns one has changed anything.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of `kind`; `message` names the entity and says what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into() }))
    }

    /// What went wrong, to match on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Two histories of one actor, or a state and a writer that do not belong together.
    pub fn is_conflict(&self) -> bool {
        self.0.kind.conflict()
    }

    /// Always false: the crate does no I/O, the same call gives the same answer.
    pub fn is_retryable(&self) -> bool {
        false
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Malformed, message)
    }

    pub(crate) fn overflow(what: &str) -> Self {
        Self::new(ErrorKind::Overflow, format!("{what} would pass its limit"))
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .finish()
    }
}

impl std::error::Error for Error {}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
