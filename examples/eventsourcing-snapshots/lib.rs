//! Products that are loaded from snapshots and the events behind them.

mod api;
mod bench;
mod product;
mod strategy;

pub use api::app;
pub use bench::bench;
pub use product::{Command, Product, ProductEvent, Refused};
