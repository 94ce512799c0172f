//! What wraps every handler of a bus: logging, metrics, limits, the user's own.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::dispatch::{ErasedHandler, contained};
use super::error::BusError;
use crate::error::{Error, ErrorKind};
use crate::metadata::Metadata;

/// Whether a message may change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// It changes something: given up midway, its outcome is unknown.
    Command,
    /// It only reads: given up midway, nothing happened.
    Query,
}

impl MessageKind {
    /// `"command"` or `"query"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Query => "query",
        }
    }
}

/// A command or query on its way to its handler, whatever its type.
pub struct Envelope {
    pub(super) kind: MessageKind,
    pub(super) name: &'static str,
    pub(super) payload: Box<dyn Any + Send>,
    /// The context that the handler gets; a middleware may change it.
    pub metadata: Metadata,
}

impl Envelope {
    /// A command or a query.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The message type's `NAME`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The message itself, if it is a `T`: to validate or authorise it.
    pub fn message<T: 'static>(&self) -> Option<&T> {
        self.payload.downcast_ref()
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

/// What a handler returned, whatever its type.
pub struct Answer(pub(super) Box<dyn Any + Send>);

impl Answer {
    /// The answer itself, if it is a `T`.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(..)")
    }
}

/// A handler's own error, whatever its type: its text, and the error itself by its type.
pub struct HandlerFailure {
    pub(super) error: Box<dyn Any + Send>,
    pub(super) text: String,
}

impl HandlerFailure {
    /// The error itself, if it is a `T`.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.error.downcast_ref()
    }
}

impl fmt::Display for HandlerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for HandlerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandlerFailure").field(&self.text).finish()
    }
}

/// What comes back through the middlewares. One that refuses returns
/// `Err(Error::new(kind, message).into())`.
pub type Reply = Result<Answer, BusError<HandlerFailure>>;

/// A layer around every handler of a bus. The first added is the outermost.
///
/// ```
/// use async_trait::async_trait;
/// use potter_core::bus::{Envelope, Middleware, Next, Reply};
/// use potter_core::{Error, ErrorKind};
///
/// struct TenantRequired;
///
/// #[async_trait]
/// impl Middleware for TenantRequired {
///     async fn handle(&self, envelope: Envelope, next: Next<'_>) -> Reply {
///         if envelope.metadata.tenant.is_none() {
///             let message = format!("{} needs a tenant", envelope.name());
///             return Err(Error::new(ErrorKind::Unauthorized, message).into());
///         }
///         next.run(envelope).await
///     }
/// }
/// ```
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Passes `envelope` on with `next.run(envelope)`, or answers without it.
    async fn handle(&self, envelope: Envelope, next: Next<'_>) -> Reply;
}

/// The rest of the way to the handler. It can be gone once: a message is not copied.
pub struct Next<'a> {
    pub(super) layers: &'a [Arc<dyn Middleware>],
    pub(super) handler: &'a dyn ErasedHandler,
}

impl Next<'_> {
    /// Goes on to the next middleware, or to the handler.
    pub async fn run(self, envelope: Envelope) -> Reply {
        match self.layers.split_first() {
            Some((layer, rest)) => {
                layer.handle(envelope, Next { layers: rest, handler: self.handler }).await
            }
            // Caught here, below the layers, so that they see a panic as any other failure.
            None => contained(envelope.kind, envelope.name, self.handler.handle(envelope)).await,
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

/// Runs each handler in a span with the message's name, correlation id and trace context, and
/// logs how it ended: an answer at debug, a refusal at info, a failure of the bus at error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Logging;

#[async_trait]
impl Middleware for Logging {
    async fn handle(&self, envelope: Envelope, next: Next<'_>) -> Reply {
        let (kind, name) = (envelope.kind.as_str(), envelope.name);
        let span = tracing::info_span!(
            "bus",
            message.kind = kind,
            message.name = name,
            correlation_id = envelope.metadata.correlation_id.as_deref(),
            traceparent = envelope.metadata.traceparent.as_deref(),
        );
        async move {
            let start = Instant::now();
            let reply = next.run(envelope).await;
            let duration_ms = start.elapsed().as_secs_f64() * 1000.0;
            match &reply {
                Ok(_) => tracing::debug!(duration_ms, "{kind} {name} answered"),
                Err(BusError::Handler(error)) => {
                    tracing::info!(duration_ms, %error, "{kind} {name} refused by its handler");
                }
                Err(BusError::Bus(error)) => {
                    tracing::error!(duration_ms, kind = ?error.kind(), %error, "{kind} {name} failed");
                }
            }
            reply
        }
        .instrument(span)
        .await
    }
}

/// Counts and times through the `metrics` facade: `commands_total` and `queries_total` with
/// `name` and `outcome` (`ok`, `refused`, `error`), `commands_duration_seconds` and
/// `queries_duration_seconds`, `errors_total` with `source` and `name`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metrics;

#[async_trait]
impl Middleware for Metrics {
    async fn handle(&self, envelope: Envelope, next: Next<'_>) -> Reply {
        let (kind, name) = (envelope.kind, envelope.name);
        let start = Instant::now();
        let reply = next.run(envelope).await;
        let outcome = match &reply {
            Ok(_) => "ok",
            Err(BusError::Handler(_)) => "refused",
            Err(BusError::Bus(_)) => "error",
        };
        let (total, duration) = match kind {
            MessageKind::Command => ("commands_total", "commands_duration_seconds"),
            MessageKind::Query => ("queries_total", "queries_duration_seconds"),
        };
        metrics::counter!(total, "name" => name, "outcome" => outcome).increment(1);
        metrics::histogram!(duration, "name" => name).record(start.elapsed().as_secs_f64());
        if reply.is_err() {
            metrics::counter!("errors_total", "source" => kind.as_str(), "name" => name)
                .increment(1);
        }
        reply
    }
}

/// Gives each handler (and the middlewares below) so long and no longer; then it is dropped at
/// the point where it waits. A query that is given up is `Timeout`; a command may have done some
/// of its work, so it is `Unknown`.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimit(Duration);

impl TimeLimit {
    /// At most `limit` for each message.
    pub fn new(limit: Duration) -> Self {
        Self(limit)
    }
}

#[async_trait]
impl Middleware for TimeLimit {
    async fn handle(&self, envelope: Envelope, next: Next<'_>) -> Reply {
        let (kind, name) = (envelope.kind, envelope.name);
        match tokio::time::timeout(self.0, next.run(envelope)).await {
            Ok(reply) => reply,
            Err(_) => {
                let limit = self.0;
                Err(BusError::Bus(match kind {
                    MessageKind::Command => Error::new(
                        ErrorKind::Unknown,
                        format!(
                            "command {name} took longer than {limit:?} and was given up: \
                             it may have taken effect"
                        ),
                    ),
                    MessageKind::Query => Error::new(
                        ErrorKind::Timeout,
                        format!("query {name} took longer than {limit:?} and was given up"),
                    ),
                }))
            }
        }
    }
}

/// Lets so many messages through at once; the others wait here, first come first served. For a
/// limit on a whole bus use its builder's `concurrency`; this one can sit deeper in the onion.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit(Arc<Semaphore>);

impl ConcurrencyLimit {
    /// At most `limit` at once (at least 1).
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS))))
    }
}

#[async_trait]
impl Middleware for ConcurrencyLimit {
    async fn handle(&self, envelope: Envelope, next: Next<'_>) -> Reply {
        let _permit = self.0.acquire().await.map_err(|source| {
            Error::with_source(ErrorKind::Closed, "the concurrency limit was closed", source)
        })?;
        next.run(envelope).await
    }
}
