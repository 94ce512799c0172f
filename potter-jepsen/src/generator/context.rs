//! What a generator knows when it is asked.

use std::time::Duration;

/// One line of execution. A client's thread lives as long as the test; its process ends with every
/// operation of unknown outcome, and the thread goes on as a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Thread {
    /// A client, from 0.
    Client(usize),
    /// Who injects faults.
    Nemesis,
}

/// The time, and which threads there are.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) now: Duration,
    pub(crate) free: Vec<Thread>,
    pub(crate) threads: Vec<Thread>,
}

impl Context {
    /// A context for tests of generators: `free` in the order in which they are to be used.
    pub fn new(now: Duration, threads: Vec<Thread>, free: Vec<Thread>) -> Self {
        Self { now, free, threads }
    }

    /// The time since the test began: real, or that of the simulation.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The threads that could take an operation now, the one that waits longest first.
    pub fn free(&self) -> &[Thread] {
        &self.free
    }

    /// All threads that this generator may use.
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    /// The same with only those threads that `which` names.
    #[must_use]
    pub fn only(&self, which: impl Fn(Thread) -> bool) -> Self {
        let keep = |all: &[Thread]| all.iter().copied().filter(|&thread| which(thread)).collect();
        Self { now: self.now, free: keep(&self.free), threads: keep(&self.threads) }
    }
}
