//! A client: does one operation and says honestly how it ended.

use async_trait::async_trait;

use super::{Node, Op};
use crate::value::Value;

/// How an operation ended, as its client knows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Completion {
    /// It took effect, and this is the result; for a write, what was written.
    Ok(Value),
    /// It certainly did not take effect and never will. If there is any doubt, it is [`Self::Info`].
    Fail(String),
    /// It certainly did not take effect, because the node could not be reached: nothing was sent.
    ///
    /// Recorded as `fail`. The client is closed, and the next operation gets a new one, after a pause
    /// that grows with each failure in a row, up to a second. So a client needs no pauses of its own.
    Unreachable(String),
    /// Nobody knows: it may have taken effect, may do so later, or never.
    Info(String),
}

/// Any error. Returned by [`Client::invoke`] it means [`Completion::Info`].
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One connection to the system under test, used by one process at a time.
#[async_trait]
pub trait Client: Send {
    /// Does `op`. An error, by `?` for example, is an outcome that nobody knows: that something
    /// certainly did not happen has to be said, with [`Completion::Fail`].
    ///
    /// The future is dropped at the test's time limit for operations; the client is then closed.
    /// Do not retry in here, and use no driver that does: a second execution would be invisible.
    async fn invoke(&mut self, op: &Op) -> Result<Completion, Failure>;

    /// Closes the connection. Called at the test's end, and after an operation of unknown outcome.
    async fn close(&mut self) {}
}

/// For whom a client is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Session {
    /// The node that it should talk to; clients are spread over all.
    pub node: Node,
    /// Which client thread, from 0.
    pub thread: usize,
    /// The process id: the thread's number, plus the number of threads for each time that an
    /// operation of unknown outcome retired the process.
    pub process: i64,
}
