//! Handlers that fail.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use potter_core::Tx;
use potter_core::testing::TestDatabase;
use potter_eventsourcing::{
    ErrorKind, EventFilter, ExpectedVersion, HandlerError, OnFailure, Projection, RecordedEvent,
    Subscriber, Worker, WorkerPool,
};

use super::model::{
    Counts, admin, append, becomes_the_fold, counts, event, eventually, fold, quick, store, stream,
};

/// Counts, but for events of type `poison` while it is told to fail.
struct Picky {
    inner: Counts,
    fails: Arc<AtomicBool>,
}

#[async_trait]
impl Projection for Picky {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        // The write comes first: it must be undone.
        self.inner.count(tx, event).await?;
        if event.event_type == "poison" && self.fails.load(Ordering::SeqCst) {
            return Err("no taste for it".into());
        }
        if event.event_type == "panic" && self.fails.load(Ordering::SeqCst) {
            panic!("on purpose");
        }
        Ok(())
    }
}

fn picky(fails: &Arc<AtomicBool>) -> Picky {
    Picky { inner: Counts::new("counts"), fails: Arc::clone(fails) }
}

async fn a_failing_event_stops_only_its_segment(test: TestDatabase) {
    let store = store(&test).await;
    let fails = Arc::new(AtomicBool::new(true));
    append(&*store, 30, 2).await;
    store.append(&stream(7), ExpectedVersion::Any, vec![event("poison")]).await.unwrap();
    append(&*store, 30, 2).await;
    let worker = Worker::new(Arc::clone(&store), picky(&fails)).unwrap().options(quick());
    let running = WorkerPool::new().worker(worker.clone()).start();
    let admin = admin(&store);
    eventually("the segment has stopped", async || {
        admin.status("counts").await.is_ok_and(|status| status.failed().count() == 1)
    })
    .await;
    let status = admin.status("counts").await.unwrap();
    let failure = status.failed().next().unwrap().failure.clone().unwrap();
    assert!(failure.contains("no taste for it") && failure.contains("order-7"), "{failure}");
    let segment = |n| stream(n).segment() / 64;
    let expected = fold(&*store, &EventFilter::all()).await;
    eventually("the others went on", async || {
        let counts = counts(test.database()).await;
        (0..30).all(|n| {
            let name = stream(n).as_str().to_owned();
            segment(n) == segment(7) || counts.get(&name) == expected.get(&name)
        })
    })
    .await;
    assert_eq!(counts(test.database()).await.get("order-7"), Some(&(2, 2, 0)));
    // Once the reason is gone, it goes on where it stood.
    fails.store(false, Ordering::SeqCst);
    assert_eq!(admin.resume_failed("counts").await.unwrap(), 1);
    becomes_the_fold(&*store, &EventFilter::all()).await;
    running.stop().await.unwrap();
    test.close().await;
}

async fn catching_up_says_what_stopped_it(test: TestDatabase) {
    let store = store(&test).await;
    let fails = Arc::new(AtomicBool::new(true));
    store.append(&stream(1), ExpectedVersion::Any, vec![event("panic")]).await.unwrap();
    let worker = Worker::new(Arc::clone(&store), picky(&fails)).unwrap().options(quick());
    let error = worker.catch_up().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert!(error.to_string().contains("it panicked: on purpose"), "{error}");
    test.close().await;
}

