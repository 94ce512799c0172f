//! Events: each says what happened, to everyone who subscribed.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::dead_letter::{Callback, DeadLetter, DeadLetters};
use super::subscriber::{
    Delivery, EventHandler, FnHandler, HandlerError, Queued, Subscriber, Subscription, Worker,
};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::Metadata;

/// Something that happened.
pub trait Event: Send + Sync + 'static {
    /// Its name in logs, metrics and errors.
    const NAME: &'static str;
}

/// Brings each event to every subscriber of its type.
///
/// Each subscriber has its own bounded queue (default 1,024) and its own worker: it gets one
/// event after the other, in the order in which they were published, the same order as every
/// other subscriber of the type. A slow subscriber holds the publishers up once its queue is
/// full. A failing one gets the event again by its backoff (the default of [`Backoff`]) while
/// the others go on; then the event is a dead letter. A handler that publishes its own event
/// type uses [`try_publish`](Self::try_publish): waiting for itself it would wait forever.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use potter_core::Metadata;
/// use potter_core::bus::{Event, EventBus};
///
/// struct OrderPlaced { number: u64 }
/// impl Event for OrderPlaced { const NAME: &'static str = "order_placed"; }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), potter_core::Error> {
/// let bus = EventBus::new();
/// bus.subscribe_fn("mailer", |event: Arc<OrderPlaced>, _delivery| async move {
///     if event.number == 0 { Err("no such order".into()) } else { Ok(()) }
/// })?;
/// bus.publish(OrderPlaced { number: 7 }, Metadata::correlated()).await?;
/// bus.shutdown(Duration::from_secs(5)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct EventBus(Arc<Inner>);

struct Inner {
    queue: usize,
    backoff: Backoff,
    dead_letters: Arc<DeadLetters>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// By event type: an `Arc<Topic<E>>`.
    topics: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    workers: JoinSet<()>,
    /// What each subscriber has not handled yet.
    pending: Vec<(String, Arc<AtomicUsize>)>,
}

struct Topic<E> {
    subscribers: Mutex<Arc<Vec<Subscriber<E>>>>,
    /// Held while an event is put into the queues, so that all have the same order.
    order: Mutex<()>,
}

