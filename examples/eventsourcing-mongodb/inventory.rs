//! The stock of a product in a warehouse: what it can be asked to do, what happens to it, what it is
//! then.

use potter_eventsourcing::{Aggregate, domain_events};
use serde::{Deserialize, Serialize};

/// The most that can be there, and that can be moved at once.
pub(crate) const QUANTITY_MAX: u64 = 1_000_000_000;

/// Goods came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Added {
    /// Of what.
    pub product_id: String,
    /// Where to.
    pub warehouse_id: String,
    /// How many.
    pub quantity: u64,
}

/// Goods are promised to somebody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reserved {
    /// How many.
    pub quantity: u64,
}

domain_events! {
    /// What happens to the stock.
    #[derive(Clone, Debug, PartialEq)]
    pub enum InventoryEvent {
        /// Goods came.
        Added(Added) => "inventory.item.added" v 1,
        /// Goods are promised to somebody.
        Reserved(Reserved) => "inventory.item.reserved" v 1,
    }
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Goods came.
    Add(Added),
    /// Promise this many to somebody.
    Reserve(u64),
}

/// Why it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Nothing of it ever came.
    #[error("there is no such inventory")]
    Unknown,
    /// There is less.
    #[error("{available} are there, {asked} were asked for")]
    Insufficient {
        /// What can still be reserved.
        available: u64,
        /// What was asked for.
        asked: u64,
    },
    /// There would be too much.
    #[error("an inventory holds at most {QUANTITY_MAX}")]
    TooMuch,
}

/// The stock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Of what; empty before something came.
    pub product_id: String,
    /// Where.
    pub warehouse_id: String,
    /// What can still be reserved.
    pub available: u64,
    /// What is promised.
    pub reserved: u64,
}

impl Aggregate for Inventory {
    const TYPE: &'static str = "inventory";
    type Command = Command;
    type Event = InventoryEvent;
    type Error = Refused;

    fn decide(&self, command: &Command) -> Result<Vec<InventoryEvent>, Refused> {
        match command {
            Command::Add(added) if self.available + added.quantity > QUANTITY_MAX => {
                Err(Refused::TooMuch)
            }
            Command::Add(added) => Ok(vec![InventoryEvent::Added(added.clone())]),
            Command::Reserve(_) if self.product_id.is_empty() => Err(Refused::Unknown),
            Command::Reserve(asked) if *asked > self.available => {
                Err(Refused::Insufficient { available: self.available, asked: *asked })
            }
            Command::Reserve(quantity) => {
                Ok(vec![InventoryEvent::Reserved(Reserved { quantity: *quantity })])
            }
        }
    }

    fn evolve(&mut self, event: &InventoryEvent) {
        match event {
            InventoryEvent::Added(added) => {
                self.product_id.clone_from(&added.product_id);
                self.warehouse_id.clone_from(&added.warehouse_id);
                self.available += added.quantity;
            }
            InventoryEvent::Reserved(reserved) => {
                self.available -= reserved.quantity;
                self.reserved += reserved.quantity;
            }
        }
    }
}
