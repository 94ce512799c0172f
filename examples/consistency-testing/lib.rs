//! Consistency tests under faults, over HTTP: clients use a database while it is killed, frozen and
//! cut off, and what they saw is checked.

mod api;
mod demo;
mod duration;
mod environment;
mod faults;
mod performance;
mod runs;
mod spec;
mod storage;
mod workloads;

pub use api::app;
pub use demo::demo;
