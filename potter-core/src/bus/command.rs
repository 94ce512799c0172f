//! Commands: each changes something, and has one handler.

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

/// A request to change something.
pub trait Command: Send + 'static {
    /// Its name in logs, metrics and errors.
    const NAME: &'static str;
    /// What its handler answers.
    type Output: Send + 'static;
    /// What its handler refuses with; the sender gets it back as it is.
    type Error: fmt::Display + Send + 'static;
}

/// Carries out one type of command.
#[async_trait]
pub trait CommandHandler<C: Command>: Send + Sync + 'static {
    /// Carries out `command`.
    ///
    /// # Errors
    /// The command's own error.
    async fn handle(&self, command: C, metadata: &Metadata) -> Result<C::Output, C::Error>;
}

/// Brings each command to the one handler of its type.
///
/// A handler runs in the task that sent the command: dropping that future stops the handler
/// where it waits, so work that must not stop midway is done in one transaction. At most
/// `concurrency` (default 256) run at once and `queue` (default 1,024) more wait. A command that
/// a handler sends on its own bus runs in the handler's slot. Cloning gives another handle on
/// the same bus.
#[derive(Clone, Debug)]
pub struct CommandBus(Arc<Dispatcher>);

impl CommandBus {
    /// A bus with the default limits and no middleware.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// To set limits and middlewares.
    pub fn builder() -> CommandBusBuilder {
        CommandBusBuilder { settings: Settings::default() }
    }

    /// Registers the handler of `C`.
    ///
    /// # Errors
    /// `Config` when `C` has one already.
    pub fn register<C: Command>(&self, handler: impl CommandHandler<C>) -> Result<()> {
        let handler = Erased { handler, message: PhantomData::<fn(C)> };
        self.0.register::<C>(C::NAME, Arc::new(handler))
    }

    /// Registers a closure as the handler of `C`.
    ///
    /// # Errors
    /// `Config` when `C` has one already.
    pub fn register_fn<C, F, Fut>(&self, handler: F) -> Result<()>
    where
        C: Command,
        F: Fn(C, Metadata) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C::Output, C::Error>> + Send + 'static,
    {
        self.register(FnHandler(handler))
    }

    /// Sends `command` and waits for its handler's answer. At the limit it waits for a place.
    ///
    /// # Errors
    /// `Handler` with the handler's own error; `Bus` with `NotFound` (no handler), `Panicked`,
    /// `Closed`, or what a middleware refused with.
    pub async fn send<C: Command>(
        &self,
        command: C,
        metadata: Metadata,
    ) -> Result<C::Output, BusError<C::Error>> {
        typed(C::NAME, self.0.dispatch(C::NAME, command, metadata, true).await)
    }

    /// The same, but `LimitExceeded` at once when `concurrency` commands run and `queue` wait.
    ///
    /// # Errors
    /// As [`send`](Self::send), and `LimitExceeded`.
    pub async fn try_send<C: Command>(
        &self,
        command: C,
        metadata: Metadata,
    ) -> Result<C::Output, BusError<C::Error>> {
        typed(C::NAME, self.0.dispatch(C::NAME, command, metadata, false).await)
    }

    /// Refuses commands from now on (`Closed`) and waits for those sent before.
    pub async fn shutdown(&self) {
        self.0.close().await;
    }
}

impl Default for CommandBus {
    fn default() -> Self {
        Self::new()
    }
}

/// Sets up a [`CommandBus`].
#[must_use]
pub struct CommandBusBuilder {
    settings: Settings,
}

impl CommandBusBuilder {
    /// Handlers that run at once (default 256, at least 1).
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.settings.concurrency = limit;
        self
    }

    /// Commands that may wait for a slot (default 1,024) before `try_send` refuses.
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
    pub fn build(self) -> CommandBus {
        CommandBus(Arc::new(Dispatcher::new(MessageKind::Command, self.settings)))
    }
}

impl fmt::Debug for CommandBusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandBusBuilder").finish_non_exhaustive()
    }
}

struct Erased<M, H> {
    handler: H,
    message: PhantomData<fn(M)>,
}

#[async_trait]
impl<C: Command, H: CommandHandler<C>> ErasedHandler for Erased<C, H> {
    async fn handle(&self, envelope: Envelope) -> Reply {
        match envelope.payload.downcast::<C>() {
            Ok(command) => erased(self.handler.handle(*command, &envelope.metadata).await),
            Err(_) => {
                let message = format!("{} came with another type's payload", C::NAME);
                Err(Error::new(ErrorKind::Internal, message).into())
            }
        }
    }
}

struct FnHandler<F>(F);

#[async_trait]
impl<C, F, Fut> CommandHandler<C> for FnHandler<F>
where
    C: Command,
    F: Fn(C, Metadata) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C::Output, C::Error>> + Send + 'static,
{
    async fn handle(&self, command: C, metadata: &Metadata) -> Result<C::Output, C::Error> {
        (self.0)(command, metadata.clone()).await
    }
}
