//! Following the log with code of the user's own, outside of a transaction.

use async_trait::async_trait;

use super::HandlerError;
use crate::event::RecordedEvent;
use crate::store::EventFilter;

/// Follows the log and does something elsewhere with each event: calls a service, sends a mail.
///
/// At least once: the checkpoint is moved after [`handle`](Self::handle) answered, so an event
/// comes again when the process dies between the two. The event's id is the idempotency key.
#[async_trait]
pub trait Subscriber: Send + Sync + 'static {
    /// Names it, and its checkpoints: 1 to 200 bytes. Never changes.
    fn name(&self) -> &str;

    /// Which events it wants. The others are not even read.
    fn filter(&self) -> EventFilter {
        EventFilter::all()
    }

    /// Takes one event.
    ///
    /// # Errors
    /// Whatever went wrong: it is tried again, parked or stopped at, as
    /// [`WorkerOptions`](super::WorkerOptions) say.
    async fn handle(&self, event: &RecordedEvent) -> Result<(), HandlerError>;

    /// Takes events that come one after the other. When it fails, all of them come again, in
    /// smaller batches.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
    async fn handle_batch(&self, events: &[RecordedEvent]) -> Result<(), HandlerError> {
        for event in events {
            self.handle(event).await?;
        }
        Ok(())
    }
}
