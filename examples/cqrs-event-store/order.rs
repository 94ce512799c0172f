//! An order, from its creation to its delivery.

use std::collections::BTreeMap;

use examples_common::Money;
use potter_eventsourcing::{Aggregate, Snapshottable, domain_events};
use serde::{Deserialize, Serialize};

use crate::refused::Refused;

/// How many kinds of items an order has at most.
pub const ITEMS_MAX: usize = 500;

/// So many of a product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Which.
    pub product_id: String,
    /// How many, 1 or more.
    pub quantity: u32,
    /// What one costs.
    pub price: Money,
}

/// It was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// Who orders.
    pub customer_id: String,
    /// What it costs beside its items.
    pub amount: Money,
    /// What it had at once.
    pub items: Vec<Item>,
}

/// An item was taken out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemRemoved {
    /// Which.
    pub product_id: String,
}

/// It was paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paid {
    /// How much.
    pub amount: Money,
    /// By what.
    pub method: String,
}

/// It is on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shipped {
    /// Where to look for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking_number: Option<String>,
}

/// It was called off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the customer gets back.
    pub refund: Money,
}

domain_events! {
    /// What happens to an order.
    #[derive(Clone, Debug, PartialEq)]
    pub enum OrderEvent {
        /// It was created.
        Created(Created) => "order.created" v 1,
        /// An item was added.
        ItemAdded(Item) => "order.item_added" v 1,
        /// An item was taken out.
        ItemRemoved(ItemRemoved) => "order.item_removed" v 1,
        /// The customer wants it so.
        Confirmed => "order.confirmed" v 1,
        /// It was paid.
        Paid(Paid) => "order.paid" v 1,
        /// It is on its way.
        Shipped(Shipped) => "order.shipped" v 1,
        /// It arrived.
        Delivered => "order.delivered" v 1,
        /// It was called off.
        Cancelled(Cancelled) => "order.cancelled" v 1,
    }
}

/// What an order can be asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Create it.
    Create(Created),
    /// Add an item, or more of it.
    AddItem(Item),
    /// Take an item out.
    RemoveItem(String),
    /// Fix what is ordered.
    Confirm,
    /// Pay: all of it, or `amount`, which must be that.
    Pay {
        /// How much.
        amount: Option<Money>,
        /// By what.
        method: String,
    },
    /// Send it.
    Ship(Shipped),
    /// It arrived.
    Deliver,
    /// Call it off.
    Cancel {
        /// Why.
        reason: Option<String>,
    },
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nobody created it yet.
    #[default]
    None,
    /// Items can be added.
    Created,
    /// It waits for its payment.
    Confirmed,
    /// It waits to be sent.
    Paid,
    /// It is on its way.
    Shipped,
    /// It arrived.
    Delivered,
    /// It was called off.
    Cancelled,
}

impl Status {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Created => "created",
            Self::Confirmed => "confirmed",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How many of a product, and for how much each.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// How many.
    pub quantity: u32,
    /// What one costs.
    pub price: Money,
}

/// An order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Who orders.
    pub customer_id: String,
    /// How far it is.
    pub status: Status,
    /// What it costs beside its items.
    pub amount: Money,
    /// What is in it, by product.
    pub items: BTreeMap<String, Line>,
    /// What it costs.
    pub total: Money,
    /// Where to look for it, when it is on its way.
    pub tracking_number: Option<String>,
}

impl Order {
    fn check(
        &self,
        command: &'static str,
        needed: &'static str,
        allowed: &[Status],
    ) -> Result<(), Refused> {
        if allowed.contains(&self.status) {
            return Ok(());
        }
        Err(Refused::WrongStatus { status: self.status.as_str(), command, needed })
    }

    fn add(&mut self, item: &Item) -> Option<()> {
        let line = self.items.entry(item.product_id.clone());
        let line = line.or_insert(Line { quantity: 0, price: item.price });
        line.quantity = line.quantity.checked_add(item.quantity)?;
        line.price = item.price;
        let prices = self.items.values().try_fold(self.amount, |sum, line| {
            sum.checked_add(line.price.checked_times(i64::from(line.quantity))?)
        });
        self.total = prices?;
        (self.items.len() <= ITEMS_MAX).then_some(())
    }

