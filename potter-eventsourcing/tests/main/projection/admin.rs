//! Pausing, resetting, looking.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use potter_core::testing::TestDatabase;
use potter_eventsourcing::{ErrorKind, EventFilter, ProjectionState, Worker, WorkerPool, follow};

use super::model::{Counts, admin, append, becomes_the_fold, counts, quick, store};

async fn a_paused_projection_stands_still(test: TestDatabase) {
    let store = store(&test).await;
    let counting = Counts::new("counts");
    let calls = Arc::clone(&counting.calls);
    let worker = Worker::new(Arc::clone(&store), counting).unwrap().options(quick());
    let running = WorkerPool::new().worker(worker.clone()).start();
    append(&*store, 10, 2).await;
    becomes_the_fold(&*store, &EventFilter::all()).await;
    let admin = admin(&store);
    admin.pause("counts").await.unwrap();
    let (before, calls_before) = (counts(test.database()).await, calls.load(Ordering::SeqCst));
    append(&*store, 10, 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(counts(test.database()).await, before);
    assert_eq!(calls.load(Ordering::SeqCst), calls_before, "not even tried");
    let status = admin.status("counts").await.unwrap();
    assert_eq!((status.state, status.lag_events), (ProjectionState::Paused, 20));
    assert!(worker.catch_up().await.unwrap_err().to_string().contains("paused"));
    admin.resume("counts").await.unwrap();
    becomes_the_fold(&*store, &EventFilter::all()).await;
    running.stop().await.unwrap();
    test.close().await;
}

async fn a_reset_begins_again(test: TestDatabase) {
    let store = store(&test).await;
    append(&*store, 10, 3).await;
    let worker =
        || Worker::new(Arc::clone(&store), Counts::new("counts")).unwrap().options(quick());
    worker().catch_up().await.unwrap();
    let running = WorkerPool::new().workers(2, worker()).start();
    let admin = admin(&store);
    admin.reset(&Counts::new("counts")).await.unwrap();
    // Nothing is appended: workers that have nothing to do see it, too.
    becomes_the_fold(&*store, &EventFilter::all()).await;
    append(&*store, 10, 3).await;
    becomes_the_fold(&*store, &EventFilter::all()).await;
    running.stop().await.unwrap();
    // A new version of the code can take the read model over by a reset. Workers of the old one stop,
    // also those that have nothing to do.
    let mut idle = WorkerPool::new().worker(worker()).start();
    becomes_the_fold(&*store, &EventFilter::all()).await;
    let newer = || Counts { version: 2, ..Counts::new("counts") };
    admin.reset(&newer()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), idle.failed()).await;
    assert_eq!(ended.expect("it notices by itself").kind(), ErrorKind::Config);
    assert_eq!(worker().catch_up().await.unwrap_err().kind(), ErrorKind::Config);
    let newer = Worker::new(Arc::clone(&store), newer()).unwrap().options(quick());
    assert_eq!(newer.catch_up().await.unwrap().handled, 60);
    becomes_the_fold(&*store, &EventFilter::all()).await;
    admin.forget("counts").await.unwrap();
    assert_eq!(admin.status("counts").await.unwrap_err().kind(), ErrorKind::NotFound);
    test.close().await;
}

async fn ones_own_writes_can_be_waited_for(test: TestDatabase) {
    let store = store(&test).await;
    let admin = admin(&store);
    append(&*store, 5, 2).await;
    let head = store.head_position().await.unwrap();
    assert!(!admin.wait_for("counts", head, Duration::from_millis(20)).await.unwrap());
    let worker = Worker::new(Arc::clone(&store), Counts::new("counts")).unwrap().options(quick());
    let running = WorkerPool::new().worker(worker).start();
    assert!(admin.wait_for("counts", head, Duration::from_secs(60)).await.unwrap());
    becomes_the_fold(&*store, &EventFilter::all()).await;
    assert!(!admin.wait_for("counts", head + 1, Duration::from_millis(20)).await.unwrap());
    running.stop().await.unwrap();
    test.close().await;
}

async fn unknown_projections_are_named(test: TestDatabase) {
    let store = store(&test).await;
    let admin = admin(&store);
    for error in [
        admin.status("nothing").await.unwrap_err(),
        admin.pause("nothing").await.unwrap_err(),
        admin.reset(&Counts::new("nothing")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("nothing"), "{error}");
    }
    test.close().await;
}

async fn the_log_can_be_followed(test: TestDatabase) {
    let store = store(&test).await;
    append(&*store, 5, 2).await;
    let mut events = follow(Arc::clone(&store), 4, EventFilter::all());
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(events.next().await.unwrap().unwrap().global_position);
    }
    let appending = append(&*store, 5, 1);
    let following = async {
        for _ in 0..5 {
            seen.push(events.next().await.unwrap().unwrap().global_position);
        }
    };
    futures::future::join(appending, following).await;
    assert_eq!(seen, (5..=15).collect::<Vec<_>>());
    test.close().await;
}

potter_core::on_every_engine!(
    a_paused_projection_stands_still,
    a_reset_begins_again,
    ones_own_writes_can_be_waited_for,
    unknown_projections_are_named,
    the_log_can_be_followed,
);
