//! The crate's error: what was wrong with the input, where, and what to do.

use std::fmt;
use std::sync::Arc;

/// What went wrong, in terms that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not in the format that it was read as.
    Syntax,
    /// The history is readable but makes no sense: a value of the wrong shape, an unknown `f`.
    InvalidHistory,
    /// The format or the model is not one that this crate knows.
    Unsupported,
    /// The text could not be read.
    Read,
    /// The fault is none that the nemesis makes, or its targets or parameters make no sense.
    InvalidFault,
    /// A fault could not be made, or not be undone.
    Fault,
    /// What was asked for can't work on this machine: the message says what is missing.
    Unavailable,
    /// A test's parts do not fit together, or one of its numbers is out of range.
    InvalidTest,
    /// The system under test or the workload could not be prepared, or the test itself broke down.
    Setup,
    /// What a test records could not be written.
    Write,
    /// A test was cancelled before its first operation: there is no history.
    Cancelled,
}

/// An error of this crate. Cheap to clone; a checker's verdict is never an error.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    line: Option<u64>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` names what was wrong and says what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), line: None, source: None }))
    }

    pub(crate) fn at(kind: ErrorKind, line: u64, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), line: Some(line), source: None }))
    }

    pub(crate) fn read(source: std::io::Error, line: u64) -> Self {
        let message = "the history can't be read".into();
        let source = Some(source.into());
        Self(Arc::new(Inner { kind: ErrorKind::Read, message, line: Some(line), source }))
    }

    /// The same with what caused it.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let (kind, message, line) = (self.0.kind, self.0.message.clone(), self.0.line);
        Self(Arc::new(Inner { kind, message, line, source: Some(source.into()) }))
    }

    /// What went wrong, to match on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The line of the text that it is about, from 1.
    pub fn line(&self) -> Option<u64> {
        self.0.line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.line {
            Some(line) => write!(f, "line {line}: {}", self.0.message),
            None => f.write_str(&self.0.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(line) = self.0.line {
            out.field("line", &line);
        }
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

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
