//! Workers: alone, in partitions, in pools; coming and going.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use potter_core::testing::TestDatabase;
use potter_eventsourcing::{
    ErrorKind, EventFilter, ExpectedVersion, Worker, WorkerOptions, WorkerPool,
};

use super::model::{
    Counts, admin, append, becomes_the_fold, counts, event, eventually, fold, quick, store, stream,
};

async fn one_worker_catches_up(test: TestDatabase) {
    let store = store(&test).await;
    append(&*store, 20, 10).await;
    let worker = || Worker::new(Arc::clone(&store), Counts::new("counts")).unwrap();
    let done = worker().options(quick().batch_size(7)).catch_up().await.unwrap();
    assert_eq!(done.handled, 200);
    assert!(done.position >= 200);
    assert_eq!(counts(test.database()).await, fold(&*store, &EventFilter::all()).await);
    let again = worker().options(quick()).catch_up().await.unwrap();
    assert_eq!(again.handled, 0, "nothing is applied twice");
    append(&*store, 20, 1).await;
    assert_eq!(worker().options(quick()).catch_up().await.unwrap().handled, 20);
    test.close().await;
}

async fn it_follows_live(test: TestDatabase) {
    let store = store(&test).await;
    let worker = Worker::new(Arc::clone(&store), Counts::new("counts")).unwrap();
    let running = WorkerPool::new().worker(worker.options(quick())).start();
    append(&*store, 10, 10).await;
    becomes_the_fold(&*store, &EventFilter::all()).await;
    append(&*store, 10, 1).await;
    becomes_the_fold(&*store, &EventFilter::all()).await;
    running.stop().await.unwrap();
    let status = admin(&store).status("counts").await.unwrap();
    assert_eq!((status.handled, status.lag_events, status.workers()), (110, 0, 0));
    assert!(status.is_caught_up() && status.segments.len() == 64);
    test.close().await;
}

async fn filters_are_kept(test: TestDatabase) {
    let store = store(&test).await;
    for n in 0..30 {
        let of = ["order.placed", "order.paid", "order.shipped"][usize::try_from(n % 3).unwrap()];
        store.append(&stream(n), ExpectedVersion::Any, vec![event(of)]).await.unwrap();
    }
    let filter = EventFilter::all().event_types(["order.paid"]);
    let counting = Counts { filter: filter.clone(), ..Counts::new("paid") };
    let worker = Worker::new(Arc::clone(&store), counting).unwrap();
    assert_eq!(worker.options(quick()).catch_up().await.unwrap().handled, 10);
    assert_eq!(counts(test.database()).await, fold(&*store, &filter).await);
    test.close().await;
}

/// 4, then 8, then 3 partitions, with stops between.
async fn partitions_change_without_loss(test: TestDatabase) {
    let store = store(&test).await;
    for (round, total) in [4, 8, 3, 1].into_iter().enumerate() {
        append(&*store, 40, 5).await;
        let mut pool = WorkerPool::new();
        for key in 0..total {
            let worker = Worker::new(Arc::clone(&store), Counts::new("counts")).unwrap();
            pool =
                pool.worker(worker.options(quick().batch_size(3).partition(key, total).unwrap()));
        }
        let running = pool.start();
        append(&*store, 40, 5).await;
        // The first rounds are stopped wherever they are.
        if round == 3 {
            becomes_the_fold(&*store, &EventFilter::all()).await;
        }
        running.stop().await.unwrap();
    }
    let done = fold(&*store, &EventFilter::all()).await;
    assert_eq!(counts(test.database()).await, done, "no event lost, doubled or out of order");
    test.close().await;
}

async fn a_partition_catches_up_alone(test: TestDatabase) {
    let store = store(&test).await;
    append(&*store, 60, 5).await;
    let mut handled = 0;
    for key in 0..3 {
        let worker = Worker::new(Arc::clone(&store), Counts::new("counts")).unwrap();
        let done = worker.options(quick().partition(key, 3).unwrap()).catch_up().await.unwrap();
        assert!(done.handled > 0 && done.handled < 300, "{done:?}");
        handled += done.handled;
        assert_eq!(done.position > 0, key == 2, "the whole is done with the last part");
    }
    assert_eq!(handled, 300);
    assert_eq!(counts(test.database()).await, fold(&*store, &EventFilter::all()).await);
    test.close().await;
}

