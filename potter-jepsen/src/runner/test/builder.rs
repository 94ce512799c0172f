//! What a test consists of.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Test;
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result};
use crate::generator::{Generator, fault_windows};
use crate::nemesis::{Fault, Nemesis};
use crate::runner::{Db, Limits, Node, Workload};

/// Builds a [`Test`].
pub struct TestBuilder {
    test: Test,
}

impl std::fmt::Debug for TestBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.test.fmt(f)
    }
}

/// Clients are threads; nobody needs more.
const CLIENTS_MAX: usize = 1000;

impl TestBuilder {
    pub(super) fn new(workload: Arc<dyn Workload>) -> Self {
        let test = Test {
            name: workload.name(),
            workload,
            nodes: Vec::new(),
            db: None,
            nemesis: None,
            faults: None,
            limits: Limits::default(),
            budget: Budget::default(),
            directory: None,
            parameters: Vec::new(),
        };
        Self { test }
    }

    /// A name for the manifest and reports; that of the workload if there is none.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.test.name = name.into();
        self
    }

    /// One more node that clients use.
    #[must_use]
    pub fn node(mut self, name: impl Into<String>, url: impl Into<String>) -> Self {
        self.test.nodes.push(Node::new(name, url));
        self
    }

    /// What starts the system, and stops it at the end. Its nodes come after those of
    /// [`TestBuilder::node`].
    #[must_use]
    pub fn db(mut self, db: Arc<dyn Db>) -> Self {
        self.test.db = Some(db);
        self
    }

    /// The number of clients; 5 by default, 1000 at most.
    #[must_use]
    pub fn concurrency(mut self, clients: usize) -> Self {
        self.test.limits.concurrency = clients;
        self
    }

    /// The seed of the plan; 0 by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.test.limits.seed = seed;
        self
    }

    /// How long the load lasts. Without it: until the workload's generator or the number of
    /// operations ends.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.test.limits.time = Some(limit);
        self
    }

    /// How many operations the load has at most; 1 000 000 by default.
    #[must_use]
    pub fn max_operations(mut self, count: u64) -> Self {
        self.test.limits.operations = count;
        self
    }

    /// After this time an operation's outcome is unknown; 5 s by default.
    #[must_use]
    pub fn op_timeout(mut self, limit: Duration) -> Self {
        self.test.limits.op_timeout = limit;
        self
    }

    /// The average pause between two operations of all clients together. Without it they go as fast
    /// as they can.
    #[must_use]
    pub fn pace(mut self, mean: Duration) -> Self {
        self.test.limits.pace = mean;
        self
    }

    /// The pause between the heal and the final operations; 1 s by default.
    #[must_use]
    pub fn recovery(mut self, pause: Duration) -> Self {
        self.test.limits.recovery = pause;
        self
    }

    /// How long the workload's final operations may take; 60 s by default.
    #[must_use]
    pub fn final_time(mut self, limit: Duration) -> Self {
        self.test.limits.final_time = limit;
        self
    }

    /// Faults beside the load: 5 s quiet, 5 s of one of all that `nemesis` can make, and so on.
    #[must_use]
    pub fn nemesis(mut self, nemesis: Arc<dyn Nemesis>) -> Self {
        self.test.nemesis = Some(nemesis);
        self
    }

    /// Another schedule of faults: a generator of [`Op::inject`](crate::runner::Op::inject) and
    /// [`Op::heal`](crate::runner::Op::heal).
    #[must_use]
    pub fn faults(mut self, faults: impl Generator + 'static) -> Self {
        self.test.faults = Some(faults.boxed());
        self
    }

    /// How long one fault may take to be made and verified; 60 s by default.
    #[must_use]
    pub fn nemesis_timeout(mut self, limit: Duration) -> Self {
        self.test.limits.nemesis_timeout = limit;
        self
    }

    /// Where to write `manifest.json` (first), `history.jsonl` (as it happens), `analysis.json`,
    /// `report.txt`, `report.html` and the system's logs. The folder is made; files of an earlier
    /// test in it are an error.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.test.directory = Some(path.into());
        self
    }

    /// The bound of the check.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.test.budget = budget;
        self
    }

    /// A parameter for the manifest, so that the test can be run again. No secrets.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.test.parameters.push((name.into(), value.into()));
        self
    }

    /// The test.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidTest`] names what is missing or out of range.
    pub fn build(mut self) -> Result<Test> {
        let test = &mut self.test;
        let invalid = |message: String| Err(Error::new(ErrorKind::InvalidTest, message));
        let clients = test.limits.concurrency;
        if clients == 0 || clients > CLIENTS_MAX {
            return invalid(format!("the concurrency is {clients}; it must be 1 to {CLIENTS_MAX}"));
        }
        if test.limits.op_timeout.is_zero() {
            return invalid("the time limit of an operation is 0: every outcome is unknown".into());
        }
        if test.nodes.is_empty() && test.db.is_none() {
            return invalid("there is no node and no Db: nobody to talk to".into());
        }
        match (&test.nemesis, &test.faults) {
            (None, Some(_)) => {
                return invalid("there are faults, and no nemesis to make them".into());
            }
            (Some(nemesis), None) => {
                let faults = nemesis.faults().into_iter().map(Fault::new);
                let five = Duration::from_secs(5);
                test.faults = Some(fault_windows(faults, five, five).boxed());
            }
            _ => {}
        }
        Ok(self.test)
    }
}
