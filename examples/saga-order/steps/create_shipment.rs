//! The third step: the carrier.

use async_trait::async_trait;
use potter_saga::{Compensate, Step, StepContext, StepError, StepOptions};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Payment, Tools};
use crate::order::{OrderCommand, PlacedOrder, Shipped};
use crate::shop;

/// Hands the order to the carrier.
#[derive(Debug)]
pub struct CreateShipment(pub Tools);

/// What was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipment {
    /// Under this id.
    pub shipment_id: Uuid,
}

#[async_trait]
impl Step for CreateShipment {
    const NAME: &'static str = "create_shipment";
    type Input = (PlacedOrder, Payment);
    type Output = Shipment;

    async fn run(
        &self,
        cx: &mut StepContext,
        (order, _): (PlacedOrder, Payment),
    ) -> Result<Shipment, StepError> {
        if let Some(reason) = self.0.begin(cx).await? {
            return Err(StepError::rejected(reason));
        }
        let shipment_id = cx.idempotency_key();
        shop::ship(cx.tx().await?, shipment_id, order.order_id).await?;
        let shipped = Shipped { shipment_id };
        self.0.ask(cx, order.order_id, OrderCommand::RecordShipment(shipped)).await?;
        Ok(Shipment { shipment_id })
    }

    fn options(&self) -> StepOptions {
        self.0.options()
    }
}

#[async_trait]
impl Compensate for CreateShipment {
    async fn undo(
        &self,
        cx: &mut StepContext,
        _: (PlacedOrder, Payment),
        _: Option<Shipment>,
    ) -> Result<(), StepError> {
        let shipment_id = cx.run_key();
        Ok(shop::cancel_shipment(cx.tx().await?, shipment_id).await?)
    }
}
