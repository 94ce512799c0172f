//! A message bus within the process: handlers instead of a broker.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;

use super::OutboxMessage;
use super::relay::MessageBus;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Takes messages from an [`InProcessBus`].
#[async_trait]
pub trait MessageHandler: Send + Sync + 'static {
    /// Handles one message. It may come again, with the same id: record the id with the effect.
    ///
    /// # Errors
    /// Whatever it is, the message comes again later.
    async fn handle(&self, message: &OutboxMessage) -> Result<(), Failure>;
}

#[async_trait]
impl<F, Fut> MessageHandler for F
where
    F: Fn(OutboxMessage) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + Send,
{
    async fn handle(&self, message: &OutboxMessage) -> Result<(), Failure> {
        self(message.clone()).await
    }
}

/// Delivers messages to handlers in this process. A message counts as delivered when every handler
/// that wants it is done with it: what was not handled before a crash is still in the outbox.
///
/// Handlers are called one after another, in the order in which they subscribed; when one fails,
/// the message comes again to all of them. A handler that panics or takes longer than the time
/// limit (30 s) has failed.
///
/// ```
/// use std::sync::Arc;
/// use potter_core::{Database, InProcessBus, OutboxMessage, Relay, RelayOptions};
///
/// let bus = InProcessBus::new();
/// bus.subscribe("order", |message: OutboxMessage| async move {
///     println!("{} {}", message.event_type, message.aggregate_id);
///     Ok(())
/// });
/// let relay = Relay::new(Database::memory(), Arc::new(bus), RelayOptions::default());
/// # let _ = relay;
/// ```
pub struct InProcessBus {
    subscriptions: RwLock<Vec<Subscription>>,
    time_limit: Duration,
}

#[derive(Clone)]
struct Subscription {
    aggregate_type: Option<String>,
    handler: Arc<dyn MessageHandler>,
}

impl fmt::Debug for InProcessBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessBus").field("time_limit", &self.time_limit).finish_non_exhaustive()
    }
}

impl Default for InProcessBus {
    fn default() -> Self {
        Self::new()
    }
}

impl InProcessBus {
    /// A bus without handlers. Messages that nobody wants are dropped.
    pub fn new() -> Self {
        Self { subscriptions: RwLock::default(), time_limit: Duration::from_secs(30) }
    }

    /// How long a handler may take for one message.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Hands messages of `aggregate_type` to `handler`.
    pub fn subscribe(&self, aggregate_type: impl Into<String>, handler: impl MessageHandler) {
        self.add(Some(aggregate_type.into()), Arc::new(handler));
    }

    /// Hands all messages to `handler`.
    pub fn subscribe_all(&self, handler: impl MessageHandler) {
        self.add(None, Arc::new(handler));
    }

    fn add(&self, aggregate_type: Option<String>, handler: Arc<dyn MessageHandler>) {
        let mut subscriptions = self.subscriptions.write().unwrap_or_else(PoisonError::into_inner);
        subscriptions.push(Subscription { aggregate_type, handler });
    }

    fn handlers_of(&self, message: &OutboxMessage) -> Vec<Arc<dyn MessageHandler>> {
        let subscriptions = self.subscriptions.read().unwrap_or_else(PoisonError::into_inner);
        let wants = |one: &&Subscription| {
            one.aggregate_type.as_ref().is_none_or(|wanted| *wanted == message.aggregate_type)
        };
        subscriptions.iter().filter(wants).map(|one| Arc::clone(&one.handler)).collect()
    }
}

#[async_trait]
impl MessageBus for InProcessBus {
    async fn publish(&self, message: &OutboxMessage) -> Result<(), Failure> {
        for handler in self.handlers_of(message) {
            let work = AssertUnwindSafe(handler.handle(message)).catch_unwind();
            match tokio::time::timeout(self.time_limit, work).await {
                Ok(Ok(handled)) => handled?,
                Ok(Err(_)) => return Err("a handler of the message panicked".into()),
                Err(_) => {
                    let limit = self.time_limit;
                    return Err(
                        format!("a handler of the message took longer than {limit:?}").into()
                    );
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::database::Database;
    use crate::lease::Lease;
    use crate::outbox::{Outbox, Relay, RelayOptions};

    #[tokio::test]
    async fn what_a_handler_failed_at_comes_again_and_others_get_only_their_own() {
        let bus = InProcessBus::new().time_limit(Duration::from_millis(50));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let calls = Arc::new(AtomicU32::new(0));
        let (orders, attempts) = (Arc::clone(&seen), Arc::clone(&calls));
        bus.subscribe("order", move |message: OutboxMessage| {
            let (orders, attempt) = (Arc::clone(&orders), attempts.fetch_add(1, Ordering::SeqCst));
            async move {
                match attempt {
                    0 => panic!("the first attempt"),
                    1 => Err("the second".into()),
                    2 => std::future::pending().await,
                    _ => {
                        orders.lock().unwrap().push(message.id);
                        Ok(())
                    }
                }
            }
        });
        let all = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&all);
        bus.subscribe_all(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        });

        let database = Database::memory();
        let mut tx = database.begin().await.unwrap();
        let order = OutboxMessage::new("order", "1", "order.placed", &1).unwrap();
        let other = OutboxMessage::new("invoice", "1", "invoice.sent", &1).unwrap();
        Outbox.enqueue(&mut tx, &order).await.unwrap();
        Outbox.enqueue(&mut tx, &other).await.unwrap();
        tx.commit().await.unwrap();

        let backoff = crate::Backoff::fixed(Duration::ZERO).unlimited();
        let options = RelayOptions { backoff, ..RelayOptions::default() };
        let relay = Relay::new(database.clone(), Arc::new(bus), options);
        let lease =
            Lease::acquire(&database, "relay", Duration::from_secs(60)).await.unwrap().unwrap();
        for _ in 0..4 {
            relay.relay_batch(&lease).await.unwrap();
        }
        assert_eq!(*seen.lock().unwrap(), [order.id], "handled once it could be");
        assert_eq!(calls.load(Ordering::SeqCst), 4);
        assert_eq!(
            all.load(Ordering::SeqCst),
            2,
            "the invoice at once, the order when its turn came"
        );
        let mut tx = database.begin().await.unwrap();
        assert_eq!(Outbox.depth(&mut tx).await.unwrap(), (0, 0));
    }
}
