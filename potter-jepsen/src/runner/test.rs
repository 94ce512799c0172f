//! A test: what it consists of, and the task that runs it.

mod builder;
mod files;
mod notes;
mod run;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

pub use builder::TestBuilder;
pub use notes::FaultNotes;

use super::{Db, Limits, Node, Progress, Run, Workload};
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result};
use crate::generator::Generator;
use crate::nemesis::Nemesis;

/// Lines of log that may wait for a reader; the oldest are dropped.
const LOG_LINES: usize = 1024;

/// A test that can be run.
pub struct Test {
    pub(super) name: String,
    pub(super) workload: Arc<dyn Workload>,
    pub(super) nodes: Vec<Node>,
    pub(super) db: Option<Arc<dyn Db>>,
    pub(super) nemesis: Option<Arc<dyn Nemesis>>,
    pub(super) faults: Option<Box<dyn Generator>>,
    pub(super) limits: Limits,
    pub(super) budget: Budget,
    pub(super) directory: Option<std::path::PathBuf>,
    pub(super) parameters: Vec<(String, String)>,
}

impl std::fmt::Debug for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Test");
        out.field("name", &self.name).field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

impl Test {
    /// A test of `workload`.
    pub fn builder(workload: impl Workload + 'static) -> TestBuilder {
        TestBuilder::new(Arc::new(workload))
    }

    /// [`Test::builder`] for a workload that is shared or chosen at run time.
    pub fn of(workload: Arc<dyn Workload>) -> TestBuilder {
        TestBuilder::new(workload)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] if the system or the workload can't be prepared,
    /// [`ErrorKind::Unavailable`] if the nemesis can't work here, [`ErrorKind::Write`] if the
    /// directory can't be written, and those of the checker. A verdict is never an error.
    pub async fn run(self) -> Result<Run> {
        self.start().await
    }

    /// Starts it in the background; awaiting the result gives what [`Test::run`] gives. To be called
    /// inside of a tokio runtime.
    pub fn start(self) -> Running {
        let (progress, progress_seen) = watch::channel(Progress::default());
        let (log, _) = broadcast::channel(LOG_LINES);
        let (cancel, cancelled) = watch::channel(false);
        let (notes, noted) = FaultNotes::channel();
        let (nemesis, db) = (self.nemesis.clone(), self.db.clone());
        let shell = run::Shell { progress, log: log.clone(), cancelled, noted };
        let body = tokio::spawn(run::run(self, shell));
        let task = tokio::spawn(async move {
            match body.await {
                Ok(outcome) => outcome,
                Err(error) => {
                    // A defect in the runner must leave no fault and no server behind.
                    if let Some(nemesis) = nemesis {
                        _ = nemesis.heal().await;
                    }
                    if let Some(db) = db {
                        _ = db.stop().await;
                    }
                    let message = format!("the test ended by a panic: {error}");
                    Err(Error::new(ErrorKind::Setup, message))
                }
            }
        });
        Running { progress: progress_seen, log, cancel, notes, task }
    }
}

/// A test that runs. Awaiting it gives the result. Dropped, it is cancelled: it heals and stops what
/// it started in the background, as long as the runtime lives.
#[derive(Debug)]
pub struct Running {
    progress: watch::Receiver<Progress>,
    log: broadcast::Sender<Arc<str>>,
    cancel: watch::Sender<bool>,
    notes: FaultNotes,
    task: JoinHandle<Result<Run>>,
}

impl Running {
    /// How far it is: the newest counts, and a notice whenever they change.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// What it does from now on, as lines for people: phases, faults, clients that hang. A reader
    /// that is 1024 lines behind loses the oldest.
    pub fn log(&self) -> broadcast::Receiver<Arc<str>> {
        self.log.subscribe()
    }

    /// Ends the load now. Faults are healed, what was recorded is checked, and a `Valid` becomes
    /// `Unknown`. During the check, it ends that with `Unknown`. Before the first operation, while the
    /// workload prepares, it ends the test with [`ErrorKind::Cancelled`].
    pub fn cancel(&self) {
        self.cancel.send_replace(true);
    }

    /// Where whoever makes faults beside the test writes them down, so that its history, its report
    /// and its verdict know of them.
    pub fn fault_notes(&self) -> FaultNotes {
        self.notes.clone()
    }

    /// Something that can cancel it, for other tasks.
    pub fn canceller(&self) -> impl Fn() + Send + Sync + 'static {
        let cancel = self.cancel.clone();
        move || _ = cancel.send_replace(true)
    }
}

impl Future for Running {
    type Output = Result<Run>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.task).poll(context).map(|joined| {
            joined.unwrap_or_else(|error| {
                Err(Error::new(ErrorKind::Setup, format!("the test's task ended: {error}")))
            })
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel();
    }
}
