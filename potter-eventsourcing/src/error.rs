//! What can go wrong, in terms that a caller can act on.

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The stream is at another version than expected, or another transaction was in the way:
    /// load again, decide again.
    Conflict,
    /// An event id was used before, for another event.
    DuplicateEventId,
    /// The subject of personal data was forgotten: nothing about it can be kept any more.
    Erased,
    /// The named thing does not exist.
    NotFound,
    /// An event has a type or schema version that the code does not know.
    UnknownEvent,
    /// A handler of the caller's failed.
    Handler,
    /// The input is malformed or breaks a rule.
    InvalidInput,
    /// A limit was reached (events in an append, bytes of a payload).
    LimitExceeded,
    /// Stored data can't be read back: a payload of another shape, a schema that was changed by
    /// hand.
    Corrupt,
    /// The database can't be reached at the moment, or has no connection free.
    Unavailable,
    /// It was sent, and no answer came: it may or may not have taken effect. Append the same
    /// events (the same event ids) again: what took effect is answered as the first time.
    Unknown,
    /// The database can't do this (reading all events on a standby server).
    Unsupported,
    /// A setting, a credential or the engine is wrong.
    Config,
    /// Anything else.
    Internal,
}

impl ErrorKind {
    fn conflict(self) -> bool {
        matches!(self, Self::Conflict)
    }

    fn retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::Unavailable)
    }
}

potter_core::opaque_error! {
    /// The error of `potter-eventsourcing`. Cheap to clone; `kind()` says what to do about it.
    ErrorKind
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<potter_core::Error> for Error {
    fn from(source: potter_core::Error) -> Self {
        use potter_core::ErrorKind as Core;
        let kind = match source.kind() {
            Core::Conflict => ErrorKind::Conflict,
            Core::InvalidInput => ErrorKind::InvalidInput,
            Core::LimitExceeded => ErrorKind::LimitExceeded,
            Core::Corrupt => ErrorKind::Corrupt,
            Core::Unavailable | Core::Timeout => ErrorKind::Unavailable,
            Core::Unknown => ErrorKind::Unknown,
            Core::Config | Core::Unauthorized | Core::Closed => ErrorKind::Config,
            _ => ErrorKind::Internal,
        };
        Self::with_source(kind, source.to_string(), source)
    }
}
