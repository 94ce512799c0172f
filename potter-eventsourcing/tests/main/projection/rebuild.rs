//! Blue/green.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use potter_core::Tx;
use potter_core::testing::TestDatabase;
use potter_eventsourcing::{
    ErrorKind, EventFilter, ExpectedVersion, HandlerError, Projection, Rebuild, Rebuildable,
    RecordedEvent, ShadowTable, Worker, WorkerPool,
};

use super::model::{
    Counts, admin, append, becomes_the_fold, counts, event, fold, quick, store, stream,
};

struct Shadowed {
    counts: Counts,
    broken: bool,
}

#[async_trait]
impl Projection for Shadowed {
    fn name(&self) -> &str {
        self.counts.name()
    }

    fn version(&self) -> u32 {
        self.counts.version
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        if self.broken {
            return Err("the new code is wrong".into());
        }
        self.counts.count(tx, event).await
    }
}

impl Rebuildable for Shadowed {
    fn tables(&self) -> Vec<ShadowTable> {
        vec![ShadowTable::new("counts").unwrap()]
    }

    fn shadow(&self) -> Arc<dyn Projection> {
        let table = self.tables()[0].next().clone();
        let counts = Counts { table, version: self.counts.version, ..Counts::new("counts") };
        Arc::new(Self { counts, broken: self.broken })
    }
}

fn shadowed(version: u32) -> Arc<Shadowed> {
    Arc::new(Shadowed { counts: Counts { version, ..Counts::new("counts") }, broken: false })
}

async fn switch_under_load_has_no_missing_or_double_event(test: TestDatabase) {
    let store = store(&test).await;
    append(&*store, 30, 10).await;
    // Live workers of the same code, and writers, and somebody who queries all the time.
    let live = Worker::shared(Arc::clone(&store), shadowed(1)).unwrap().options(quick());
    live.clone().catch_up().await.unwrap();
    let running = WorkerPool::new().workers(2, live).start();
    let (done, queries) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn({
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        async move {
            let mut n = 0;
            while !done.load(Ordering::SeqCst) {
                let events = vec![event("order.changed")];
                store.append(&stream(n % 30), ExpectedVersion::Any, events).await.unwrap();
                n += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let querier = tokio::spawn({
        let (database, done) = (test.database().clone(), Arc::clone(&done));
        let queries = Arc::clone(&queries);
        async move {
            let (mut least, sum) = (300, "SELECT sum(events) AS n, sum(disorder) AS d FROM counts");
            while !done.load(Ordering::SeqCst) {
                let sum = if database.postgres().is_some() {
                    "SELECT sum(events)::bigint AS n, sum(disorder)::bigint AS d FROM counts"
                } else {
                    sum
                };
                let rows = database.read(sum, &[]).await.expect("a query never fails");
                let now = rows[0].i64("n").unwrap();
                assert!(now >= least, "the read model went back from {least} to {now}");
                assert_eq!(rows[0].i64("d").unwrap(), 0);
                least = now;
                queries.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    for _ in 0..3 {
        let rebuild = Rebuild::new(Arc::clone(&store), shadowed(1)).unwrap();
        let rebuilt = rebuild.options(quick()).workers(2).run().await.unwrap();
        assert!(rebuilt.handled >= 300, "{rebuilt:?}");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    done.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    querier.await.unwrap();
    assert!(queries.load(Ordering::SeqCst) > 10);
    becomes_the_fold(&*store, &EventFilter::all()).await;
    running.stop().await.unwrap();
    assert_eq!(admin(&store).list().await.unwrap(), ["counts"], "nothing is left behind");
    test.close().await;
}

async fn a_newer_version_takes_over(test: TestDatabase) {
    let store = store(&test).await;
    append(&*store, 10, 3).await;
    let old = Worker::shared(Arc::clone(&store), shadowed(1)).unwrap().options(quick());
    old.clone().catch_up().await.unwrap();
    let mut running = WorkerPool::new().worker(old.clone()).start();
    let rebuild = Rebuild::new(Arc::clone(&store), shadowed(2)).unwrap();
    assert_eq!(rebuild.options(quick()).run().await.unwrap().handled, 30);
    append(&*store, 10, 1).await;
    let ended = running.failed().await;
    assert_eq!(ended.kind(), ErrorKind::Config);
    assert!(ended.to_string().contains("newer version"), "{ended}");
    let new = Worker::shared(Arc::clone(&store), shadowed(2)).unwrap().options(quick());
    assert_eq!(new.catch_up().await.unwrap().handled, 10);
    assert_eq!(counts(test.database()).await, fold(&*store, &EventFilter::all()).await);
    test.close().await;
}

/// Nothing is appended after the switch: an old worker must not keep segments until something is.
async fn an_idle_worker_of_the_old_version_stops(test: TestDatabase) {
    let store = store(&test).await;
    append(&*store, 10, 3).await;
    let old = Worker::shared(Arc::clone(&store), shadowed(1)).unwrap().options(quick());
    old.clone().catch_up().await.unwrap();
    let mut running = WorkerPool::new().workers(2, old).start();
    let rebuild = Rebuild::new(Arc::clone(&store), shadowed(2)).unwrap();
    rebuild.options(quick()).run().await.unwrap();
    for _ in 0..2 {
        let ended = tokio::time::timeout(Duration::from_secs(60), running.failed()).await;
        let ended = ended.expect("it notices by itself");
        assert!(ended.to_string().contains("newer version"), "{ended}");
    }
    let status = admin(&store).status("counts").await.unwrap();
    assert_eq!((status.version, status.workers()), (2, 0), "they gave their segments up");
    test.close().await;
}

async fn a_rebuild_that_fails_changes_nothing(test: TestDatabase) {
    let store = store(&test).await;
    append(&*store, 10, 3).await;
    let live = Worker::shared(Arc::clone(&store), shadowed(1)).unwrap().options(quick());
    live.clone().catch_up().await.unwrap();
    let before = counts(test.database()).await;
    let broken = Shadowed { counts: Counts { version: 2, ..Counts::new("counts") }, broken: true };
    let rebuild = Rebuild::new(Arc::clone(&store), Arc::new(broken)).unwrap();
    let error = rebuild.options(quick()).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler, "{error}");
    assert_eq!(counts(test.database()).await, before);
    append(&*store, 10, 1).await;
    assert_eq!(live.catch_up().await.unwrap().handled, 10);
    // What it left behind is in nobody's way.
    let rebuild = Rebuild::new(Arc::clone(&store), shadowed(2)).unwrap();
    assert_eq!(rebuild.options(quick()).run().await.unwrap().handled, 40);
    assert_eq!(counts(test.database()).await, fold(&*store, &EventFilter::all()).await);
    test.close().await;
}

potter_core::on_every_sql_engine!(
    switch_under_load_has_no_missing_or_double_event,
    a_newer_version_takes_over,
    an_idle_worker_of_the_old_version_stops,
    a_rebuild_that_fails_changes_nothing,
);
