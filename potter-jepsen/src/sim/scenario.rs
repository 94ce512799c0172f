//! The simulated store with a bug, faults and clients, ready to run.

use std::time::Duration;

use super::client::SimWorkload;
use super::{Bug, Database, Env, Network, Setting, SimNemesis, Simulation};
use crate::error::Result;
use crate::generator;
use crate::nemesis::Fault;
use crate::runner::Run;

/// What clients do with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Keyed registers with `read`, `write` and `cas`: linearizability.
    Register,
    /// Transactions that append to lists and read them: strict serializability.
    Append,
}

impl Kind {
    /// The name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Append => "append",
        }
    }
}

/// A simulation of the store in memory.
#[derive(Clone, Debug)]
pub struct Scenario {
    kind: Kind,
    bug: Bug,
    simulation: Simulation,
    faults: bool,
}

const NODES: [&str; 3] = ["n1", "n2", "n3"];

impl Scenario {
    /// `kind` on a store with `bug`; partitions and crashes each second, 1 % of messages lost.
    pub fn new(kind: Kind, bug: Bug) -> Self {
        Self { kind, bug, simulation: Simulation::new(0), faults: true }
    }

    /// Keyed registers.
    pub fn register(bug: Bug) -> Self {
        Self::new(Kind::Register, bug)
    }

    /// Lists that are appended to.
    pub fn append(bug: Bug) -> Self {
        Self::new(Kind::Append, bug)
    }

    /// The workload that shows a bug best.
    pub fn showing(bug: Bug) -> Self {
        match bug {
            Bug::LostUpdates | Bug::WriteSkew | Bug::DirtyReads => Self::append(bug),
            _ => Self::register(bug),
        }
    }

    /// What the clients do.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The seed: everything follows from it.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.simulation.limits.seed = seed;
        self
    }

    /// The number of clients; 5 by default.
    #[must_use]
    pub fn concurrency(mut self, clients: usize) -> Self {
        self.simulation = self.simulation.concurrency(clients);
        self
    }

    /// How many operations at most.
    #[must_use]
    pub fn max_operations(mut self, count: u64) -> Self {
        self.simulation = self.simulation.max_operations(count);
        self
    }

    /// How long, in virtual time; 10 s by default.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.simulation = self.simulation.time_limit(limit);
        self
    }

    /// Whether links are cut, messages lost and the store crashed.
    #[must_use]
    pub fn faults(mut self, faults: bool) -> Self {
        self.faults = faults;
        self
    }

    pub(super) fn limits(&self) -> (u64, usize, u64) {
        let limits = &self.simulation.limits;
        (limits.seed, limits.concurrency, limits.operations)
    }

    /// Runs it.
    ///
    /// # Errors
    /// Those of [`Simulation::run`]; with this store there are none.
    pub fn run(&self) -> Result<Run> {
        self.simulation.run(|env| self.setting(env))
    }

    fn setting(&self, env: &Env) -> Setting {
        let network = Network::new(env).losing(if self.faults { 10 } else { 0 });
        let database = Database::new(env, self.bug);
        let names: Vec<String> = NODES.iter().map(|&name| name.into()).collect();
        let nemesis = SimNemesis::new(&network, &database, names);
        let (env, kind) = (env.clone(), self.kind);
        let setting = Setting::new(SimWorkload { kind, env, network, database }).nodes(NODES);
        if !self.faults {
            return setting;
        }
        let partitions = NODES.iter().map(|&name| Fault::new("partition").target(name));
        let faults = partitions.chain([Fault::new("crash")]);
        let (quiet, active) = (Duration::from_millis(700), Duration::from_millis(300));
        setting.nemesis(nemesis, generator::fault_windows(faults, quiet, active))
    }
}
