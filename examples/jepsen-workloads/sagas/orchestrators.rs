//! Orchestrators as processes of their own, so that `kill` is SIGKILL and `pause` is SIGSTOP.
//!
//! # What can go wrong with them
//!
//! 1. One is killed between a step's effect and its result: another takes the saga over when the lease
//!    has run out, and must not do the effect twice.
//! 2. One is stopped for longer than its lease and goes on in the middle of a step that another has
//!    done since: its fencing token is too old, and its transaction must be refused.
//! 3. The database is gone for a while: an orchestrator waits for it, and does not end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use potter_core::{Database, DatabaseOptions};
use potter_jepsen::nemesis::{ProcessCommand, Processes, Ready};
use potter_jepsen::runner::Failure;
use potter_saga::{Orchestrator, saga_store};
use tokio_util::sync::CancellationToken;

use super::steps::OrderSaga;

/// A crashed orchestrator's sagas are taken over after this time.
const LEASE: Duration = Duration::from_secs(2);
/// How long one gets for an orderly end.
const PATIENCE: Duration = Duration::from_secs(10);
/// An orchestrator that can't begin tries again after this time.
const AGAIN: Duration = Duration::from_millis(250);

/// The names of a test's orchestrators among its processes: the targets of `kill` and `pause`.
pub const ORCHESTRATORS: [&str; 2] = ["saga-orchestrator-1", "saga-orchestrator-2"];
const URL: &str = "POTTER_ORCHESTRATOR_URL";
const READY: &str = "POTTER_ORCHESTRATOR_READY";

/// How the orchestrators of a test are started.
#[derive(Clone, Debug)]
pub struct Orchestrators {
    processes: Arc<Processes>,
    command: ProcessCommand,
    directory: PathBuf,
}

impl Orchestrators {
    /// As processes of this registry. `command` is a program that calls [`run_orchestrator`];
    /// `directory`, which is made, gets what they print.
    pub fn new(
        processes: Arc<Processes>,
        command: ProcessCommand,
        directory: impl Into<PathBuf>,
    ) -> Self {
        Self { processes, command, directory: directory.into() }
    }

    /// Starts them all and waits until each has its lease.
    pub(super) async fn start(&self, url: &str) -> Result<(), Failure> {
        self.stop().await?;
        fs::create_dir_all(&self.directory)?;
        for name in ORCHESTRATORS {
            let (log, ready) = (self.file(name, "log"), self.file(name, "ready"));
            remove(&log)?;
            remove(&ready)?;
            let is_ready = ["test".into(), "-e".into(), ready.clone().into_os_string()];
            let command = self.command.clone().env(URL, url).env(READY, ready).output(log);
            self.processes.start(name, command.ready(Ready::Command(is_ready.into()))).await?;
        }
        Ok(())
    }

    /// Stops those that there are.
    pub(super) async fn stop(&self) -> Result<(), Failure> {
        let names = self.processes.names();
        for name in ORCHESTRATORS.iter().filter(|name| names.iter().any(|known| known == *name)) {
            self.processes.stop(name, PATIENCE).await?;
        }
        Ok(())
    }

    fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.directory.join(name).with_extension(extension)
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) async fn connect(url: &str, connections: u32) -> Result<Database, Failure> {
    let options = DatabaseOptions::new().max_connections(connections);
    Ok(options.application_name("jepsen-sagas").connect(url).await?)
}

pub(super) fn orchestrator(database: &Database) -> Result<Orchestrator, Failure> {
    let builder = Orchestrator::builder(saga_store(database)).lease_ttl(LEASE);
    let builder = builder.poll_interval(Duration::from_millis(50));
    Ok(builder.register(&OrderSaga { database: database.clone() })?.build())
}

/// One orchestrator of a [`SagaWorkload`](super::SagaWorkload), until `stop`. To be called by the
/// program that [`Orchestrators`] start; what it has to know is in its environment.
///
/// # Errors
/// When it was not started by them. A database that can't be reached is waited for.
pub async fn run_orchestrator(stop: CancellationToken) -> Result<(), Failure> {
    let not_set = |name: &str| format!("{name} is not set: a saga test starts its orchestrators");
    let url = std::env::var(URL).map_err(|_| not_set(URL))?;
    let ready = std::env::var_os(READY).ok_or_else(|| not_set(READY))?;
    while !stop.is_cancelled() {
        if let Err(error) = orchestrate(&url, Path::new(&ready), &stop).await {
            tracing::warn!(error, "an orchestrator begins again");
            tokio::time::sleep(AGAIN).await;
        }
    }
    Ok(())
}

async fn orchestrate(url: &str, ready: &Path, stop: &CancellationToken) -> Result<(), Failure> {
    let database = connect(url, 8).await?;
    let running = orchestrator(&database)?.spawn().await?;
    fs::write(ready, std::process::id().to_string())?;
    stop.cancelled().await;
    running.shutdown().await?;
    database.close().await;
    Ok(())
}
