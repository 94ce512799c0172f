//! Following the log in MongoDB: at least once, and exactly once for rows that keep the position.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use mongodb::bson::{Document, doc};
use potter_core::Backoff;
use potter_eventsourcing::{
    ErrorKind, EventStore, ExpectedVersion, HandlerError, NewEvent, OnFailure, Projection,
    ProjectionAdmin, ReadAllOptions, RecordedEvent, StreamId, Subscriber, Worker, WorkerOptions,
    WorkerPool,
};

use crate::support::MongoDatabase;

fn stream(n: u64) -> StreamId {
    StreamId::new("account", n).unwrap()
}

async fn append(store: &dyn EventStore, streams: u64, each: u64) {
    for n in 0..streams {
        let events = (0..each).map(|k| NewEvent::new("account.touched", &k).unwrap()).collect();
        store.append(&stream(n), ExpectedVersion::Any, events).await.unwrap();
    }
}

fn options() -> WorkerOptions {
    WorkerOptions::new()
        .segments(8)
        .retry(Backoff::exponential(Duration::from_millis(10)).max_attempts(2))
        .poll_interval(Duration::from_millis(50))
}

/// Counts the events of each stream in a collection, with the position in the row.
#[derive(Clone)]
struct Counting {
    rows: mongodb::Collection<Document>,
    /// How many events came, those that had come before included.
    came: Arc<AtomicU64>,
}

impl Counting {
    fn new(database: &mongodb::Database) -> Self {
        Self { rows: database.collection("counts"), came: Arc::default() }
    }

    async fn counts(&self) -> BTreeMap<String, i64> {
        let rows: Vec<Document> =
            self.rows.find(doc! {}).await.unwrap().try_collect().await.unwrap();
        let of = |row: &Document| {
            (row.get_str("_id").unwrap().to_owned(), row.get_i64("count").unwrap())
        };
        rows.iter().map(of).collect()
    }
}

#[async_trait]
impl Subscriber for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    async fn handle(&self, event: &RecordedEvent) -> Result<(), HandlerError> {
        self.came.fetch_add(1, Ordering::SeqCst);
        let position = i64::try_from(event.global_position)?;
        let row = doc! { "_id": event.stream_id.as_str() };
        let new = doc! { "$setOnInsert": { "count": 0_i64, "position": 0_i64 } };
        self.rows.update_one(row.clone(), new).upsert(true).await?;
        // One that came before changes nothing.
        let mut before = row;
        before.insert("position", doc! { "$lt": position });
        let count = doc! { "$inc": { "count": 1_i64 }, "$set": { "position": position } };
        self.rows.update_one(before, count).await?;
        Ok(())
    }
}

async fn fold(store: &dyn EventStore) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    let all: Vec<RecordedEvent> =
        store.read_all(0, ReadAllOptions::new()).try_collect().await.unwrap();
    for event in all {
        *counts.entry(event.stream_id.as_str().to_owned()).or_insert(0) += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_the_log() {
    let test = MongoDatabase::new().await;
    let mongo = test.store().await;
    let counting = Counting::new(mongo.driver());
    let store: Arc<dyn EventStore> = Arc::new(mongo);
    append(&*store, 12, 3).await;
    let worker = |store| Worker::subscriber(store, counting.clone()).unwrap().options(options());
    let done = worker(Arc::clone(&store)).catch_up().await.unwrap();
    assert_eq!((done.handled, done.position), (36, 36));
    assert_eq!(counting.counts().await, fold(&*store).await);
    // Two processes, live; one of them goes.
    let running = WorkerPool::new().worker(worker(Arc::clone(&store))).start();
    let other = WorkerPool::new().worker(worker(test.client().await)).start();
    append(&*store, 12, 2).await;
    other.stop().await.unwrap();
    append(&*store, 12, 1).await;
    let caught_up = async {
        while counting.counts().await != fold(&*store).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), caught_up).await.expect("it hangs");
    running.stop().await.unwrap();
    let admin = ProjectionAdmin::new(Arc::clone(&store)).unwrap();
    assert_eq!(admin.list().await.unwrap(), ["counting"]);
    let status = admin.status("counting").await.unwrap();
    assert_eq!((status.handled, status.lag_events, status.workers()), (72, 0, 0), "{status:?}");
    append(&*store, 5, 1).await;
    assert_eq!(admin.status("counting").await.unwrap().lag_events, 5);
    admin.pause("counting").await.unwrap();
    let paused = worker(Arc::clone(&store)).catch_up().await.unwrap_err();
    assert!(paused.to_string().contains("paused"), "{paused}");
    admin.resume("counting").await.unwrap();
    assert_eq!(worker(Arc::clone(&store)).catch_up().await.unwrap().handled, 5);
    // Forgotten, it begins again; the rows know what they have seen.
    admin.forget("counting").await.unwrap();
    assert!(admin.list().await.unwrap().is_empty());
    let again = worker(Arc::clone(&store)).catch_up().await.unwrap();
    assert_eq!(again.handled, 77);
    assert_eq!(counting.counts().await, fold(&*store).await);
    assert_eq!(counting.came.load(Ordering::SeqCst), 2 * 77);
}

