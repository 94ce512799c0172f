//! An order as a saga: reserve the stock, take the money, ship, complete. When a step refuses,
//! those before it are undone, in a database where every step and its progress are one commit.

mod api;
mod demo;
pub mod order;
pub mod service;
pub mod shop;
pub mod steps;
pub mod switches;

pub use api::app;
pub use demo::demo;
