//! This project's own event store and saga engine as workloads of `potter-jepsen`, on PostgreSQL.
//!
//! A library for `consistency-testing` and for tests: [`EventStoreWorkload`] appends and reads while
//! readers of everything follow, [`SagaWorkload`] starts sagas whose orchestrators are killed and frozen.

mod events;
mod sagas;

pub use events::{EventStoreWorkload, Reader};
pub use sagas::{ORCHESTRATORS, Orchestrators, SagaWorkload, run_orchestrator};

use std::sync::OnceLock;
use std::time::SystemTime;

use potter_jepsen::runner::{Failure, Node};

/// Where all clients go: the other nodes are replicas, which take no writes and do not know which
/// transactions are open.
#[derive(Default)]
struct Primary(OnceLock<String>);

impl Primary {
    fn set(&self, nodes: &[Node]) -> Result<&str, Failure> {
        let node = nodes.first().ok_or("there is no node")?;
        Ok(self.0.get_or_init(|| node.url.clone()))
    }

    fn url(&self) -> Result<&str, Failure> {
        self.0.get().map(String::as_str).ok_or_else(|| "the workload was not set up".into())
    }
}

/// The URL may hold a password.
impl std::fmt::Debug for Primary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Primary")
    }
}

/// A name that no other run has: letters and digits.
fn new_run(prefix: &str) -> String {
    let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
    format!("{prefix}{nanos:x}x{:x}", std::process::id())
}
