//! One subscriber of an event bus: its queue, its worker, its retries.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::dead_letter::{DeadLetter, DeadLetters};
use super::error::panic_text;
use super::event::Event;
use crate::backoff::{Backoff, jitter};
use crate::id::new_id;
use crate::metadata::Metadata;

/// What an event handler fails with: any error, or a text.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// What comes with an event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The same at every subscriber and every attempt: to recognise what was done before.
    pub id: Uuid,
    /// The publisher's context.
    pub metadata: Metadata,
    /// 1 for the first attempt.
    pub attempt: u32,
}

/// Reacts to one type of event.
#[async_trait]
pub trait EventHandler<E: Event>: Send + Sync + 'static {
    /// Reacts to `event`. After an error or a panic it gets the same event again.
    ///
    /// # Errors
    /// Any: the bus tries again, and in the end makes it a dead letter.
    async fn handle(&self, event: Arc<E>, delivery: &Delivery) -> Result<(), HandlerError>;
}

pub(super) struct FnHandler<F>(pub(super) F);

#[async_trait]
impl<E, F, Fut> EventHandler<E> for FnHandler<F>
where
    E: Event,
    F: Fn(Arc<E>, Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    async fn handle(&self, event: Arc<E>, delivery: &Delivery) -> Result<(), HandlerError> {
        (self.0)(event, delivery.clone()).await
    }
}

/// How a subscriber is served; a name alone takes the bus's defaults.
///
/// ```
/// use potter_core::Backoff;
/// use potter_core::bus::Subscription;
///
/// let mailer = Subscription::new("mailer").queue(16).backoff(Backoff::never());
/// # let _ = mailer;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Subscription {
    pub(super) name: String,
    pub(super) queue: Option<usize>,
    pub(super) backoff: Option<Backoff>,
}

impl Subscription {
    /// A subscriber's name: unique among the subscribers of an event type.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), queue: None, backoff: None }
    }

    /// Events that may wait for this subscriber before publishers wait (at least 1).
    pub fn queue(mut self, limit: usize) -> Self {
        self.queue = Some(limit);
        self
    }

    /// When to try again after a failure, and when to give up.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }
}

impl<T: Into<String>> From<T> for Subscription {
    fn from(name: T) -> Self {
        Self::new(name)
    }
}

/// An event in a subscriber's queue.
pub(super) struct Queued<E> {
    pub(super) id: Uuid,
    pub(super) event: Arc<E>,
    pub(super) metadata: Metadata,
}

impl<E> Queued<E> {
    /// A new delivery.
    pub(super) fn new(event: E, metadata: Metadata) -> Self {
        Self { id: new_id(), event: Arc::new(event), metadata }
    }

    /// The same delivery for another queue.
    pub(super) fn share(&self) -> Self {
        Self { id: self.id, event: Arc::clone(&self.event), metadata: self.metadata.clone() }
    }
}

/// The bus's end of a subscriber.
pub(super) struct Subscriber<E> {
    pub(super) name: String,
    pub(super) queue: mpsc::Sender<Queued<E>>,
    /// Queued or being handled.
    pub(super) pending: Arc<AtomicUsize>,
}

impl<E> Subscriber<E> {
    /// Another hold on the same queue.
    pub(super) fn share(&self) -> Self {
        Self {
            name: self.name.clone(),
            queue: self.queue.clone(),
            pending: Arc::clone(&self.pending),
        }
    }
}

/// The subscriber's own end: takes one event after the other, so that order is kept.
pub(super) struct Worker<E, H> {
    pub(super) name: String,
    pub(super) queue: mpsc::Receiver<Queued<E>>,
    pub(super) handler: H,
    pub(super) backoff: Backoff,
    pub(super) pending: Arc<AtomicUsize>,
    pub(super) dead_letters: Arc<DeadLetters>,
}

impl<E: Event, H: EventHandler<E>> Worker<E, H> {
    /// Runs until every publisher's end is gone and the queue is empty.
    pub(super) async fn run(mut self) {
        while let Some(queued) = self.queue.recv().await {
            self.deliver(queued).await;
            self.pending.fetch_sub(1, Ordering::SeqCst);
        }
    }

    async fn deliver(&self, queued: Queued<E>) {
        let start = tokio::time::Instant::now();
        let mut delivery = Delivery { id: queued.id, metadata: queued.metadata, attempt: 1 };
        loop {
            let Err(error) = self.attempt(&queued.event, &delivery).await else { return };
            let Some(wait) = self.backoff.delay(delivery.attempt, start.elapsed(), jitter()) else {
                let letter =
                    DeadLetter::new(&self.name, E::NAME, delivery, error, queued.event.clone());
                self.dead_letters.add(letter);
                return;
            };
            self.log_retry(&delivery, &error, wait);
            tokio::time::sleep(wait).await;
            delivery.attempt = delivery.attempt.saturating_add(1);
        }
    }

    async fn attempt(&self, event: &Arc<E>, delivery: &Delivery) -> Result<(), String> {
        let start = Instant::now();
        let handled = self.handler.handle(Arc::clone(event), delivery);
        let outcome = AssertUnwindSafe(handled).catch_unwind().await;
        let result = match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(format!("panicked: {}", panic_text(&*panic))),
        };
        let outcome = if result.is_ok() { "ok" } else { "error" };
        let name = E::NAME;
        metrics::counter!("events_total", "name" => name, "subscriber" => self.name.clone(), "outcome" => outcome)
            .increment(1);
        metrics::histogram!("events_duration_seconds", "name" => name, "subscriber" => self.name.clone())
            .record(start.elapsed().as_secs_f64());
        if result.is_err() {
            metrics::counter!("errors_total", "source" => "event", "name" => name).increment(1);
        }
        result
    }

    fn log_retry(&self, delivery: &Delivery, error: &str, wait: Duration) {
        tracing::warn!(
            subscriber = self.name,
            event.name = E::NAME,
            delivery_id = %delivery.id,
            correlation_id = delivery.metadata.correlation_id.as_deref(),
            attempt = delivery.attempt,
            ?wait,
            error,
            "an event handler failed and is tried again"
        );
    }
}