/// Fails on one stream while `broken`.
struct Failing {
    broken: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<u64>>>,
}

#[async_trait]
impl Subscriber for Failing {
    fn name(&self) -> &str {
        "failing"
    }

    async fn handle(&self, event: &RecordedEvent) -> Result<(), HandlerError> {
        if self.broken.load(Ordering::SeqCst) && event.stream_id == stream(1) {
            return Err("the mail server says no".into());
        }
        self.seen.lock().unwrap().push(event.global_position);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_event_stops_its_segment() {
    let test = MongoDatabase::new().await;
    let store = test.client().await;
    append(&*store, 6, 1).await;
    let (broken, seen) = (Arc::new(AtomicBool::new(true)), Arc::default());
    let worker = || {
        let failing = Failing { broken: Arc::clone(&broken), seen: Arc::clone(&seen) };
        Worker::subscriber(Arc::clone(&store), failing).unwrap()
    };
    let error = worker().options(options()).catch_up().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler, "{error}");
    let admin = ProjectionAdmin::new(Arc::clone(&store)).unwrap();
    let status = admin.status("failing").await.unwrap();
    let failed: Vec<_> = status.failed().collect();
    assert!(failed[0].failure.as_ref().unwrap().contains("the mail server says no"));
    broken.store(false, Ordering::SeqCst);
    assert_eq!(admin.resume_failed("failing").await.unwrap(), 1);
    worker().options(options()).catch_up().await.unwrap();
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);

    let parking = options().on_failure(OnFailure::Park);
    let error = worker().options(parking).catch_up().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

/// Stops the whole of its runtime in front of the first event: its lease is not renewed.
struct Sleeping {
    entered: mpsc::Sender<()>,
    wake: Mutex<mpsc::Receiver<()>>,
    first: AtomicBool,
}

#[async_trait]
impl Subscriber for Sleeping {
    fn name(&self) -> &str {
        "sleepy"
    }

    async fn handle(&self, _: &RecordedEvent) -> Result<(), HandlerError> {
        if !self.first.swap(true, Ordering::SeqCst) {
            self.entered.send(())?;
            self.wake.lock().unwrap().recv()?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_worker_cannot_move_a_checkpoint_after_its_lease_was_taken() {
    struct Quick;

    #[async_trait]
    impl Subscriber for Quick {
        fn name(&self) -> &str {
            "sleepy"
        }

        async fn handle(&self, _: &RecordedEvent) -> Result<(), HandlerError> {
            Ok(())
        }
    }

    let test = Arc::new(MongoDatabase::new().await);
    let store = test.client().await;
    append(&*store, 6, 2).await;
    let short = || options().lease(Duration::from_millis(500));
    let (entered, has_entered) = mpsc::channel();
    let (wake, woken) = mpsc::channel();
    let sleeping = Sleeping { entered, wake: Mutex::new(woken), first: AtomicBool::new(false) };
    let (of_thread, slow) = (Arc::clone(&test), short());
    let paused = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = of_thread.client().await;
            Worker::subscriber(store, sleeping).unwrap().options(slow).catch_up().await
        })
    });
    tokio::task::spawn_blocking(move || has_entered.recv().unwrap()).await.unwrap();
    // The other one waits for the lease to end, takes all over, and is done.
    let quick = Worker::subscriber(Arc::clone(&store), Quick).unwrap().options(short());
    assert_eq!(quick.catch_up().await.unwrap().position, 12);
    wake.send(()).unwrap();
    tokio::task::spawn_blocking(move || paused.join().unwrap().unwrap()).await.unwrap();
    let admin = ProjectionAdmin::new(store).unwrap();
    let status = admin.status("sleepy").await.unwrap();
    assert_eq!((status.position, status.handled), (12, 12), "nothing was counted twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn projections_are_refused() {
    struct InSql;

    #[async_trait]
    impl Projection for InSql {
        fn name(&self) -> &str {
            "in_sql"
        }

        async fn handle(
            &self,
            _: &mut potter_core::Tx,
            _: &RecordedEvent,
        ) -> Result<(), HandlerError> {
            Ok(())
        }
    }

    let test = MongoDatabase::new().await;
    let Err(error) = Worker::new(test.client().await, InSql) else { panic!("it was taken") };
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("subscriber"), "{error}");
}
