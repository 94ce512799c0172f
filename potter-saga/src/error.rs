//! This crate's error.

/// What went wrong, in terms that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A saga's definition breaks a rule (no step, two steps of one name), or two of the same
    /// name and version were registered.
    InvalidDefinition,
    /// No saga of that name is registered here.
    NotRegistered,
    /// There is no saga with that id.
    NotFound,
    /// The key was used before with another input.
    KeyReused,
    /// The saga is in a state that does not allow it (finished, past its pivot).
    InvalidState,
    /// The input can't be written as JSON, or is too large.
    InvalidInput,
    /// Another process has taken the saga over; nothing was written.
    Fenced,
    /// Someone else changed the same rows first.
    Conflict,
    /// The database can't be reached.
    Unavailable,
    /// It was sent, and no answer came: it may or may not have taken effect.
    Unknown,
    /// It took longer than its time limit.
    Timeout,
    /// Stored data can't be read back.
    Corrupt,
    /// The orchestrator was shut down.
    Closed,
    /// Anything else.
    Internal,
}

impl ErrorKind {
    fn conflict(self) -> bool {
        matches!(self, Self::Conflict)
    }

    fn retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::Unavailable | Self::Timeout)
    }
}

potter_core::opaque_error! {
    /// The error of `potter-saga`. Cheap to clone; `kind()` says what to do about it.
    ErrorKind
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<potter_core::Error> for Error {
    fn from(error: potter_core::Error) -> Self {
        use potter_core::ErrorKind as Core;
        let kind = match error.kind() {
            Core::NotFound => ErrorKind::NotFound,
            Core::Conflict => ErrorKind::Conflict,
            Core::KeyReused => ErrorKind::KeyReused,
            Core::InvalidInput | Core::LimitExceeded => ErrorKind::InvalidInput,
            Core::Fenced => ErrorKind::Fenced,
            Core::Unavailable | Core::Unauthorized | Core::InFlight => ErrorKind::Unavailable,
            Core::Unknown => ErrorKind::Unknown,
            Core::Timeout => ErrorKind::Timeout,
            Core::Corrupt => ErrorKind::Corrupt,
            Core::Closed => ErrorKind::Closed,
            _ => ErrorKind::Internal,
        };
        let message = error.to_string();
        Self::with_source(kind, message, error)
    }
}
