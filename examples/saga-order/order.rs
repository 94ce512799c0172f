//! The order: what was asked for, and what has happened to it.

use potter_eventsourcing::{Aggregate, domain_events};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use examples_common::Money;

/// One product of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Item {
    /// The product.
    #[schema(example = "prod-1")]
    pub product_id: String,
    /// How many of it.
    #[schema(example = 2)]
    pub quantity: i64,
    /// What one costs.
    #[schema(value_type = f64, example = 29.99)]
    pub price: Money,
}

/// An order as it was placed: the input of its saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedOrder {
    /// Its id.
    pub order_id: Uuid,
    /// Who ordered.
    pub customer_id: String,
    /// What.
    pub items: Vec<Item>,
    /// For how much in all.
    pub total_amount: Money,
}

/// The stock for it is set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryReserved {
    /// Under this id.
    pub reservation_id: Uuid,
}

/// It was paid for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentProcessed {
    /// Under this id.
    pub payment_id: Uuid,
    /// So much.
    pub amount: Money,
}

/// It was handed to the carrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipped {
    /// Under this id.
    pub shipment_id: Uuid,
}

/// It was called off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Why.
    pub reason: String,
}

domain_events! {
    /// What happens to an order.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum OrderEvent {
        /// It was placed.
        Placed(PlacedOrder) => "order.placed" v 1,
        /// Its stock is set aside.
        InventoryReserved(InventoryReserved) => "order.inventory_reserved" v 1,
        /// It was paid for.
        PaymentProcessed(PaymentProcessed) => "order.payment_processed" v 1,
        /// It was handed to the carrier.
        Shipped(Shipped) => "order.shipped" v 1,
        /// All is done.
        Completed => "order.completed" v 1,
        /// It was called off.
        Cancelled(Cancelled) => "order.cancelled" v 1,
    }
}

/// Where an order is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// Its saga has not come to it yet.
    #[default]
    Pending,
    /// Its stock is set aside.
    Reserved,
    /// It was paid for.
    Paid,
    /// It was handed to the carrier.
    Shipped,
    /// All is done. Final.
    Completed,
    /// It was called off. Final.
    Cancelled,
}

/// The sum of what has happened to an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Where it is.
    pub state: OrderState,
    /// What was asked for.
    pub placed: Option<PlacedOrder>,
    /// Why it was called off.
    pub reason: Option<String>,
}

/// What can be asked of an order.
#[derive(Clone, Debug)]
pub enum OrderCommand {
    /// The stock for this order was set aside: it is placed.
    Reserve(PlacedOrder, InventoryReserved),
    /// It can't be placed.
    Refuse(PlacedOrder, String),
    /// It was paid for.
    RecordPayment(PaymentProcessed),
    /// It was handed to the carrier.
    RecordShipment(Shipped),
    /// All is done.
    Complete,
    /// Call it off: what was done for it is being undone.
    Cancel(String),
}

/// Why an order refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// It was called off before.
    #[error("{0}")]
    Cancelled(String),
    /// It does not come next.
    #[error("an order that is {0:?} can't be asked for that")]
    OutOfTurn(OrderState),
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Error = OrderError;

    fn decide(&self, command: &OrderCommand) -> Result<Vec<OrderEvent>, OrderError> {
        use OrderState::{Completed, Paid, Pending, Reserved};

        let out_of_turn = || Err(OrderError::OutOfTurn(self.state));
        if let (OrderState::Cancelled, Some(reason)) = (self.state, &self.reason) {
            return Err(OrderError::Cancelled(reason.clone()));
        }
        Ok(match (self.state, command.clone()) {
            (Pending, OrderCommand::Reserve(placed, reserved)) => {
                vec![OrderEvent::Placed(placed), OrderEvent::InventoryReserved(reserved)]
            }
            (Pending, OrderCommand::Refuse(placed, reason)) => {
                vec![OrderEvent::Placed(placed), OrderEvent::Cancelled(Cancelled { reason })]
            }
            (Reserved, OrderCommand::RecordPayment(paid)) => {
                vec![OrderEvent::PaymentProcessed(paid)]
            }
            (Paid, OrderCommand::RecordShipment(shipped)) => vec![OrderEvent::Shipped(shipped)],
            (OrderState::Shipped, OrderCommand::Complete) => vec![OrderEvent::Completed],
            (Pending | Completed, OrderCommand::Cancel(_)) => return out_of_turn(),
            (_, OrderCommand::Cancel(reason)) => {
                vec![OrderEvent::Cancelled(Cancelled { reason })]
            }
            _ => return out_of_turn(),
        })
    }

    fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed(placed) => self.placed = Some(placed.clone()),
            OrderEvent::InventoryReserved(_) => self.state = OrderState::Reserved,
            OrderEvent::PaymentProcessed(_) => self.state = OrderState::Paid,
            OrderEvent::Shipped(_) => self.state = OrderState::Shipped,
            OrderEvent::Completed => self.state = OrderState::Completed,
            OrderEvent::Cancelled(Cancelled { reason }) => {
                self.state = OrderState::Cancelled;
                self.reason = Some(reason.clone());
            }
        }
    }
}
