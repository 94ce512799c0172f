//! What a caller of a bus gets back when it did not work.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Why a command or query was not answered: its handler refused, or the bus did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BusError<E> {
    /// The handler's own error, as it returned it.
    Handler(E),
    /// The bus's: no handler, a limit, a time limit, a panic, shut down.
    Bus(Error),
}

impl<E> BusError<E> {
    /// The handler's error, if it was the handler that refused.
    pub fn handler(&self) -> Option<&E> {
        match self {
            Self::Handler(error) => Some(error),
            Self::Bus(_) => None,
        }
    }

    /// The bus's error, if it was the bus that refused.
    pub fn bus(&self) -> Option<&Error> {
        match self {
            Self::Handler(_) => None,
            Self::Bus(error) => Some(error),
        }
    }

    /// Splits: the handler's error to decide on, the bus's to pass on with `?`.
    ///
    /// # Errors
    /// The bus's error.
    pub fn into_handler(self) -> Result<E, Error> {
        match self {
            Self::Handler(error) => Ok(error),
            Self::Bus(error) => Err(error),
        }
    }

    /// One error out of both: the handler's is turned into the bus's by `f`.
    pub fn into_error(self, f: impl FnOnce(E) -> Error) -> Error {
        match self {
            Self::Handler(error) => f(error),
            Self::Bus(error) => error,
        }
    }

    /// The kind of the bus's error; `None` when it is the handler's.
    pub fn kind(&self) -> Option<ErrorKind> {
        self.bus().map(Error::kind)
    }
}

impl<E> From<Error> for BusError<E> {
    fn from(error: Error) -> Self {
        Self::Bus(error)
    }
}

impl<E: fmt::Display> fmt::Display for BusError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler(error) => error.fmt(f),
            Self::Bus(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for BusError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Handler(error) => error.source(),
            Self::Bus(error) => error.source(),
        }
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
