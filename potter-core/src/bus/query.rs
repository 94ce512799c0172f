//! Queries: each only reads, and has one handler.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;

use super::dispatch::{Dispatcher, ErasedHandler, Settings, erased, typed};
use super::error::BusError;
use super::middleware::{Envelope, MessageKind, Middleware, Reply};
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::Metadata;

/// A question that changes nothing.
pub trait Query: Send + 'static {
    /// Its name in logs, metrics and errors.
    const NAME: &'static str;
    /// What its handler answers.
    type Output: Send + 'static;
    /// What its handler refuses with; the asker gets it back as it is.
    type Error: fmt::Display + Send + 'static;
}

/// Answers one type of query.
#[async_trait]
pub trait QueryHandler<Q: Query>: Send + Sync + 'static {
    /// Answers `query`.
    ///
    /// # Errors
    /// The query's own error.
    async fn handle(&self, query: Q, metadata: &Metadata) -> Result<Q::Output, Q::Error>;
}

/// Brings each query to the one handler of its type.
///
/// A handler runs in the task that asked: dropping that future stops the handler where it waits.
/// At most `concurrency` (default 256) run at once and `queue` (default 1,024) more wait. A query
/// that a handler asks on its own bus runs in the handler's slot. Cloning gives another handle on
/// the same bus.
#[derive(Clone, Debug)]
pub struct QueryBus(Arc<Dispatcher>);

impl QueryBus {
    /// A bus with the default limits and no middleware.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// To set limits and middlewares.
    pub fn builder() -> QueryBusBuilder {
        QueryBusBuilder { settings: Settings::default() }
    }

    /// Registers the handler of `Q`.
    ///
    /// # Errors
    /// `Config` when `Q` has one already.
    pub fn register<Q: Query>(&self, handler: impl QueryHandler<Q>) -> Result<()> {
        let handler = Erased { handler, message: PhantomData::<fn(Q)> };
        self.0.register::<Q>(Q::NAME, Arc::new(handler))
    }

    /// Registers a closure as the handler of `Q`.
    ///
    /// # Errors
    /// `Config` when `Q` has one already.
    pub fn register_fn<Q, F, Fut>(&self, handler: F) -> Result<()>
    where
        Q: Query,
        F: Fn(Q, Metadata) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Q::Output, Q::Error>> + Send + 'static,
    {
        self.register(FnHandler(handler))
    }

    /// Asks `query` and waits for its handler's answer. At the limit it waits for a place.
    ///
    /// # Errors
    /// `Handler` with the handler's own error; `Bus` with `NotFound` (no handler), `Panicked`,
    /// `Closed`, or what a middleware refused with.
    pub async fn ask<Q: Query>(
        &self,
        query: Q,
        metadata: Metadata,
    ) -> Result<Q::Output, BusError<Q::Error>> {
        typed(Q::NAME, self.0.dispatch(Q::NAME, query, metadata, true).await)
    }

    /// The same, but `LimitExceeded` at once when `concurrency` queries run and `queue` wait.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and `LimitExceeded`.
    pub async fn try_ask<Q: Query>(
        &self,
        query: Q,
        metadata: Metadata,
    ) -> Result<Q::Output, BusError<Q::Error>> {
        typed(Q::NAME, self.0.dispatch(Q::NAME, query, metadata, false).await)
    }

    /// Refuses queries from now on (`Closed`) and waits for those asked before.
    pub async fn shutdown(&self) {
        self.0.close().await;
    }
}

impl Default for QueryBus {
    fn default() -> Self {
        Self::new()
    }
}

/// Sets up a [`QueryBus`].
#[must_use]
pub struct QueryBusBuilder {
    settings: Settings,
}

impl QueryBusBuilder {
    /// Handlers that run at once (default 256, at least 1).
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.settings.concurrency = limit;
        self
    }

    /// Queries that may wait for a slot (default 1,024) before `try_ask` refuses.
    pub fn queue(mut self, limit: usize) -> Self {
        self.settings.queue = limit;
        self
    }

    /// Adds a layer around every handler; the first added is the outermost.
    pub fn middleware(mut self, layer: impl Middleware) -> Self {
        self.settings.layers.push(Arc::new(layer));
        self
    }

    /// The bus.
    pub fn build(self) -> QueryBus {
        QueryBus(Arc::new(Dispatcher::new(MessageKind::Query, self.settings)))
    }
}

impl fmt::Debug for QueryBusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryBusBuilder").finish_non_exhaustive()
    }
}

struct Erased<M, H> {
    handler: H,
    message: PhantomData<fn(M)>,
}

#[async_trait]
impl<Q: Query, H: QueryHandler<Q>> ErasedHandler for Erased<Q, H> {
    async fn handle(&self, envelope: Envelope) -> Reply {
        match envelope.payload.downcast::<Q>() {
            Ok(query) => erased(self.handler.handle(*query, &envelope.metadata).await),
            Err(_) => {
                let message = format!("{} came with another type's payload", Q::NAME);
                Err(Error::new(ErrorKind::Internal, message).into())
            }
        }
    }
}

struct FnHandler<F>(F);

#[async_trait]
impl<Q, F, Fut> QueryHandler<Q> for FnHandler<F>
where
    Q: Query,
    F: Fn(Q, Metadata) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Q::Output, Q::Error>> + Send + 'static,
{
    async fn handle(&self, query: Q, metadata: &Metadata) -> Result<Q::Output, Q::Error> {
        (self.0)(query, metadata.clone()).await
    }
}
