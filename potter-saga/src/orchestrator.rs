//! The orchestrator: starts sagas, claims those that are due, and runs them.
//!
//! Any number of orchestrators share one database. Each start of one is a *node* with an id of
//! its own and one lease (a heartbeat row), whatever the number of its sagas. The lease is about
//! liveness only; the fencing token in every write is what keeps a paused node from writing.

mod client;
mod hint;
mod run;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use potter_core::new_id;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use client::{Start, Started};
pub use run::Running;

use crate::definition::{Definition, Saga};
use crate::error::{Error, ErrorKind, Result};
use crate::store::SagaStore;

/// Starts and runs sagas. Cheap to clone.
#[derive(Clone)]
pub struct Orchestrator {
    inner: Arc<Inner>,
}

impl fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orchestrator").field("node", &self.inner.node).finish_non_exhaustive()
    }
}

struct Inner {
    store: Arc<dyn SagaStore>,
    options: Options,
    definitions: HashMap<(&'static str, u32), Arc<Definition>>,
    node: Uuid,
    permits: Arc<Semaphore>,
    running: Mutex<HashSet<Uuid>>,
    /// Ours in the database, maybe, but not run here any more; since when.
    lost: Mutex<HashMap<Uuid, Instant>>,
    /// When the lease was last renewed, by this process's monotonic clock.
    renewed: Mutex<Option<Instant>>,
    wake: Arc<Notify>,
    waiters: Mutex<HashMap<Uuid, Arc<Notify>>>,
    /// There may be due sagas that there was no room for.
    backlog: AtomicBool,
    /// It runs, or ran: it has one lease and one set of running sagas.
    begun: AtomicBool,
    draining: CancellationToken,
    killed: CancellationToken,
    tasks: TaskTracker,
    hint: hint::Hint,
}

#[derive(Clone, Debug)]
struct Options {
    concurrency: usize,
    poll_interval: Duration,
    lease_ttl: Duration,
    grace: Duration,
    unknown_version_grace: Duration,
}

/// Builds an [`Orchestrator`].
pub struct OrchestratorBuilder {
    store: Arc<dyn SagaStore>,
    options: Options,
    definitions: HashMap<(&'static str, u32), Arc<Definition>>,
}

impl OrchestratorBuilder {
    /// Registers a saga; older versions too, as long as instances of them run.
    ///
    /// # Errors
    /// `InvalidDefinition` when it breaks a rule, or its name and version are taken.
    pub fn register<S: Saga>(mut self, saga: &S) -> Result<Self> {
        let definition = Definition::of(saga)?;
        let key = (definition.name, definition.version);
        if self.definitions.insert(key, Arc::new(definition)).is_some() {
            let message = format!("saga \"{}\" version {} is registered twice", key.0, key.1);
            return Err(Error::new(ErrorKind::InvalidDefinition, message));
        }
        Ok(self)
    }

    /// How many sagas run at once in this process (64). Others wait in the database.
    #[must_use]
    pub fn concurrency(mut self, sagas: usize) -> Self {
        self.options.concurrency = sagas.clamp(1, 10_000);
        self
    }

    /// How often it looks for due sagas when no hint comes (250 ms).
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.options.poll_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How long after a process died its sagas are taken over (10 s). It is renewed at a third
    /// of this.
    #[must_use]
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.options.lease_ttl = ttl.max(Duration::from_millis(30));
        self
    }

    /// How long a shutdown waits for running steps (8 s).
    #[must_use]
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.options.grace = grace;
        self
    }

    /// How long a saga of a known name but unknown version may wait for a process that knows it,
    /// before it is parked (30 s).
    #[must_use]
    pub fn unknown_version_grace(mut self, grace: Duration) -> Self {
        self.options.unknown_version_grace = grace;
        self
    }

    /// The orchestrator. Call [`Orchestrator::spawn`] or [`Orchestrator::run`] to let it work;
    /// without, it only starts sagas for others to run.
    pub fn build(self) -> Orchestrator {
        let permits = Arc::new(Semaphore::new(self.options.concurrency));
        let hint = hint::Hint::new(self.store.database());
        Orchestrator {
            inner: Arc::new(Inner {
                store: self.store,
                options: self.options,
                definitions: self.definitions,
                node: new_id(),
                permits,
                running: Mutex::default(),
                lost: Mutex::default(),
                renewed: Mutex::default(),
                wake: Arc::new(Notify::new()),
                waiters: Mutex::default(),
                backlog: AtomicBool::new(false),
                begun: AtomicBool::new(false),
                draining: CancellationToken::new(),
                killed: CancellationToken::new(),
                tasks: TaskTracker::new(),
                hint,
            }),
        }
    }
}

impl Orchestrator {
    /// A builder with the defaults.
    pub fn builder(store: Arc<dyn SagaStore>) -> OrchestratorBuilder {
        OrchestratorBuilder {
            store,
            options: Options {
                concurrency: 64,
                poll_interval: Duration::from_millis(250),
                lease_ttl: Duration::from_secs(10),
                grace: Duration::from_secs(8),
                unknown_version_grace: Duration::from_secs(30),
            },
            definitions: HashMap::new(),
        }
    }

    /// The id of this start of the orchestrator: its sagas' owner in the database.
    pub fn node(&self) -> Uuid {
        self.inner.node
    }

    /// The store that it works on.
    pub fn store(&self) -> &Arc<dyn SagaStore> {
        &self.inner.store
    }

    /// The definition of a saga, if it is registered here.
    pub fn definition(&self, name: &str, version: u32) -> Option<&Definition> {
        let found = self.inner.definitions.iter().find(|((n, v), _)| *n == name && *v == version);
        found.map(|(_, definition)| &**definition)
    }
}

impl Inner {
    /// Others still see this process as alive: it may begin a step.
    fn alive(&self) -> bool {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.is_some_and(|at| at.elapsed() < self.options.lease_ttl)
    }

    fn set_renewed(&self, at: Option<Instant>) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Answers whether it was not there before.
    fn enter(&self, id: Uuid) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }

    fn leave(&self, id: Uuid) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// It is to be claimed again, and read anew.
    fn lose(&self, id: Uuid) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
    }

    fn find(&self, id: Uuid) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// The lost ones. What never got into the database is forgotten after a while.
    fn lost_ids(&self) -> Vec<Uuid> {
        const KEPT: Duration = Duration::from_secs(600);
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.retain(|_, since| since.elapsed() < KEPT);
        lost.keys().copied().collect()
    }

    /// What is told when this saga ends in this process. Kept while someone waits.
    fn waiter(&self, id: Uuid) -> Arc<Notify> {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(waiters.entry(id).or_default())
    }

    fn forget_waiter(&self, id: Uuid) {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        // One in the map, one in the hand of the last one who waits.
        if waiters.get(&id).is_some_and(|waiter| Arc::strong_count(waiter) <= 2) {
            waiters.remove(&id);
        }
    }

    fn tell_waiters(&self, id: Uuid) {
        let waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiter) = waiters.get(&id) {
            waiter.notify_waiters();
        }
    }

    fn runs_here(&self, id: Uuid) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn running_ids(&self) -> Vec<Uuid> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn registered(&self) -> Vec<(&'static str, u32)> {
        self.definitions.keys().copied().collect()
    }
}
