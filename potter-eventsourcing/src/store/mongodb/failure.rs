//! What the driver's errors mean: whether anything was sent, and what a caller can do.

use std::time::Duration;

use mongodb::error::{Error as DriverError, ErrorKind as Driver, WriteFailure};

use crate::error::{Error, ErrorKind, Result};

pub(crate) const DUPLICATE_KEY: i32 = 11000;
const WRITE_CONFLICT: i32 = 112;
/// A user or a password that is wrong, or a user who may not do this.
const REFUSED: [i32; 3] = [13, 18, 8000];
/// Not the primary any more, shutting down, interrupted, out of time.
const AWAY: [i32; 12] = [6, 7, 50, 89, 91, 189, 262, 9001, 10107, 11600, 11602, 13435];

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing changes, whatever comes of it.
    Read,
    /// Without an answer nobody knows whether it took effect.
    Write,
}

/// Runs an operation with an end.
pub(crate) async fn within<T>(
    asked: Asked,
    timeout: Duration,
    operation: impl IntoFuture<Output = mongodb::error::Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(timeout, operation).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(meaning(asked, error)),
        Err(_) => Err(Error::new(unanswered(asked), format!("no answer came within {timeout:?}"))),
    }
}

fn unanswered(asked: Asked) -> ErrorKind {
    match asked {
        Asked::Read => ErrorKind::Unavailable,
        Asked::Write => ErrorKind::Unknown,
    }
}

/// The code of the server, where it gave one.
pub(crate) fn code(error: &DriverError) -> Option<i32> {
    match &*error.kind {
        Driver::Command(command) => Some(command.code),
        Driver::Write(WriteFailure::WriteError(write)) => Some(write.code),
        Driver::InsertMany(many) => {
            many.write_errors.as_ref().and_then(|errors| errors.first()).map(|error| error.code)
        }
        _ => None,
    }
}

/// The driver's error in this crate's terms.
pub(crate) fn meaning(asked: Asked, error: DriverError) -> Error {
    let (kind, message) = match &*error.kind {
        Driver::Authentication { .. } => {
            (ErrorKind::Config, "MongoDB refuses the user name or the password")
        }
        // No server was chosen: nothing was sent.
        Driver::ServerSelection { .. } | Driver::DnsResolve { .. } => {
            (ErrorKind::Unavailable, "MongoDB can't be reached")
        }
        Driver::Io(_) | Driver::ConnectionPoolCleared { .. } => {
            (unanswered(asked), "the connection to MongoDB broke")
        }
        Driver::Write(WriteFailure::WriteConcernError(_)) => {
            (ErrorKind::Unknown, "a majority of the servers did not confirm in time")
        }
        Driver::InsertMany(many)
            if many.write_errors.is_none() && many.write_concern_error.is_some() =>
        {
            (ErrorKind::Unknown, "a majority of the servers did not confirm in time")
        }
        _ => match code(&error) {
            Some(code) if REFUSED.contains(&code) => {
                (ErrorKind::Config, "MongoDB does not let this user do it")
            }
            Some(DUPLICATE_KEY | WRITE_CONFLICT) => {
                (ErrorKind::Conflict, "somebody else wrote the same at the same time")
            }
            Some(code) if AWAY.contains(&code) => {
                (unanswered(asked), "MongoDB could not end the operation")
            }
            _ => (ErrorKind::Internal, "MongoDB refused an operation"),
        },
    };
    Error::with_source(kind, message, error)
}
