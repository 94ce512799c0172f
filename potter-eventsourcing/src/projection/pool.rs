//! Several workers in one process: of one projection or of many.

use std::future::Future;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::worker::Worker;
use crate::error::{Error, ErrorKind, Result};

/// Workers that run side by side in one process.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use potter_eventsourcing::{EventStore, Projection, Worker, WorkerOptions, WorkerPool};
/// # async fn run(store: Arc<dyn EventStore>, orders: impl Projection, bills: impl Projection) -> potter_eventsourcing::Result<()> {
/// let running = WorkerPool::new()
///     .workers(4, Worker::new(Arc::clone(&store), orders)?)
///     .worker(Worker::new(store, bills)?.options(WorkerOptions::new().batch_size(50)))
///     .start();
/// // …
/// running.stop().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct WorkerPool {
    workers: Vec<Worker>,
}

impl WorkerPool {
    /// No worker.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a worker.
    pub fn worker(self, worker: Worker) -> Self {
        self.workers(1, worker)
    }

    /// Adds `count` workers that share the segments of their projection.
    pub fn workers(mut self, count: usize, worker: Worker) -> Self {
        self.workers.extend(std::iter::repeat_n(worker, count));
        self
    }

    /// Starts them.
    pub fn start(self) -> Running {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for worker in self.workers {
            let mut stopped = stopped.clone();
            tasks.spawn(async move {
                let stop = async {
                    let _ = stopped.wait_for(|stop| *stop).await;
                };
                worker.run(stop).await
            });
        }
        Running { stop, tasks }
    }

    /// Runs them until `stop`.
    ///
    /// # Errors
    /// The first error of a worker; the others are stopped then.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<()> {
        let mut running = self.start();
        tokio::select! {
            () = stop => running.stop().await,
            ended = running.failed() => {
                running.stop().await?;
                Err(ended)
            }
        }
    }
}

/// Workers at work. Dropped, they are ended in the middle of what they do; what was not committed
/// is done again by others.
#[derive(Debug)]
pub struct Running {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<()>>,
}

impl Running {
    /// Lets every worker end its batch and give its segments up.
    ///
    /// # Errors
    /// The first error of a worker.
    pub async fn stop(mut self) -> Result<()> {
        let _ = self.stop.send(true);
        let mut first = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            first = first.and(settled(ended));
        }
        first
    }

    /// Waits until a worker ends with an error: it can't go on without a change.
    pub async fn failed(&mut self) -> Error {
        loop {
            match self.tasks.join_next().await {
                Some(ended) => {
                    if let Err(error) = settled(ended) {
                        return error;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }
}

fn settled(ended: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    ended.unwrap_or_else(|source| {
        Err(Error::with_source(ErrorKind::Internal, "a worker's task was ended", source))
    })
}
