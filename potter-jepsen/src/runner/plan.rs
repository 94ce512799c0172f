//! The phases of a test, as one generator.

use std::time::Duration;

use super::{Op, Workload};
use crate::generator::{self, Generator};

/// The numbers of a test that runner and simulation share.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) concurrency: usize,
    pub(crate) seed: u64,
    /// The load ends after this time, `None`: when its generator does.
    pub(crate) time: Option<Duration>,
    /// The load ends after so many operations.
    pub(crate) operations: u64,
    pub(crate) op_timeout: Duration,
    pub(crate) nemesis_timeout: Duration,
    /// The average pause between operations of all clients together; zero: none.
    pub(crate) pace: Duration,
    pub(crate) recovery: Duration,
    pub(crate) final_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrency: 5,
            seed: 0,
            time: None,
            operations: 1_000_000,
            op_timeout: Duration::from_secs(5),
            nemesis_timeout: Duration::from_secs(60),
            pace: Duration::ZERO,
            recovery: Duration::from_secs(1),
            final_time: Duration::from_secs(60),
        }
    }
}

/// What a test does, from the first operation to the last.
pub(crate) struct Plan {
    pub(crate) limits: Limits,
    pub(crate) faults: Option<Box<dyn Generator>>,
    pub(crate) has_nemesis: bool,
}

impl Plan {
    /// The load with faults beside it, heal, recovery, the final operations.
    pub(crate) fn generator(self, workload: &dyn Workload) -> Box<dyn Generator> {
        let limits = &self.limits;
        let mut load = workload.generator();
        if !limits.pace.is_zero() {
            load = load.stagger(limits.pace).boxed();
        }
        load = load.limit(limits.operations).clients().boxed();
        if let Some(time) = limits.time {
            load = load.time_limit(time).boxed();
        }
        if let Some(faults) = self.faults {
            load = generator::while_running(load, faults.nemesis().boxed()).boxed();
        }
        let end = Self::ending(limits, workload, self.has_nemesis);
        generator::concat([load, end]).boxed()
    }

    fn ending(limits: &Limits, workload: &dyn Workload, nemesis: bool) -> Box<dyn Generator> {
        let mut parts = Vec::new();
        if nemesis {
            parts.push(Self::heal());
            parts.push(generator::sleep(limits.recovery).synchronize().boxed());
        }
        if let Some(last) = workload.final_generator() {
            parts.push(last.clients().time_limit(limits.final_time).synchronize().boxed());
        }
        generator::concat(parts).boxed()
    }

    /// Heal alone: it waits for the nemesis and not for clients, which may hang because of a fault.
    pub(crate) fn heal() -> Box<dyn Generator> {
        generator::once(Op::heal()).synchronize().nemesis().boxed()
    }
}
