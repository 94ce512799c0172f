//! Projections and subscribers that see old events in the shape of today.

use std::sync::Arc;

use async_trait::async_trait;
use potter_core::Tx;

use super::rebuild::Rebuildable;
use super::shadow::ShadowTable;
use super::subscriber::Subscriber;
use super::{HandlerError, Projection};
use crate::error::Result;
use crate::event::RecordedEvent;
use crate::store::EventFilter;
use crate::upcast::Upcasters;

/// A [`Projection`] or [`Subscriber`] whose events went through [`Upcasters`] before. Without it,
/// handlers see events as they were stored.
///
/// Its filter stays that of today: events of the types that a step begins with are read too, and
/// only those are passed on that are wanted in their new shape. One event that is split into
/// several comes as several, with one position and id. A step that fails is treated as a handler
/// that fails.
///
/// ```
/// # use async_trait::async_trait;
/// # use potter_core::Tx;
/// use potter_eventsourcing::{EventFilter, HandlerError, Projection, RecordedEvent};
/// use potter_eventsourcing::{Upcasted, Upcasters, Worker};
/// # use potter_eventsourcing::EventStore;
/// # use std::sync::Arc;
///
/// struct Orders;
///
/// #[async_trait]
/// impl Projection for Orders {
/// #   fn name(&self) -> &str {
/// #       "orders"
/// #   }
/// #
///     fn filter(&self) -> EventFilter {
///         EventFilter::all().event_types(["order.placed"])
///     }
///     // …
/// #   async fn handle(&self, _: &mut Tx, _: &RecordedEvent) -> Result<(), HandlerError> {
/// #       Ok(())
/// #   }
/// }
///
/// # fn worker(store: Arc<dyn EventStore>) -> potter_eventsourcing::Result<Worker> {
/// // It was called "order.created" once: those come as "order.placed".
/// let upcasters = Upcasters::new().rename(("order.created", 1), ("order.placed", 1));
/// let worker = Worker::new(store, Upcasted::new(Orders, upcasters))?;
/// # Ok(worker)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Upcasted<P> {
    inner: P,
    upcasters: Upcasters,
}

impl<P> Upcasted<P> {
    /// `inner`, with its events in the shape that `upcasters` give them.
    pub fn new(inner: P, upcasters: Upcasters) -> Self {
        Self { inner, upcasters }
    }

    /// What it is around.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    fn shaped(&self, events: &[RecordedEvent], wanted: &EventFilter) -> Result<Vec<RecordedEvent>> {
        let mut shaped = Vec::with_capacity(events.len());
        for event in events {
            let new = self.upcasters.apply(event)?;
            shaped.extend(new.into_iter().filter(|event| wanted.matches(event)));
        }
        Ok(shaped)
    }
}

#[async_trait]
impl<P: Projection> Projection for Upcasted<P> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn version(&self) -> u32 {
        self.inner.version()
    }

    fn filter(&self) -> EventFilter {
        self.inner.filter().or_event_types(self.upcasters.old_types())
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        for event in self.shaped(std::slice::from_ref(event), &self.inner.filter())? {
            self.inner.handle(tx, &event).await?;
        }
        Ok(())
    }

    async fn handle_batch(
        &self,
        tx: &mut Tx,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        let shaped = self.shaped(events, &self.inner.filter())?;
        if shaped.is_empty() {
            return Ok(());
        }
        self.inner.handle_batch(tx, &shaped).await
    }

    async fn reset(&self, tx: &mut Tx) -> Result<(), HandlerError> {
        self.inner.reset(tx).await
    }
}

#[async_trait]
impl<P: Rebuildable> Rebuildable for Upcasted<P> {
    fn tables(&self) -> Vec<ShadowTable> {
        self.inner.tables()
    }

    fn shadow(&self) -> Arc<dyn Projection> {
        Arc::new(Upcasted::new(self.inner.shadow(), self.upcasters.clone()))
    }

    async fn create_shadow(&self, tx: &mut Tx) -> Result<(), HandlerError> {
        self.inner.create_shadow(tx).await
    }
}

#[async_trait]
impl<P: Subscriber> Subscriber for Upcasted<P> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn filter(&self) -> EventFilter {
        self.inner.filter().or_event_types(self.upcasters.old_types())
    }

    async fn handle(&self, event: &RecordedEvent) -> Result<(), HandlerError> {
        for event in self.shaped(std::slice::from_ref(event), &self.inner.filter())? {
            self.inner.handle(&event).await?;
        }
        Ok(())
    }

    async fn handle_batch(&self, events: &[RecordedEvent]) -> Result<(), HandlerError> {
        let shaped = self.shaped(events, &self.inner.filter())?;
        if shaped.is_empty() {
            return Ok(());
        }
        self.inner.handle_batch(&shaped).await
    }
}

/// The same projection, shared.
#[async_trait]
impl<P: Projection + ?Sized> Projection for Arc<P> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn version(&self) -> u32 {
        (**self).version()
    }

    fn filter(&self) -> EventFilter {
        (**self).filter()
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        (**self).handle(tx, event).await
    }

    async fn handle_batch(
        &self,
        tx: &mut Tx,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        (**self).handle_batch(tx, events).await
    }

    async fn reset(&self, tx: &mut Tx) -> Result<(), HandlerError> {
        (**self).reset(tx).await
    }
}
