//! The first step: the stock is set aside, and the order is placed.

use async_trait::async_trait;
use potter_eventsourcing::ExecuteError;
use potter_saga::{Compensate, Step, StepContext, StepError, StepOptions};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Tools, caused_by};
use crate::order::{InventoryReserved, OrderCommand, PlacedOrder};
use crate::shop;

/// Sets the stock aside.
#[derive(Debug)]
pub struct ReserveInventory(pub Tools);

/// What was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Under this id.
    pub reservation_id: Uuid,
}

impl ReserveInventory {
    /// Records that the order can't be placed, in a transaction of its own: that of a step which
    /// is refused is rolled back. It is safe because the order decides: it takes either this or
    /// the reservation, whichever comes first, and an attempt after a crash finds its decision.
    async fn refuse(&self, cx: &mut StepContext, order: PlacedOrder, reason: String) -> StepError {
        let (id, key) = (order.order_id.to_string(), cx.idempotency_key().to_string());
        let command = OrderCommand::Refuse(order, reason.clone());
        match self.0.orders.execute_once(&id, &key, &command, caused_by(cx)).await {
            Ok(_) => StepError::rejected(reason),
            Err(ExecuteError::Rejected(earlier)) => StepError::retry(earlier),
            Err(error) => StepError::retry(error),
        }
    }
}

#[async_trait]
impl Step for ReserveInventory {
    const NAME: &'static str = "reserve_inventory";
    type Input = PlacedOrder;
    type Output = Reservation;

    async fn run(
        &self,
        cx: &mut StepContext,
        order: PlacedOrder,
    ) -> Result<Reservation, StepError> {
        let refusal = match self.0.begin(cx).await? {
            Some(reason) => Some(reason),
            None => shop::shortage(&self.0.database, &order.items).await?,
        };
        if let Some(reason) = refusal {
            return Err(self.refuse(cx, order, reason).await);
        }
        let reservation_id = cx.idempotency_key();
        let order_id = order.order_id;
        if !shop::reserve(cx.tx().await?, reservation_id, order_id, &order.items).await? {
            return Err(StepError::retry("another order took the stock at the same moment"));
        }
        let reserved = InventoryReserved { reservation_id };
        self.0.ask(cx, order_id, OrderCommand::Reserve(order, reserved)).await?;
        Ok(Reservation { reservation_id })
    }

    fn options(&self) -> StepOptions {
        self.0.options()
    }
}

#[async_trait]
impl Compensate for ReserveInventory {
    async fn undo(
        &self,
        cx: &mut StepContext,
        order: PlacedOrder,
        _: Option<Reservation>,
    ) -> Result<(), StepError> {
        let reason = super::reason(cx);
        let reservation_id = cx.run_key();
        shop::release(cx.tx().await?, reservation_id, &order.items).await?;
        self.0.ask(cx, order.order_id, OrderCommand::Cancel(reason)).await
    }
}
