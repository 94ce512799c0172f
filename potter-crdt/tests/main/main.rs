//! The tests of `potter-crdt`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod broken;
mod defects;
mod laws;
mod models;
mod simulator;
mod worlds;
