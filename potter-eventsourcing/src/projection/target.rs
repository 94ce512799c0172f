//! What a worker drives, and what can come of a batch.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::subscriber::Subscriber;
use super::{HandlerError, Projection};
use crate::error::{Error, ErrorKind};
use crate::store::EventFilter;

#[derive(Clone)]
pub(super) enum Target {
    Projection(Arc<dyn Projection>),
    Subscriber(Arc<dyn Subscriber>),
}

impl Target {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Projection(projection) => projection.name(),
            Self::Subscriber(subscriber) => subscriber.name(),
        }
    }

    pub(super) fn version(&self) -> u32 {
        match self {
            Self::Projection(projection) => projection.version(),
            Self::Subscriber(_) => 1,
        }
    }

    pub(super) fn filter(&self) -> EventFilter {
        match self {
            Self::Projection(projection) => projection.filter(),
            Self::Subscriber(subscriber) => subscriber.filter(),
        }
    }
}

/// Why a batch was not applied.
#[derive(Debug)]
pub(super) enum Unapplied {
    /// A segment is not ours any more, or was moved, or the projection is held: look again.
    Lost,
    /// The handler failed.
    Handler(String),
    /// The database did.
    Database(Error),
}

impl From<Error> for Unapplied {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl From<potter_core::Error> for Unapplied {
    fn from(error: potter_core::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Runs a handler: a panic and a time-out are failures like any other.
pub(super) async fn contained(
    handler: impl Future<Output = Result<(), HandlerError>> + Send,
    timeout: Duration,
) -> Result<(), Unapplied> {
    let contained = AssertUnwindSafe(handler).catch_unwind();
    match tokio::time::timeout(timeout, contained).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(classify(error)),
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Unapplied::Handler(format!("it panicked: {}", text.unwrap_or_default())))
        }
        Err(_) => Err(Unapplied::Handler(format!("it took longer than {timeout:?}"))),
    }
}

/// A database that can't be reached is not the event's fault.
fn classify(error: HandlerError) -> Unapplied {
    let error = match error.downcast::<potter_core::Error>() {
        Ok(error) if error.kind() == potter_core::ErrorKind::Unavailable => {
            return Unapplied::Database((*error).into());
        }
        Ok(error) => error as HandlerError,
        Err(error) => error,
    };
    match error.downcast::<Error>() {
        Ok(error) if error.kind() == ErrorKind::Unavailable => Unapplied::Database(*error),
        Ok(error) => Unapplied::Handler(with_sources(&*error)),
        Err(error) => Unapplied::Handler(with_sources(&*error)),
    }
}

fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    const BYTES_MAX: usize = 2000;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    if text.len() > BYTES_MAX {
        let end = (0..=BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text.replace('\0', "")
}
