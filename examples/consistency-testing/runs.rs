//! Runs the tests, one after the other: they share the system under test, and a fault of one would
//! disturb another.
//!
//! A test that was accepted is a row with the status `queued`; what runs it finds it there, also
//! after a restart. A row that is `starting`, `running` or `checking` when the service starts was
//! interrupted, and says so.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use examples_common::StartError;
use jepsen_workloads::Orchestrators;
use potter_core::Database;
use potter_jepsen::generator::fault_windows;
use potter_jepsen::nemesis::{Nemesis, ProcessCommand};
use potter_jepsen::runner::{FaultNotes, Phase, Progress, Run, Running, Test};
use potter_jepsen::{Budget, ErrorKind, report};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::environment::{Environment, Environments};
use crate::spec::TestSpec;
use crate::storage::{self, Outcome, Status, Stored};
use crate::{faults, performance, workloads};

/// How long the check of a history may take, and how much memory.
const CHECK_TIME: Duration = Duration::from_secs(120);
const CHECK_BYTES: usize = 1 << 30;
/// How long the last reads may take: sagas that were disturbed come to their end first.
const FINAL_TIME: Duration = Duration::from_secs(180);
/// How often the queue is looked at without a notice.
const LOOK: Duration = Duration::from_secs(5);
/// How often lines of a running test's log are written down.
const WRITE_LOG: Duration = Duration::from_millis(300);

/// A test that runs now.
struct Live {
    progress: watch::Receiver<Progress>,
    cancel: Box<dyn Fn() + Send + Sync>,
    notes: FaultNotes,
}

/// The queue and what runs now.
pub(crate) struct Runs {
    pub(crate) database: Database,
    pub(crate) environments: Environments,
    directory: PathBuf,
    live: Mutex<HashMap<String, Live>>,
    /// Asked to stop before it was running.
    stop_early: Mutex<Option<String>>,
    busy: Mutex<Option<String>>,
    wake: Notify,
}

impl Runs {
    pub(crate) fn new(database: Database, environments: Environments, directory: PathBuf) -> Self {
        Self {
            database,
            environments,
            directory,
            live: Mutex::default(),
            stop_early: Mutex::default(),
            busy: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// There is something new in the queue.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Where a test's history and reports are.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }

    /// How far a running test is.
    pub(crate) fn progress(&self, id: &str) -> Option<Progress> {
        self.live().get(id).map(|live| live.progress.borrow().clone())
    }

    /// Ends a test that runs, or that is just being started.
    pub(crate) fn cancel(&self, id: &str) {
        match self.live().get(id) {
            Some(live) => (live.cancel)(),
            None => *lock(&self.stop_early) = Some(id.to_owned()),
        }
    }

    /// Tells the test that runs, if any, of what a request did to its system.
    pub(crate) fn note(&self, tell: impl Fn(&FaultNotes)) {
        self.live().values().for_each(|live| tell(&live.notes));
    }

    /// The test that runs now.
    pub(crate) fn running_test(&self) -> Option<String> {
        lock(&self.busy).clone()
    }

    /// A test runs, or is being prepared.
    pub(crate) fn is_busy(&self) -> bool {
        lock(&self.busy).is_some()
    }

    fn live(&self) -> MutexGuard<'_, HashMap<String, Live>> {
        lock(&self.live)
    }

    /// Runs what is queued, until `stop`; then the test that runs is cancelled, and everything is
    /// healed and stopped.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match storage::next_queued(&self.database).await {
                Ok(Some(test)) => self.one(test, &stop).await,
                Ok(None) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(LOOK) => {}
                    () = stop.cancelled() => {}
                },
                Err(error) => {
                    tracing::warn!(%error, "the queue can't be read");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
        self.environments.close().await;
    }

    async fn one(&self, test: Stored, stop: &CancellationToken) {
        let id = test.id.as_str();
        let started = storage::advance(&self.database, id, &[Status::Queued], Status::Starting);
        match started.await {
            Ok(true) => {}
            // Stopped or deleted in the meantime.
            Ok(false) => return,
            Err(error) => return tracing::error!(%error, id, "a test can't be started"),
        }
        tracing::info!(id, name = test.spec.name, workload = test.spec.workload, "test");
        *lock(&self.busy) = Some(id.to_owned());
        let outcome = self.outcome(id, &test.spec, stop).await;
        *lock(&self.busy) = None;
        self.live().remove(id);
        let outcome = outcome.unwrap_or_else(|error| Outcome {
            status: Status::Failed,
            verdict: None,
            error: Some(error.to_string()),
            analysis: None,
            performance: None,
        });
        tracing::info!(id, status = outcome.status.name(), verdict = outcome.verdict, "test ended");
        if let Err(error) = storage::finish(&self.database, id, &outcome).await {
            tracing::error!(%error, id, "the result of a test is lost");
        }
    }

