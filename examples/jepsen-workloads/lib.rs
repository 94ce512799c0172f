//! This project's own event store and saga engine as workloads of `potter-jepsen`, on PostgreSQL.
//!
//! A library for `consistency-testing` and for tests: [`EventStoreWorkload`] appends and reads while
//! readers of everything follow, [`SagaWorkload`] starts sagas whose orchestrators crash.

mod events;
mod sagas;

pub use events::{EventStoreWorkload, Reader};
pub use sagas::{OrchestratorNemesis, SagaWorkload};

use std::time::SystemTime;

/// A name that no other run has: letters and digits.
fn new_run(prefix: &str) -> String {
    let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
    format!("{prefix}{nanos:x}x{:x}", std::process::id())
}