impl<E> Topic<E> {
    fn subscribers(&self) -> Arc<Vec<Subscriber<E>>> {
        Arc::clone(&self.subscribers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts the event into every queue; the places were reserved before.
    fn send(
        &self,
        subscribers: &[Subscriber<E>],
        permits: Vec<mpsc::Permit<'_, Queued<E>>>,
        queued: &Queued<E>,
    ) -> usize {
        let count = permits.len();
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        for (subscriber, permit) in subscribers.iter().zip(permits) {
            subscriber.pending.fetch_add(1, Ordering::SeqCst);
            permit.send(queued.share());
        }
        count
    }
}

impl EventBus {
    /// A bus with the default limits.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// To set limits, the backoff and who is told of dead letters.
    pub fn builder() -> EventBusBuilder {
        EventBusBuilder {
            queue: 1024,
            backoff: Backoff::default(),
            dead_letters: 1000,
            callback: None,
        }
    }

    /// Adds a subscriber of `E` and starts its worker; it gets what is published from now on.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `Config` when `E` has a subscriber of that name already, or outside of a runtime; `Closed`
    /// after shutdown.
    pub fn subscribe<E: Event>(
        &self,
        subscription: impl Into<Subscription>,
        handler: impl EventHandler<E>,
    ) -> Result<()> {
        let Subscription { name, queue, backoff } = subscription.into();
        let runtime = tokio::runtime::Handle::try_current().map_err(|source| {
            let message = format!("subscriber {name} needs a tokio runtime to run in");
            Error::with_source(ErrorKind::Config, message, source)
        })?;
        let mut state = self.state();
        if state.closed {
            return Err(closed(E::NAME));
        }
        let topic = topic_or_new::<E>(&mut state)?;
        let mut list = topic.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        if list.iter().any(|subscriber| subscriber.name == name) {
            let message = format!("event {} has a subscriber {name} already", E::NAME);
            return Err(Error::new(ErrorKind::Config, message));
        }
        let limit = queue.unwrap_or(self.0.queue).clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        let (sender, receiver) = mpsc::channel(limit);
        let pending = Arc::new(AtomicUsize::new(0));
        let worker = Worker {
            name: name.clone(),
            queue: receiver,
            handler,
            backoff: backoff.unwrap_or_else(|| self.0.backoff.clone()),
            pending: Arc::clone(&pending),
            dead_letters: Arc::clone(&self.0.dead_letters),
        };
        state.pending.push((format!("{name} of {}", E::NAME), Arc::clone(&pending)));
        state.workers.spawn_on(worker.run(), &runtime);
        let mut longer: Vec<_> = list.iter().map(Subscriber::share).collect();
        longer.push(Subscriber { name, queue: sender, pending });
        *list = Arc::new(longer);
        Ok(())
    }

    /// Adds a closure as a subscriber of `E`.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_fn<E, F, Fut>(
        &self,
        subscription: impl Into<Subscription>,
        handler: F,
    ) -> Result<()>
    where
        E: Event,
        F: Fn(Arc<E>, Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.subscribe(subscription, FnHandler(handler))
    }

    /// Queues `event` at every subscriber and returns how many there are (0 is no error). Waits
    /// while a queue is full; dropped while it waits, no subscriber gets the event.
    ///
    /// # Errors
    /// `Closed` after shutdown.
    pub async fn publish<E: Event>(&self, event: E, metadata: Metadata) -> Result<usize> {
        let Some(topic) = self.topic::<E>()? else { return Ok(0) };
        let subscribers = topic.subscribers();
        // First a place in every queue, then the event in all of them: all or none.
        let mut permits = Vec::with_capacity(subscribers.len());
        for subscriber in subscribers.iter() {
            permits.push(subscriber.queue.reserve().await.map_err(|_| closed(E::NAME))?);
        }
        Ok(topic.send(&subscribers, permits, &Queued::new(event, metadata)))
    }

    /// The same, but `LimitExceeded` at once when a queue is full: then no subscriber gets it.
    ///
    /// # Errors
    /// `LimitExceeded` naming the subscriber; `Closed` after shutdown.
    pub fn try_publish<E: Event>(&self, event: E, metadata: Metadata) -> Result<usize> {
        let Some(topic) = self.topic::<E>()? else { return Ok(0) };
        let subscribers = topic.subscribers();
        let mut permits = Vec::with_capacity(subscribers.len());
        for subscriber in subscribers.iter() {
            permits.push(subscriber.queue.try_reserve().map_err(|refused| match refused {
                mpsc::error::TrySendError::Closed(()) => closed(E::NAME),
                mpsc::error::TrySendError::Full(()) => Error::new(
                    ErrorKind::LimitExceeded,
                    format!(
                        "event {} was not published: the queue of subscriber {} is full ({})",
                        E::NAME,
                        subscriber.name,
                        subscriber.queue.max_capacity()
                    ),
                ),
            })?);
        }
        Ok(topic.send(&subscribers, permits, &Queued::new(event, metadata)))
    }

    /// Takes the dead letters that are kept (the newest 1,000 by default).
    pub fn take_dead_letters(&self) -> Vec<DeadLetter> {
        self.0.dead_letters.take()
    }

    /// Refuses events from now on, and lets every subscriber handle what is queued, for `grace`
    /// at most; then the workers are stopped. Dropped before it is done, it stops them too.
    ///
    /// # Errors
    /// `Timeout` naming the subscribers that did not get done, with the number of events left.
    pub async fn shutdown(&self, grace: Duration) -> Result<()> {
        let (mut workers, pending) = {
            let mut state = self.state();
            state.closed = true;
            // The queues end when the last publisher's hold on a topic is gone.
            state.topics.clear();
            (std::mem::take(&mut state.workers), std::mem::take(&mut state.pending))
        };
        let drained = async { while workers.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, drained).await.is_ok() {
            return Ok(());
        }
        workers.shutdown().await;
        let left: Vec<_> = pending
            .iter()
            .map(|(name, count)| (name, count.load(Ordering::SeqCst)))
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} ({count} left)"))
            .collect();
        let left = left.join(", ");
        Err(Error::new(
            ErrorKind::Timeout,
            format!("the event bus was stopped after {grace:?} before it was drained: {left}"),
        ))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn topic<E: Event>(&self) -> Result<Option<Arc<Topic<E>>>> {
        let state = self.state();
        if state.closed {
            return Err(closed(E::NAME));
        }
        Ok(state.topics.get(&TypeId::of::<E>()).and_then(|topic| Arc::clone(topic).downcast().ok()))
    }
}

fn topic_or_new<E: Event>(state: &mut State) -> Result<Arc<Topic<E>>> {
    let new = || -> Arc<dyn Any + Send + Sync> {
        Arc::new(Topic::<E> { subscribers: Mutex::default(), order: Mutex::new(()) })
    };
    let topic = state.topics.entry(TypeId::of::<E>()).or_insert_with(new);
    Arc::clone(topic).downcast().map_err(|_| {
        Error::new(ErrorKind::Internal, format!("event {} has another type's topic", E::NAME))
    })
}

fn closed(name: &str) -> Error {
    Error::new(ErrorKind::Closed, format!("event {name} was refused: the event bus is shut down"))
}

impl Default for EventBus {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus").field("queue", &self.0.queue).finish_non_exhaustive()
    }
}

/// Sets up an [`EventBus`].
#[must_use]
pub struct EventBusBuilder {
    queue: usize,
    backoff: Backoff,
    dead_letters: usize,
    callback: Option<Callback>,
}

impl EventBusBuilder {
    /// Events that may wait for one subscriber (default 1,024, at least 1).
    pub fn queue(mut self, limit: usize) -> Self {
        self.queue = limit;
        self
    }

    /// When a failed event is tried again, and when it becomes a dead letter.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Dead letters that are kept (default 1,000). Past it the oldest are dropped, with an error
    /// in the log and in `events_dead_letters_dropped_total`: to lose none, store them in
    /// [`on_dead_letter`](Self::on_dead_letter).
    pub fn dead_letters(mut self, limit: usize) -> Self {
        self.dead_letters = limit;
        self
    }

    /// Called with each dead letter before it is kept; it must not block.
    pub fn on_dead_letter(mut self, told: impl Fn(&DeadLetter) + Send + Sync + 'static) -> Self {
        self.callback = Some(Box::new(told));
        self
    }

    /// The bus.
    pub fn build(self) -> EventBus {
        EventBus(Arc::new(Inner {
            queue: self.queue,
            backoff: self.backoff,
            dead_letters: Arc::new(DeadLetters::new(self.dead_letters, self.callback)),
            state: Mutex::default(),
        }))
    }
}

impl fmt::Debug for EventBusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBusBuilder").finish_non_exhaustive()
    }
}
