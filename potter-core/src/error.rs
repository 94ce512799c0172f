//! The error style that every Potter crate shares: one opaque type, a kind to match on, the
//! source chain kept.

/// Defines a crate's opaque `Error` around its own `ErrorKind`.
///
/// The kind must be `Copy + Debug` and have `fn conflict(self) -> bool` and
/// `fn retryable(self) -> bool`. The message names the entity and says what to do; SQL text and
/// secrets never go into it.
#[doc(hidden)]
#[macro_export]
macro_rules! opaque_error {
    ($(#[$doc:meta])* $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct Error(std::sync::Arc<ErrorInner>);

        struct ErrorInner {
            kind: $kind,
            message: String,
            source: Option<Box<dyn std::error::Error + Send + Sync>>,
        }

        impl Error {
            /// An error of `kind`; `message` names the entity and says what to do.
            pub fn new(kind: $kind, message: impl Into<String>) -> Self {
                Self(std::sync::Arc::new(ErrorInner { kind, message: message.into(), source: None }))
            }

            /// The same with the error that caused it.
            pub fn with_source(
                kind: $kind,
                message: impl Into<String>,
                source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
            ) -> Self {
                Self(std::sync::Arc::new(ErrorInner {
                    kind,
                    message: message.into(),
                    source: Some(source.into()),
                }))
            }

            /// What went wrong, to match on.
            pub fn kind(&self) -> $kind {
                self.0.kind
            }

            /// Someone else changed the same thing first: load again and decide again.
            pub fn is_conflict(&self) -> bool {
                self.0.kind.conflict()
            }

            /// The same call may succeed later without any change.
            pub fn is_retryable(&self) -> bool {
                self.0.kind.retryable()
            }
        }

        impl std::fmt::Display for Error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0.message)
            }
        }

        impl std::fmt::Debug for Error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut out = f.debug_struct("Error");
                out.field("kind", &self.0.kind).field("message", &self.0.message);
                if let Some(source) = &self.0.source {
                    out.field("source", source);
                }
                out.finish()
            }
        }

        impl std::error::Error for Error {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
            }
        }
    };
}

/// What went wrong, in terms that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is malformed or asks for something this build does not have.
    Config,
    /// A server can't be reached, or the connection to it broke before anything was sent.
    Unavailable,
    /// The server refused the credentials.
    Unauthorized,
    /// The named thing does not exist.
    NotFound,
    /// Someone else changed the same rows first.
    Conflict,
    /// An idempotency key was used before with another request.
    KeyReused,
    /// The same key is being worked on right now.
    InFlight,
    /// The input is malformed or breaks a rule.
    InvalidInput,
    /// The caller no longer holds the lease that its fencing token was given for.
    Fenced,
    /// A limit was reached (queue full, payload too large).
    LimitExceeded,
    /// It took longer than its time limit; nothing was sent that could still take effect.
    Timeout,
    /// It was sent, and no answer came: it may or may not have taken effect.
    Unknown,
    /// Stored data can't be read back.
    Corrupt,
    /// The component was shut down.
    Closed,
    /// A handler panicked; it was contained.
    Panicked,
    /// Anything else.
    Internal,
}

impl ErrorKind {
    fn conflict(self) -> bool {
        matches!(self, Self::Conflict)
    }

    fn retryable(self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::Conflict
                | Self::InFlight
                | Self::Timeout
                | Self::LimitExceeded
        )
    }
}

opaque_error! {
    /// The error of `potter-core`. Cheap to clone; `kind()` says what to do about it.
    ErrorKind
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
