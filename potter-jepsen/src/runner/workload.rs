//! What clients do and what must be true of it.

use async_trait::async_trait;

use super::{Client, Failure, Node, Session};
use crate::generator::Generator;
use crate::verdict::Checker;

/// A kind of use with a promise: generator, client and checker.
#[async_trait]
pub trait Workload: Send + Sync {
    /// A name for logs and reports.
    fn name(&self) -> String;

    /// Prepares the system: tables, accounts. Called once, before the clients.
    async fn setup(&self, nodes: &[Node]) -> Result<(), Failure> {
        _ = nodes;
        Ok(())
    }

    /// Opens a client. If that fails, the operation that it was for is a `fail`: nothing was sent.
    ///
    /// Each client lives on a thread with a runtime of its own. Open its connections here, and share
    /// none between clients: a connection is driven by the runtime that opened it.
    async fn open(&self, session: &Session) -> Result<Box<dyn Client>, Failure>;

    /// The operations of the load. May be endless: the test limits it.
    fn generator(&self) -> Box<dyn Generator>;

    /// What is done at the end, when all faults are healed: usually reads. Must end by itself.
    fn final_generator(&self) -> Option<Box<dyn Generator>> {
        None
    }

    /// What decides.
    fn checker(&self) -> Box<dyn Checker + Send>;

    /// Takes away what `setup` made, also if that failed or was cancelled half way.
    async fn teardown(&self, nodes: &[Node]) -> Result<(), Failure> {
        _ = nodes;
        Ok(())
    }
}
