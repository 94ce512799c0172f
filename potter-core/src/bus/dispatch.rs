//! What the command bus and the query bus have in common: handlers by type, limits, the onion.

use std::any::TypeId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio_util::task::TaskTracker;

use super::error::{BusError, panic_text};
use super::middleware::{Envelope, MessageKind, Middleware, Next, Reply};
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::Metadata;

/// A handler whose types are hidden in the envelope and the reply.
#[async_trait]
pub(super) trait ErasedHandler: Send + Sync + 'static {
    async fn handle(&self, envelope: Envelope) -> Reply;
}

/// The limits and layers that a bus is built with.
pub(super) struct Settings {
    pub(super) concurrency: usize,
    pub(super) queue: usize,
    pub(super) layers: Vec<Arc<dyn Middleware>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { concurrency: 256, queue: 1024, layers: Vec::new() }
    }
}

tokio::task_local! {
    /// The buses whose slots this task holds, by their number.
    static HELD: Vec<usize>;
}

static NUMBER_NEXT: AtomicUsize = AtomicUsize::new(0);

/// Holds the message's place: in the bus as a whole, and among those that run.
struct Slot {
    _admitted: OwnedSemaphorePermit,
    _running: OwnedSemaphorePermit,
}

pub(super) struct Dispatcher {
    kind: MessageKind,
    number: usize,
    handlers: RwLock<HashMap<TypeId, Arc<dyn ErasedHandler>>>,
    layers: Vec<Arc<dyn Middleware>>,
    concurrency: usize,
    queue: usize,
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
    closed: AtomicBool,
    under_way: TaskTracker,
}

impl Dispatcher {
    pub(super) fn new(kind: MessageKind, settings: Settings) -> Self {
        let concurrency = settings.concurrency.clamp(1, Semaphore::MAX_PERMITS / 2);
        let queue = settings.queue.min(Semaphore::MAX_PERMITS / 2);
        Self {
            kind,
            number: NUMBER_NEXT.fetch_add(1, Ordering::Relaxed),
            handlers: RwLock::default(),
            layers: settings.layers,
            concurrency,
            queue,
            admitted: Arc::new(Semaphore::new(concurrency + queue)),
            running: Arc::new(Semaphore::new(concurrency)),
            closed: AtomicBool::new(false),
            under_way: TaskTracker::new(),
        }
    }

    pub(super) fn register<M: 'static>(
        &self,
        name: &'static str,
        handler: Arc<dyn ErasedHandler>,
    ) -> Result<()> {
        let mut handlers = self.handlers.write().unwrap_or_else(PoisonError::into_inner);
        match handlers.entry(TypeId::of::<M>()) {
            Entry::Vacant(place) => {
                place.insert(handler);
                Ok(())
            }
            Entry::Occupied(_) => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{} {name} ({}) has a handler already: register one only",
                    self.kind.as_str(),
                    std::any::type_name::<M>()
                ),
            )),
        }
    }

    /// Waits for a slot, then runs the handler. `wait` false: refuses when the queue is full.
    pub(super) async fn dispatch<M: Send + 'static>(
        &self,
        name: &'static str,
        message: M,
        metadata: Metadata,
        wait: bool,
    ) -> Reply {
        // First under way, then the look at `closed`: a close that misses the one sees the other.
        let _under_way = self.under_way.token();
        // What a handler sends on its own bus runs in the handler's slot: waiting for another
        // would wait forever once every slot holder does the same. It is a part of what a close
        // waits for, so it is let in after one.
        let held = HELD.try_with(Clone::clone).unwrap_or_default();
        let nested = held.contains(&self.number);
        let kind = self.kind.as_str();
        if self.closed.load(Ordering::SeqCst) && !nested {
            let message = format!("{kind} {name} was refused: the {kind} bus is shut down");
            return Err(Error::new(ErrorKind::Closed, message).into());
        }
        let handler = self.handler::<M>(name)?;
        let envelope = Envelope { kind: self.kind, name, payload: Box::new(message), metadata };
        let next = Next { layers: &self.layers, handler: &*handler };
        let run = contained(self.kind, name, next.run(envelope));
        if nested {
            run.await
        } else {
            let _slot = self.slot(name, wait).await?;
            let mut holding = held;
            holding.push(self.number);
            HELD.scope(holding, run).await
        }
    }

    fn handler<M: 'static>(&self, name: &str) -> Result<Arc<dyn ErasedHandler>> {
        let handlers = self.handlers.read().unwrap_or_else(PoisonError::into_inner);
        handlers.get(&TypeId::of::<M>()).cloned().ok_or_else(|| {
            let kind = self.kind.as_str();
            let type_name = std::any::type_name::<M>();
            Error::new(
                ErrorKind::NotFound,
                format!("{kind} {name} ({type_name}) has no handler: register one first"),
            )
        })
    }

    async fn slot(&self, name: &str, wait: bool) -> Result<Slot> {
        let admitted = if wait {
            self.admitted.clone().acquire_owned().await.map_err(|_| self.closed_error(name))?
        } else {
            self.admitted.clone().try_acquire_owned().map_err(|refused| match refused {
                TryAcquireError::Closed => self.closed_error(name),
                TryAcquireError::NoPermits => Error::new(
                    ErrorKind::LimitExceeded,
                    format!(
                        "{} {name} was refused: {} are running and {} wait",
                        self.kind.as_str(),
                        self.concurrency,
                        self.queue
                    ),
                ),
            })?
        };
        let running =
            self.running.clone().acquire_owned().await.map_err(|_| self.closed_error(name))?;
        Ok(Slot { _admitted: admitted, _running: running })
    }

    fn closed_error(&self, name: &str) -> Error {
        let kind = self.kind.as_str();
        Error::new(ErrorKind::Closed, format!("{kind} {name} was refused: the bus is shut down"))
    }

    /// Refuses what comes from now on, and waits for what was sent before.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.under_way.close();
        self.under_way.wait().await;
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("kind", &self.kind)
            .field("concurrency", &self.concurrency)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// Makes a panic an error.
pub(super) async fn contained(
    kind: MessageKind,
    name: &str,
    run: impl Future<Output = Reply>,
) -> Reply {
    AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|panic| {
        let (kind, text) = (kind.as_str(), panic_text(&*panic));
        let message = format!("the handler of {kind} {name} panicked: {text}");
        Err(Error::new(ErrorKind::Panicked, message).into())
    })
}

/// Gives the reply its types back.
pub(super) fn typed<T: 'static, E: 'static>(name: &str, reply: Reply) -> Result<T, BusError<E>> {
    let wrong = || {
        let message = format!("a middleware answered {name} with another type than its handler's");
        BusError::Bus(Error::new(ErrorKind::Internal, message))
    };
    match reply {
        Ok(answer) => answer.0.downcast().map(|answer| *answer).map_err(|_| wrong()),
        Err(BusError::Bus(error)) => Err(BusError::Bus(error)),
        Err(BusError::Handler(failure)) => Err(failure
            .error
            .downcast()
            .map_or_else(|_| wrong(), |error| BusError::Handler(*error))),
    }
}

/// Hides the types of a handler's result.
pub(super) fn erased<T: Send + 'static, E: fmt::Display + Send + 'static>(
    result: Result<T, E>,
) -> Reply {
    use super::middleware::{Answer, HandlerFailure};
    match result {
        Ok(answer) => Ok(Answer(Box::new(answer))),
        Err(error) => {
            let text = error.to_string();
            Err(BusError::Handler(HandlerFailure { error: Box::new(error), text }))
        }
    }
}
