//! Runs a test: clients that use a database, a nemesis that disturbs it, and a verdict on what they
//! saw.
//!
//! | | |
//! |---|---|
//! | [`Client`] | one connection: does one operation at a time and says how it ended |
//! | [`Workload`] | opens clients, generates operations, names the checker |
//! | [`Db`] | starts and stops the system under test; not needed for one that runs already |
//! | [`Nemesis`](crate::nemesis::Nemesis) | makes faults |
//! | [`Test`] | all of them together with seed, limits and a directory for what is recorded |
//!
//! A test has these phases: the load, with faults beside it, until a time or a number of operations;
//! heal; a pause in which the system may recover; the workload's final operations (usually reads);
//! the check. The crate's README has a complete test of a database.
//!
//! # Invariants
//!
//! 1. *The order of a history is one atomic counter.* A client takes a number just before it begins
//!    an operation and one just after it has the answer. So an interval in the history contains the
//!    real one, and no clock is involved: `time` is for plots.
//! 2. *Any error is `info`*, which says that nobody knows. `fail`, which says that an operation
//!    certainly did not happen, is only what a client returns as [`Completion::Fail`]. A time-out and a panic are
//!    `info`. The one exception: no connection could be had, so nothing was sent. After that the client
//!    waits, longer each time, up to a second: a server that is down is not asked all the time.
//! 3. *`info` retires the process.* Its operation may still take effect, so its thread goes on under
//!    a new process id, with a new connection.
//! 4. *Who hangs does not hold up the rest.* Every client has an operating system thread with a
//!    runtime of its own, the nemesis runs elsewhere, and an operation that ignores its time limit is
//!    written down as `info` by the runner, which then leaves that thread to itself.
//! 5. *Heal comes always*: after the load, when the test is cancelled, when [`Running`] is dropped,
//!    and after a panic in the runner. What a killed runner leaves, the nemesis's own journal heals.
//! 6. *What was not verified proves nothing*: `Valid` becomes `Unknown` if any fault or heal was not
//!    verified, if an operation of some kind never succeeded, or if the test was cancelled.
//!
//! # What a seed repeats
//!
//! The plan: the n-th operation of every generator, its arguments, its planned time, and the faults.
//! Not the database's timing: which operation overtakes which is up to the machine. In a
//! [simulation](crate::sim) that follows from the seed too.

mod client;
mod db;
mod interpreter;
mod op;
mod outcome;
mod plan;
mod progress;
mod reach;
mod schedule;
mod store;
mod test;
mod worker;
mod workload;

pub use client::{Client, Completion, Failure, Session};
pub use db::{Db, Node};
pub use op::Op;
pub use outcome::Run;
pub use progress::{Phase, Progress};
pub use store::{read_history, write_history};
pub use test::{FaultNotes, Running, Test, TestBuilder};
pub use workload::Workload;

pub(crate) use interpreter::{Interpreter, Step};
pub(crate) use op::Action;
pub(crate) use outcome::{Faults, judge};
pub(crate) use plan::{Limits, Plan};
