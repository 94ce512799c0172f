//! The last step, and the point of no return: the order is complete, and the world is told.

use async_trait::async_trait;
use potter_core::{OutboxMessage, derived_id};
use potter_saga::{Step, StepContext, StepError, StepOptions};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Payment, Reservation, Shipment, Tools};
use crate::order::{OrderCommand, PlacedOrder};
use crate::shop;
use examples_common::Money;

/// Completes the order.
#[derive(Debug)]
pub struct CompleteOrder(pub Tools);

/// What the world is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedOrder {
    /// The order.
    pub order_id: Uuid,
    /// Who ordered.
    pub customer_id: String,
    /// For how much.
    pub total_amount: Money,
    /// How it is sent.
    pub shipment_id: Uuid,
}

#[async_trait]
impl Step for CompleteOrder {
    const NAME: &'static str = "complete_order";
    type Input = (PlacedOrder, Reservation, Payment, Shipment);
    type Output = CompletedOrder;

    async fn run(
        &self,
        cx: &mut StepContext,
        (order, reservation, payment, shipment): Self::Input,
    ) -> Result<CompletedOrder, StepError> {
        if let Some(reason) = self.0.begin(cx).await? {
            return Err(StepError::rejected(reason));
        }
        let completed = CompletedOrder {
            order_id: order.order_id,
            customer_id: order.customer_id,
            total_amount: payment.amount,
            shipment_id: shipment.shipment_id,
        };
        shop::use_up(cx.tx().await?, reservation.reservation_id).await?;
        self.0.ask(cx, order.order_id, OrderCommand::Complete).await?;
        let id = order.order_id.to_string();
        let message_id = derived_id(&[&cx.idempotency_key().to_string(), "order.completed"]);
        let message = OutboxMessage::new("order", id, "order.completed", &completed)?;
        cx.send(message.with_id(message_id)).await?;
        Ok(completed)
    }

    fn options(&self) -> StepOptions {
        self.0.options()
    }
}
