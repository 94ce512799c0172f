//! The product: what it can be asked to do, what happens to it, what it is then.

use potter_eventsourcing::{Aggregate, Snapshottable, domain_events};
use serde::{Deserialize, Serialize};

/// It was put on the list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// What it is called.
    pub name: String,
    /// What it costs, in cents.
    pub price_cents: i64,
}

/// Its price changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PriceUpdated {
    /// What it costs now, in cents.
    pub price_cents: i64,
}

/// How many there are changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StockUpdated {
    /// How many there are now.
    pub stock: i64,
}

domain_events! {
    /// What happens to a product.
    #[derive(Clone, Debug, PartialEq)]
    pub enum ProductEvent {
        /// It was put on the list.
        Created(Created) => "product.created" v 1,
        /// Its price changed.
        PriceUpdated(PriceUpdated) => "product.price.updated" v 1,
        /// How many there are changed.
        StockUpdated(StockUpdated) => "product.stock.updated" v 1,
    }
}

/// What a product can be asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Be put on the list.
    Create {
        /// What it is called.
        name: String,
        /// What it costs, in cents.
        price_cents: i64,
    },
    /// Cost this many cents.
    SetPrice(i64),
    /// Be there this many times.
    SetStock(i64),
}

/// Why it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Nobody put it on the list.
    #[error("there is no such product")]
    Unknown,
    /// It is on the list already.
    #[error("the product exists already")]
    Exists,
}

/// A product. This is also what a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// What it is called; `None` before it was put on the list.
    pub name: Option<String>,
    /// What it costs, in cents.
    pub price_cents: i64,
    /// How many there are.
    pub stock: i64,
}

impl Aggregate for Product {
    const TYPE: &'static str = "product";
    type Command = Command;
    type Event = ProductEvent;
    type Error = Refused;

    fn decide(&self, command: &Command) -> Result<Vec<ProductEvent>, Refused> {
        match command {
            Command::Create { .. } if self.name.is_some() => Err(Refused::Exists),
            Command::Create { name, price_cents } => {
                let created = Created { name: name.clone(), price_cents: *price_cents };
                Ok(vec![ProductEvent::Created(created)])
            }
            _ if self.name.is_none() => Err(Refused::Unknown),
            Command::SetPrice(cents) if *cents == self.price_cents => Ok(vec![]),
            Command::SetPrice(cents) => {
                Ok(vec![ProductEvent::PriceUpdated(PriceUpdated { price_cents: *cents })])
            }
            Command::SetStock(stock) if *stock == self.stock => Ok(vec![]),
            Command::SetStock(stock) => {
                Ok(vec![ProductEvent::StockUpdated(StockUpdated { stock: *stock })])
            }
        }
    }

    fn evolve(&mut self, event: &ProductEvent) {
        match event {
            ProductEvent::Created(created) => {
                self.name = Some(created.name.clone());
                self.price_cents = created.price_cents;
            }
            ProductEvent::PriceUpdated(price) => self.price_cents = price.price_cents,
            ProductEvent::StockUpdated(stock) => self.stock = stock.stock,
        }
    }
}

impl Snapshottable for Product {
    const SNAPSHOT_VERSION: u32 = 1;
}
