//! The tests of `potter-crdt`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod broken;
mod defects;
#[path = "../../examples/fuzz/harness.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the fuzzer")]
mod fuzz;
mod golden;
mod hostile;
mod laws;
mod models;
mod simulator;
mod worlds;
