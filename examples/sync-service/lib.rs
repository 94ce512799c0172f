//! Devices that go offline, and the service that brings them together again: [`protocol`] says what
//! it promises.

mod api;
mod bench;
pub mod client;
pub mod companion;
pub mod conflicts;
mod demo;
pub mod document;
pub mod ingest;
pub mod merge;
pub mod protocol;
#[cfg(feature = "redis")]
pub mod redis;
pub mod service;
pub mod store;
pub mod upkeep;

pub use api::app;
pub use bench::bench;
pub use demo::demo;
