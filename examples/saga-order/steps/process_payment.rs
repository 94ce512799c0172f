//! The second step: the money.

use async_trait::async_trait;
use potter_saga::{Compensate, Step, StepContext, StepError, StepOptions};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Reservation, Tools};
use crate::order::{OrderCommand, PaymentProcessed, PlacedOrder};
use crate::shop;
use examples_common::Money;

/// The card's limit: a payment over it is refused.
pub const CARD_LIMIT: Money = Money::from_cents(1_000_000);

/// Takes the money.
#[derive(Debug)]
pub struct ProcessPayment(pub Tools);

/// What was paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Under this id.
    pub payment_id: Uuid,
    /// So much.
    pub amount: Money,
}

#[async_trait]
impl Step for ProcessPayment {
    const NAME: &'static str = "process_payment";
    type Input = (PlacedOrder, Reservation);
    type Output = Payment;

    async fn run(
        &self,
        cx: &mut StepContext,
        (order, _): (PlacedOrder, Reservation),
    ) -> Result<Payment, StepError> {
        if let Some(reason) = self.0.begin(cx).await? {
            return Err(StepError::rejected(reason));
        }
        let PlacedOrder { order_id, customer_id, total_amount: amount, .. } = order;
        if amount > CARD_LIMIT {
            let reason = format!("{amount} is over the card's limit of {CARD_LIMIT}");
            return Err(StepError::rejected(reason));
        }
        let payment_id = cx.idempotency_key();
        shop::pay(cx.tx().await?, payment_id, order_id, &customer_id, amount).await?;
        let paid = PaymentProcessed { payment_id, amount };
        self.0.ask(cx, order_id, OrderCommand::RecordPayment(paid)).await?;
        Ok(Payment { payment_id, amount })
    }

    fn options(&self) -> StepOptions {
        self.0.options()
    }
}

#[async_trait]
impl Compensate for ProcessPayment {
    async fn undo(
        &self,
        cx: &mut StepContext,
        _: (PlacedOrder, Reservation),
        _: Option<Payment>,
    ) -> Result<(), StepError> {
        let payment_id = cx.run_key();
        Ok(shop::refund(cx.tx().await?, payment_id).await?)
    }
}