async fn poison_event_parks_only_its_stream(test: TestDatabase) {
    let store = store(&test).await;
    let fails = Arc::new(AtomicBool::new(true));
    append(&*store, 20, 2).await;
    store.append(&stream(7), ExpectedVersion::Any, vec![event("poison")]).await.unwrap();
    append(&*store, 20, 2).await;
    let options = quick().on_failure(OnFailure::ParkStream);
    let worker = Worker::new(Arc::clone(&store), picky(&fails)).unwrap().options(options);
    worker.clone().catch_up().await.unwrap();
    let admin = admin(&store);
    let parked = admin.parked("counts", 0, 10).await.unwrap();
    assert_eq!(parked.len(), 3, "the event, and the two behind it");
    assert_eq!((parked[0].event_type.as_str(), parked[0].attempts), ("poison", 3));
    assert_eq!(parked[0].error, "no taste for it");
    assert_eq!(admin.status("counts").await.unwrap().parked, 3);
    let mut expected = fold(&*store, &EventFilter::all()).await;
    let whole = expected.insert("order-7".to_owned(), (2, 2, 0));
    assert_eq!(counts(test.database()).await, expected);
    // Another one comes: it waits behind those.
    append(&*store, 20, 1).await;
    worker.clone().catch_up().await.unwrap();
    assert_eq!(admin.parked("counts", 0, 10).await.unwrap().len(), 4);
    // As long as it fails, they stay.
    let projection = picky(&fails);
    let error = admin.retry_parked(&projection, &stream(7)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert_eq!(admin.parked("counts", 0, 10).await.unwrap().len(), 4);
    fails.store(false, Ordering::SeqCst);
    assert_eq!(admin.retry_parked(&projection, &stream(7)).await.unwrap(), 4);
    assert!(whole.is_some());
    assert_eq!(counts(test.database()).await, fold(&*store, &EventFilter::all()).await);
    append(&*store, 20, 1).await;
    worker.catch_up().await.unwrap();
    assert_eq!(counts(test.database()).await, fold(&*store, &EventFilter::all()).await);
    test.close().await;
}

async fn a_parked_event_can_be_dropped(test: TestDatabase) {
    let store = store(&test).await;
    let fails = Arc::new(AtomicBool::new(true));
    store.append(&stream(1), ExpectedVersion::Any, vec![event("poison")]).await.unwrap();
    store.append(&stream(1), ExpectedVersion::Any, vec![event("order.changed")]).await.unwrap();
    let options = quick().on_failure(OnFailure::Park);
    let worker = Worker::new(Arc::clone(&store), picky(&fails)).unwrap().options(options);
    worker.catch_up().await.unwrap();
    // It went on without it, and the read model noticed.
    assert_eq!(counts(test.database()).await.get("order-1"), Some(&(1, 2, 1)));
    let admin = admin(&store);
    let parked = admin.parked("counts", 0, 10).await.unwrap();
    let positions: Vec<_> = parked.iter().map(|one| one.global_position).collect();
    assert_eq!(admin.drop_parked("counts", &positions).await.unwrap(), 1);
    assert!(admin.parked("counts", 0, 10).await.unwrap().is_empty());
    test.close().await;
}

/// Takes events down, and fails now and then.
#[derive(Default)]
struct Mailer {
    sent: Arc<Mutex<Vec<u64>>>,
    refused: Mutex<HashMap<u64, u32>>,
}

#[async_trait]
impl Subscriber for Mailer {
    fn name(&self) -> &str {
        "mailer"
    }

    async fn handle(&self, event: &RecordedEvent) -> Result<(), HandlerError> {
        if event.global_position.is_multiple_of(5) {
            let mut refused = self.refused.lock().unwrap();
            let times = refused.entry(event.global_position).or_default();
            *times += 1;
            if *times < 3 {
                return Err("the mail server is away".into());
            }
        }
        self.sent.lock().unwrap().push(event.global_position);
        Ok(())
    }
}

async fn a_subscriber_gets_each_event_at_least_once(test: TestDatabase) {
    let store = store(&test).await;
    append(&*store, 5, 6).await;
    let mailer = Mailer::default();
    let sent = Arc::clone(&mailer.sent);
    let worker = Worker::subscriber(Arc::clone(&store), mailer).unwrap();
    worker.options(quick().batch_size(4)).catch_up().await.unwrap();
    let mut sent: Vec<_> = sent.lock().unwrap().clone();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent.len(), 30);
    test.close().await;
}

potter_core::on_every_engine!(
    a_failing_event_stops_only_its_segment,
    catching_up_says_what_stopped_it,
    poison_event_parks_only_its_stream,
    a_parked_event_can_be_dropped,
    a_subscriber_gets_each_event_at_least_once,
);
