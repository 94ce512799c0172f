//! Events that a subscriber could not handle, kept for someone to look at.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::subscriber::Delivery;

/// An event that a subscriber failed to handle as often as its backoff allows.
#[derive(Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The subscriber that gave up.
    pub subscriber: String,
    /// The event type's `NAME`.
    pub event_name: &'static str,
    /// The delivery as the last attempt saw it: its id, its metadata, the attempts made.
    pub delivery: Delivery,
    /// What the last attempt failed with.
    pub error: String,
    event: Arc<dyn Any + Send + Sync>,
}

impl DeadLetter {
    pub(super) fn new(
        subscriber: &str,
        event_name: &'static str,
        delivery: Delivery,
        error: String,
        event: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self { subscriber: subscriber.to_owned(), event_name, delivery, error, event }
    }

    /// The event itself, if it is an `E`: to publish it again, or to store it.
    pub fn event<E: Send + Sync + 'static>(&self) -> Option<Arc<E>> {
        Arc::clone(&self.event).downcast().ok()
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("subscriber", &self.subscriber)
            .field("event_name", &self.event_name)
            .field("delivery", &self.delivery)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

pub(super) type Callback = Box<dyn Fn(&DeadLetter) + Send + Sync>;

/// The newest dead letters of a bus, and who is told of each.
pub(super) struct DeadLetters {
    pub(super) limit: usize,
    pub(super) callback: Option<Callback>,
    letters: Mutex<VecDeque<DeadLetter>>,
}

impl DeadLetters {
    pub(super) fn new(limit: usize, callback: Option<Callback>) -> Self {
        Self { limit, callback, letters: Mutex::default() }
    }

    pub(super) fn add(&self, letter: DeadLetter) {
        tracing::error!(
            subscriber = letter.subscriber,
            event.name = letter.event_name,
            delivery_id = %letter.delivery.id,
            attempts = letter.delivery.attempt,
            error = letter.error,
            "an event became a dead letter"
        );
        metrics::counter!("events_dead_letters_total", "name" => letter.event_name).increment(1);
        if let Some(callback) = &self.callback {
            // The callback is the user's: its panic must not end the subscriber's worker.
            let told = std::panic::AssertUnwindSafe(|| callback(&letter));
            if std::panic::catch_unwind(told).is_err() {
                tracing::error!(delivery_id = %letter.delivery.id, "the dead-letter callback panicked");
            }
        }
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.push_back(letter);
        while letters.len() > self.limit {
            if let Some(dropped) = letters.pop_front() {
                tracing::error!(
                    delivery_id = %dropped.delivery.id,
                    event.name = dropped.event_name,
                    "a dead letter was dropped: nobody took the older ones"
                );
                metrics::counter!("events_dead_letters_dropped_total", "name" => dropped.event_name)
                    .increment(1);
            }
        }
    }

    pub(super) fn take(&self) -> Vec<DeadLetter> {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.drain(..).collect()
    }
}