    async fn outcome(
        &self,
        id: &str,
        spec: &TestSpec,
        stop: &CancellationToken,
    ) -> Result<Outcome, StartError> {
        let needs = faults::find(&spec.nemesis)?.needs;
        let environment = self.environments.get(needs, true).await?;
        // What a request has done to it, and what an earlier test may have left.
        let healed = environment.nemesis.heal().await;
        let environment = match healed {
            Ok(healed) if healed.verified || !environment.is_private() => environment,
            _ => {
                self.environments.discard().await;
                self.environments.get(needs, true).await?
            }
        };
        if lock(&self.stop_early).take().as_deref() == Some(id) {
            return Ok(cancelled());
        }
        let running = self.test(id, spec, &environment)?.start();
        let log = tokio::spawn(write_log(self.database.clone(), id.to_owned(), running.log()));
        let ended = self.watch(id, running, stop).await;
        _ = log.await;
        let Some(run) = ended? else { return Ok(cancelled()) };
        tokio::task::spawn_blocking(move || result(&run)).await.map_err(Into::into)
    }

    fn test(
        &self,
        id: &str,
        spec: &TestSpec,
        environment: &Environment,
    ) -> Result<Test, StartError> {
        let workload = workloads::build(spec, self.orchestrators(environment)?)?;
        let mut test = Test::of(workload)
            .name(&spec.name)
            .concurrency(spec.client_count)
            .seed(spec.seed)
            .time_limit(spec.duration())
            .op_timeout(spec.op_timeout())
            .directory(self.directory(id))
            .budget(Budget::new(CHECK_TIME, CHECK_BYTES))
            .final_time(FINAL_TIME)
            .parameter("isolation", &spec.isolation)
            .parameter("reads", &spec.reads)
            .parameter("keys", spec.keys.to_string());
        if let Some(pace) = spec.pace() {
            test = test.pace(pace);
        }
        for node in &environment.nodes {
            test = test.node(&node.name, &node.url);
        }
        let victims = faults::Victims::of(&spec.workload, environment.servers());
        let all = faults::of(&spec.nemesis, &victims);
        if !all.is_empty() {
            let (quiet, active) = faults::windows(spec.duration());
            let nemesis = Arc::clone(&environment.nemesis) as Arc<dyn Nemesis>;
            test = test.nemesis(nemesis).faults(fault_windows(all, quiet, active));
        }
        Ok(test.build()?)
    }

    /// Sagas are run by processes of their own, which are this program again.
    fn orchestrators(&self, environment: &Environment) -> Result<Orchestrators, StartError> {
        let command = ProcessCommand::new(std::env::current_exe()?).arg("orchestrator");
        let logs = self.directory.with_file_name("orchestrators");
        Ok(Orchestrators::new(Arc::clone(&environment.processes), command, logs))
    }

    /// Waits for the end; keeps the row's status true. `None`: it was stopped before it began.
    async fn watch(
        &self,
        id: &str,
        mut running: Running,
        stop: &CancellationToken,
    ) -> Result<Option<Run>, StartError> {
        let mut progress = running.progress();
        let (cancel, notes) = (Box::new(running.canceller()), running.fault_notes());
        let live = Live { progress: progress.clone(), cancel, notes };
        self.live().insert(id.to_owned(), live);
        let mut stopping = false;
        let ended = loop {
            if lock(&self.stop_early).take_if(|early| early == id).is_some() {
                running.cancel();
            }
            tokio::select! {
                ended = &mut running => break ended,
                changed = progress.changed() => {
                    let phase = progress.borrow_and_update().phase;
                    let status = match phase {
                        Phase::Running => Some(Status::Running),
                        Phase::Checking => Some(Status::Checking),
                        _ => None,
                    };
                    if let Some(status) = status {
                        let from = [Status::Starting, Status::Running];
                        storage::advance(&self.database, id, &from, status).await?;
                    }
                    if changed.is_err() {
                        break (&mut running).await;
                    }
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    running.cancel();
                }
            }
        };
        match ended {
            Ok(run) => Ok(Some(run)),
            Err(error) if error.kind() == ErrorKind::Cancelled => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cancelled() -> Outcome {
    let error = Some("stopped before it began".to_owned());
    Outcome { status: Status::Cancelled, verdict: None, error, analysis: None, performance: None }
}

fn result(run: &Run) -> Outcome {
    let mut analysis: serde_json::Value =
        serde_json::from_str(&report::json(&run.history, &run.analysis)).unwrap_or_default();
    analysis["unverified_faults"] = run.unverified.clone().into();
    analysis["seed"] = run.seed.into();
    analysis["faults"] = run.progress.faults.into();
    let performance = serde_json::to_string(&performance::of(&run.history)).ok();
    Outcome {
        status: if run.cancelled { Status::Cancelled } else { Status::Completed },
        verdict: Some(run.analysis.verdict.name().to_owned()),
        error: None,
        analysis: Some(analysis.to_string()),
        performance,
    }
}

/// Writes a test's log down while it grows.
async fn write_log(database: Database, id: String, mut lines: broadcast::Receiver<Arc<str>>) {
    let mut next = 1;
    let mut open = true;
    while open {
        let mut batch = Vec::new();
        let until = tokio::time::sleep(WRITE_LOG);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => break,
                line = lines.recv() => match line {
                    Ok(line) => batch.push(line.to_string()),
                    Err(broadcast::error::RecvError::Lagged(count)) => {
                        batch.push(format!("{count} lines are missing here"));
                    }
                    Err(broadcast::error::RecvError::Closed) => {
                        open = false;
                        break;
                    }
                },
            }
        }
        if batch.is_empty() {
            continue;
        }
        if let Err(error) = storage::log(&database, &id, next, &batch).await {
            tracing::warn!(%error, id, "lines of a test's log are lost");
        }
        next += i64::try_from(batch.len()).unwrap_or(0);
    }
}
