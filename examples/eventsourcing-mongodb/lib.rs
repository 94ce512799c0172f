//! An inventory that is the sum of its events, in MongoDB.

mod api;
mod inventory;
mod once;

pub use api::{app, settings};
pub use inventory::{Command, Inventory, InventoryEvent, Refused};