    /// What it would be with these items.
    fn with(&self, items: &[Item]) -> Option<Self> {
        let mut order = self.clone();
        items.iter().try_for_each(|item| order.add(item))?;
        Some(order)
    }

    fn decide_open(&self, command: &Command) -> Result<OrderEvent, Refused> {
        const ITEMS: (&str, &[Status]) = ("created", &[Status::Created]);
        Ok(match command {
            Command::Create(_) => return Err(Refused::OrderExists),
            Command::AddItem(item) => {
                self.check("AddItem", ITEMS.0, ITEMS.1)?;
                self.with(std::slice::from_ref(item)).ok_or(Refused::OrderTooLarge)?;
                OrderEvent::ItemAdded(item.clone())
            }
            Command::RemoveItem(product_id) => {
                self.check("RemoveItem", ITEMS.0, ITEMS.1)?;
                if !self.items.contains_key(product_id) {
                    return Err(Refused::NoSuchItem(product_id.clone()));
                }
                OrderEvent::ItemRemoved(ItemRemoved { product_id: product_id.clone() })
            }
            Command::Confirm => {
                self.check("ConfirmOrder", ITEMS.0, ITEMS.1)?;
                if self.total == Money::default() && self.items.is_empty() {
                    return Err(Refused::OrderEmpty);
                }
                OrderEvent::Confirmed
            }
            Command::Pay { amount, method } => {
                self.check("PayOrder", "confirmed", &[Status::Confirmed])?;
                let (total, amount) = (self.total, amount.unwrap_or(self.total));
                if amount != total {
                    return Err(Refused::WrongAmount { total, amount });
                }
                OrderEvent::Paid(Paid { amount, method: method.clone() })
            }
            Command::Ship(shipped) => {
                self.check("ShipOrder", "paid", &[Status::Paid])?;
                OrderEvent::Shipped(shipped.clone())
            }
            Command::Deliver => {
                self.check("DeliverOrder", "shipped", &[Status::Shipped])?;
                OrderEvent::Delivered
            }
            Command::Cancel { reason } => {
                let allowed = [Status::Created, Status::Confirmed, Status::Paid];
                self.check("CancelOrder", "not on its way yet", &allowed)?;
                let paid = self.status == Status::Paid;
                let refund = if paid { self.total } else { Money::default() };
                OrderEvent::Cancelled(Cancelled { reason: reason.clone(), refund })
            }
        })
    }
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Command = Command;
    type Event = OrderEvent;
    type Error = Refused;

    fn decide(&self, command: &Command) -> Result<Vec<OrderEvent>, Refused> {
        let event = match (self.status, command) {
            (Status::None, Command::Create(created)) => {
                let empty = Self { amount: created.amount, ..Self::default() };
                empty.with(&created.items).ok_or(Refused::OrderTooLarge)?;
                OrderEvent::Created(created.clone())
            }
            (Status::None, _) => return Err(Refused::NoSuchOrder),
            _ => self.decide_open(command)?,
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Created(created) => {
                self.customer_id.clone_from(&created.customer_id);
                self.amount = created.amount;
                self.total = created.amount;
                self.status = Status::Created;
                for item in &created.items {
                    self.add(item);
                }
            }
            OrderEvent::ItemAdded(item) => {
                self.add(item);
            }
            OrderEvent::ItemRemoved(removed) => {
                if let Some(line) = self.items.remove(&removed.product_id) {
                    let price = line.price.checked_times(i64::from(line.quantity));
                    let price = price.map_or(0, Money::cents);
                    self.total = Money::from_cents(self.total.cents() - price);
                }
            }
            OrderEvent::Confirmed => self.status = Status::Confirmed,
            OrderEvent::Paid(_) => self.status = Status::Paid,
            OrderEvent::Shipped(shipped) => {
                self.status = Status::Shipped;
                self.tracking_number.clone_from(&shipped.tracking_number);
            }
            OrderEvent::Delivered => self.status = Status::Delivered,
            OrderEvent::Cancelled(_) => self.status = Status::Cancelled,
        }
    }
}

impl Snapshottable for Order {
    const SNAPSHOT_VERSION: u32 = 1;
}