async fn elastic_workers_share_and_take_over(test: TestDatabase) {
    let store = store(&test).await;
    let worker =
        || Worker::new(Arc::clone(&store), Counts::new("counts")).unwrap().options(quick());
    let first = WorkerPool::new().worker(worker()).start();
    append(&*store, 50, 4).await;
    let shares = async || {
        // It is made when a worker first runs.
        let Ok(status) = admin(&store).status("counts").await else { return Vec::new() };
        let owners: Vec<_> = status.segments.iter().filter_map(|one| one.owner).collect();
        let workers: BTreeSet<_> = owners.iter().copied().collect();
        let mut shares: Vec<_> = workers
            .iter()
            .map(|worker| owners.iter().filter(|owner| *owner == worker).count())
            .collect();
        shares.sort_unstable();
        shares
    };
    eventually("one owns all", async || shares().await == [64]).await;
    let second = WorkerPool::new().workers(2, worker()).start();
    eventually("three share", async || shares().await == [21, 21, 22]).await;
    append(&*store, 50, 4).await;
    first.stop().await.unwrap();
    eventually("two share", async || shares().await == [32, 32]).await;
    append(&*store, 50, 4).await;
    becomes_the_fold(&*store, &EventFilter::all()).await;
    // Ended in the middle: their leases run out, and nothing is lost.
    drop(second);
    let third = WorkerPool::new().worker(worker()).start();
    test.pass(Duration::from_millis(700)).await;
    append(&*store, 50, 2).await;
    eventually("the last one took over", async || shares().await == [64]).await;
    becomes_the_fold(&*store, &EventFilter::all()).await;
    third.stop().await.unwrap();
    test.close().await;
}

async fn several_projections_at_once(test: TestDatabase) {
    let store = store(&test).await;
    append(&*store, 10, 5).await;
    let filter = EventFilter::all().stream_types(["nothing"]);
    let idle = Counts { filter, ..Counts::new("idle") };
    let (counting, idle) = (Counts::new("counts"), idle);
    let calls = Arc::clone(&idle.calls);
    let running = WorkerPool::new()
        .workers(2, Worker::new(Arc::clone(&store), counting).unwrap().options(quick()))
        .worker(Worker::new(Arc::clone(&store), idle).unwrap().options(quick().batch_size(50)))
        .start();
    becomes_the_fold(&*store, &EventFilter::all()).await;
    let admin = admin(&store);
    eventually("both are caught up", async || {
        let lag = async |name| admin.status(name).await.is_ok_and(|status| status.is_caught_up());
        lag("counts").await && lag("idle").await
    })
    .await;
    assert_eq!(admin.list().await.unwrap(), ["counts", "idle"]);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    running.stop().await.unwrap();
    test.close().await;
}

async fn wrong_options_are_refused(test: TestDatabase) {
    let store = store(&test).await;
    let worker = || Worker::new(Arc::clone(&store), Counts::new("counts")).unwrap();
    let out_of_range = WorkerOptions::new().partition(4, 4).unwrap_err();
    assert!(out_of_range.to_string().contains("from 0 to 3"), "{out_of_range}");
    assert!(WorkerOptions::new().partition(0, 0).is_err());
    worker().options(quick().segments(4)).catch_up().await.unwrap();
    let other = worker().options(quick().segments(8)).catch_up().await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Config, "{other}");
    let many = worker().options(quick().partition(0, 5).unwrap()).catch_up().await.unwrap_err();
    assert_eq!(many.kind(), ErrorKind::InvalidInput, "{many}");
    let odd = Worker::new(Arc::clone(&store), Counts::new("odd")).unwrap();
    let odd = odd.options(quick().segments(3)).catch_up().await.unwrap_err();
    assert_eq!(odd.kind(), ErrorKind::InvalidInput, "{odd}");
    let newer = Counts { version: 2, ..Counts::new("counts") };
    let newer = Worker::new(Arc::clone(&store), newer).unwrap().catch_up().await.unwrap_err();
    assert!(newer.to_string().contains("rebuild it"), "{newer}");
    test.close().await;
}

potter_core::on_every_engine!(
    one_worker_catches_up,
    it_follows_live,
    filters_are_kept,
    partitions_change_without_loss,
    a_partition_catches_up_alone,
    elastic_workers_share_and_take_over,
    several_projections_at_once,
    wrong_options_are_refused,
);
