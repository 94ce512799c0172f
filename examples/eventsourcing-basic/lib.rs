//! A bank account that is the sum of its events.

mod account;
mod api;

pub use account::{Account, AccountEvent, Command, Refused};
pub use api::app;
