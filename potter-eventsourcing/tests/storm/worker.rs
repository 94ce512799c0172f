//! The worker process: both projections, elastic, until it is told to stop.

use std::time::Duration;

use potter_core::{Backoff, DatabaseOptions};
use potter_eventsourcing::{Worker, WorkerOptions, WorkerPool, event_store};

use crate::read_model::{Counts, Sums};

/// Names the database, and tells the program that it is a worker.
pub(crate) const URL: &str = "POTTER_STORM_WORKER_URL";
/// How long a silent worker keeps its segments.
pub(crate) const LEASE: Duration = Duration::from_millis(1500);

pub(crate) fn run(url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // A process that stands inside a transaction holds its rows for this long.
        let options = DatabaseOptions::new()
            .max_connections(4)
            .idle_in_transaction_timeout(Duration::from_secs(1));
        let database = options.connect(url).await.unwrap();
        let store = event_store(&database).unwrap();
        let options = WorkerOptions::new()
            .lease(LEASE)
            .batch_size(50)
            .retry(Backoff::fixed(Duration::from_millis(50)).unlimited());
        let counts = Worker::new(store.clone(), Counts).unwrap().options(options.clone());
        let sums = Worker::new(store, Sums).unwrap().options(options);
        let mut stop =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        let stop = async {
            stop.recv().await;
        };
        WorkerPool::new().worker(counts).worker(sums).run(stop).await.unwrap();
        database.close().await;
    });
}
