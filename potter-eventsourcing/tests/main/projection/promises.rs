//! The traps of event stores and projections, each a test by its name. Those of the store alone
//! are in `postgres.rs`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use potter_core::testing::TestDatabase;
use potter_core::{Database, DatabaseOptions, Json, Tx, Waiter, new_id, values};
use potter_eventsourcing::{
    Appended, EventFilter, EventStore, ExpectedVersion, HandlerError, NewEvent, Page, Projection,
    ReadAllOptions, ReadOptions, RecordedEvent, Result, StreamId, Worker, WorkerPool, event_store,
};
use tokio::sync::Notify;

use super::model::{
    Counts, append, becomes_the_fold, counts, event, eventually, fold, quick, store, stream,
};

async fn twenty_parallel_any_appends_store_twenty_events(test: TestDatabase) {
    let store = store(&test).await;
    let appends = (0..20).map(async |_| {
        let events = vec![event("order.changed")];
        store.append(&stream(1), ExpectedVersion::Any, events).await.unwrap().last_version
    });
    let versions: HashSet<_> = futures::future::join_all(appends).await.into_iter().collect();
    assert_eq!(versions, (1..=20).collect());
    assert_eq!(store.stream_version(&stream(1)).await.unwrap(), 20);
    test.close().await;
}

async fn payload_roundtrip_bit_exact(test: TestDatabase) {
    let store = store(&test).await;
    let texts = [
        r#"{"z":1,"a":2,"z":3}"#,
        r#"{ "spaces" :  [ 1 ,2 ] }"#,
        r#"[1e400,-0,0.1000,1E2,12345678901234567890123]"#,
        r#""\u0000\u00e9é\ud83d\ude00\/""#,
        "null",
    ];
    for text in texts {
        let json = Json::parse(text.to_owned()).unwrap();
        let events = vec![NewEvent::from_json("order.noted", json)];
        store.append(&stream(1), ExpectedVersion::Any, events).await.unwrap();
    }
    let events: Vec<_> =
        store.read_stream(&stream(1), ReadOptions::forwards()).try_collect().await.unwrap();
    let read: Vec<_> = events.iter().map(|event| event.payload.as_str()).collect();
    assert_eq!(read, texts);
    let page = store.read_page(0, &EventFilter::all(), 10).await.unwrap();
    let read: Vec<_> = page.events.iter().map(|event| event.payload.as_str()).collect();
    assert_eq!(read, texts);
    test.close().await;
}

/// Hangs behind its write, until it is thrown away.
struct Hangs {
    counts: Counts,
    wrote: Arc<Notify>,
}

#[async_trait]
impl Projection for Hangs {
    fn name(&self) -> &str {
        self.counts.name()
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        self.counts.count(tx, event).await?;
        if event.version == 3 {
            self.wrote.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

async fn crash_between_handler_and_commit_applies_once(test: TestDatabase) {
    let store = store(&test).await;
    append(&*store, 5, 4).await;
    let wrote = Arc::new(Notify::new());
    let hangs = Hangs { counts: Counts::new("counts"), wrote: Arc::clone(&wrote) };
    let worker = Worker::new(Arc::clone(&store), hangs).unwrap().options(quick());
    let crashed = tokio::spawn(worker.catch_up());
    wrote.notified().await;
    crashed.abort();
    let _ = crashed.await;
    test.pass(Duration::from_millis(700)).await;
    let worker = Worker::new(Arc::clone(&store), Counts::new("counts")).unwrap();
    worker.options(quick()).catch_up().await.unwrap();
    assert_eq!(counts(test.database()).await, fold(&*store, &EventFilter::all()).await);
    test.close().await;
}

/// A gate that stops a thread, not only a task: what SIGSTOP does to a process.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn stop_here(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        while !state.1 {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn somebody_stopped(&self) -> bool {
        self.state.lock().unwrap().0
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// Stops its thread once, with a page in its hands.
struct StopsAfterReading {
    store: Arc<dyn EventStore>,
    gate: Arc<Gate>,
    stopped: AtomicBool,
}

#[async_trait]
impl EventStore for StopsAfterReading {
    fn database(&self) -> Option<&Database> {
        self.store.database()
    }

    async fn migrate(&self) -> Result<()> {
        self.store.migrate().await
    }

    async fn append(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        self.store.append(stream, expected, events).await
    }

    async fn append_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        self.store.append_in(tx, stream, expected, events).await
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        options: ReadOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        self.store.read_stream(stream, options)
    }

    async fn read_stream_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        options: ReadOptions,
    ) -> Result<Vec<RecordedEvent>> {
        self.store.read_stream_in(tx, stream, options).await
    }

    fn read_all(
        &self,
        after: u64,
        options: ReadAllOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        self.store.read_all(after, options)
    }

    async fn read_page(&self, after: u64, filter: &EventFilter, limit: u64) -> Result<Page> {
        let page = self.store.read_page(after, filter, limit).await;
        if !self.stopped.swap(true, Ordering::SeqCst) {
            self.gate.stop_here();
        }
        page
    }

    fn changes(&self) -> Option<Waiter> {
        self.store.changes()
    }

    async fn stream_version(&self, stream: &StreamId) -> Result<u64> {
        self.store.stream_version(stream).await
    }

    async fn head_position(&self) -> Result<u64> {
        self.store.head_position().await
    }

    async fn safe_position(&self) -> Result<u64> {
        self.store.safe_position().await
    }
}

/// Runs `worker` to the end of the log on a thread of its own, with a runtime of its own, so that
/// a gate stops its heartbeats too.
fn on_its_own_thread<F>(worker: impl FnOnce() -> F + Send + 'static) -> std::thread::JoinHandle<()>
where
    F: Future<Output = ()>,
{
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(worker());
    })
}

/// Two pauses: with a page read, and inside the transaction behind the write.
async fn paused_worker_cannot_commit_after_lease_taken(test: TestDatabase) {
    let store = store(&test).await;
    append(&*store, 5, 4).await;
    for inside in [false, true] {
        let (gate, url) = (Arc::new(Gate::default()), test.url().to_owned());
        let paused = on_its_own_thread({
            let gate = Arc::clone(&gate);
            move || async move {
                let options =
                    DatabaseOptions::new().idle_in_transaction_timeout(Duration::from_millis(500));
                let database = options.connect(&url).await.unwrap();
                let store = event_store(&database).unwrap();
                let stopped = AtomicBool::new(inside);
                let stopping = StopsAfterReading { store, gate: Arc::clone(&gate), stopped };
                let counts = StopsInside {
                    counts: Counts::new("counts"),
                    gate,
                    stopped: AtomicBool::new(!inside),
                };
                let worker = Worker::new(Arc::new(stopping), counts).unwrap().options(quick());
                let _ = worker.catch_up().await;
                database.close().await;
            }
        });
        eventually("it stands", async || gate.somebody_stopped()).await;
        // SQLite has one writer: whoever stops inside a transaction stops everybody.
        if inside && test.database().sqlite().is_some() {
            gate.open();
            paused.join().unwrap();
        } else {
            let worker = Worker::new(Arc::clone(&store), Counts::new("counts")).unwrap();
            worker.options(quick()).catch_up().await.unwrap();
            let done = fold(&*store, &EventFilter::all()).await;
            assert_eq!(counts(test.database()).await, done, "the other one did its work");
            gate.open();
            paused.join().unwrap();
        }
        assert_eq!(counts(test.database()).await, fold(&*store, &EventFilter::all()).await);
        append(&*store, 5, 4).await;
    }
    test.close().await;
}

struct StopsInside {
    counts: Counts,
    gate: Arc<Gate>,
    stopped: AtomicBool,
}

#[async_trait]
impl Projection for StopsInside {
    fn name(&self) -> &str {
        self.counts.name()
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        self.counts.count(tx, event).await?;
        if !self.stopped.swap(true, Ordering::SeqCst) {
            self.gate.stop_here();
        }
        Ok(())
    }
}

/// Both are stored: where a stream's events are, and who reads them.
#[test]
fn partition_of_known_ids_is_frozen() {
    let known = ["order-1", "order-2", "account-ü", "a-b"].map(|text| {
        let fine = StreamId::parse(text).unwrap().segment();
        let segment = fine / (4096 / 64);
        (fine, segment, segment % 4)
    });
    assert_eq!(known, [(680, 10, 2), (1169, 18, 2), (2694, 42, 2), (2532, 39, 3)]);
}

potter_core::on_every_engine!(
    twenty_parallel_any_appends_store_twenty_events,
    payload_roundtrip_bit_exact,
    crash_between_handler_and_commit_applies_once,
);

mod two_processes {
    use potter_core::testing::TestDatabase;

    #[tokio::test(flavor = "multi_thread")]
    async fn sqlite() {
        super::paused_worker_cannot_commit_after_lease_taken(TestDatabase::sqlite().await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_worker_cannot_commit_after_lease_taken_postgres() {
    paused_worker_cannot_commit_after_lease_taken(TestDatabase::postgres().await).await;
}

fn follower(store: &Arc<dyn EventStore>) -> WorkerPool {
    let worker = Worker::new(Arc::clone(store), Counts::new("counts")).unwrap();
    // Without hints it would look once in an hour.
    WorkerPool::new().worker(worker.options(quick().poll_interval(Duration::from_secs(3600))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listener_connection_killed_events_still_delivered() {
    let test = TestDatabase::postgres().await;
    let store = store(&test).await;
    let running = follower(&store).start();
    // Another process: nothing but the database tells the worker.
    let other = Database::connect(test.url()).await.unwrap();
    let elsewhere = event_store(&other).unwrap();
    append(&*elsewhere, 3, 1).await;
    becomes_the_fold(&*store, &EventFilter::all()).await;
    for _ in 0..3 {
        let kill = "SELECT count(pg_terminate_backend(pid)) AS killed FROM pg_stat_activity
             WHERE datname = current_database() AND query LIKE 'LISTEN%' AND pid <> pg_backend_pid()";
        eventually("the listener is there", async || {
            other.read(kill, &[]).await.unwrap()[0].i64("killed").unwrap() > 0
        })
        .await;
        append(&*elsewhere, 3, 1).await;
        becomes_the_fold(&*store, &EventFilter::all()).await;
    }
    running.stop().await.unwrap();
    other.close().await;
    test.close().await;
}

/// The transaction with the older xid gets the higher position and commits first. A reader that
/// filters by xid and keeps a position would go past the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xid_order_inverted_to_position_not_skipped() {
    let test = TestDatabase::postgres().await;
    let store = store(&test).await;
    let running = follower(&store).start();
    for round in 0..5 {
        let database = test.database();
        let mut old = database.begin().await.unwrap();
        old.fetch_all("SELECT pg_current_xact_id()::text AS xid", &[]).await.unwrap();
        let mut young = database.begin().await.unwrap();
        let any = ExpectedVersion::Any;
        let in_young = store
            .append_in(&mut young, &stream(50 + round), any, vec![event("order.changed")])
            .await;
        let in_old = store
            .append_in(&mut old, &stream(100 + round), any, vec![event("order.changed")])
            .await;
        assert!(in_young.unwrap().last_position < in_old.unwrap().last_position);
        old.commit().await.unwrap();
        append(&*store, 3, 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        young.commit().await.unwrap();
        becomes_the_fold(&*store, &EventFilter::all()).await;
    }
    running.stop().await.unwrap();
    test.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_writer_in_other_database_does_not_stall_projection() {
    let (test, other) = (TestDatabase::postgres().await, TestDatabase::postgres().await);
    let store = store(&test).await;
    let mut idle = other.database().begin().await.unwrap();
    idle.execute("CREATE TABLE held (n bigint)", &[]).await.unwrap();
    // And one in this database that does not append.
    let mut here = test.database().begin().await.unwrap();
    here.execute("CREATE TABLE held (n bigint)", &[]).await.unwrap();
    append(&*store, 5, 2).await;
    let worker = Worker::new(Arc::clone(&store), Counts::new("counts")).unwrap();
    assert_eq!(worker.options(quick()).catch_up().await.unwrap().handled, 10);
    idle.rollback().await.unwrap();
    here.rollback().await.unwrap();
    test.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolled_back_append_does_not_stall_or_delay() {
    let test = TestDatabase::postgres().await;
    let store = store(&test).await;
    append(&*store, 3, 1).await;
    let mut given_up = test.database().begin().await.unwrap();
    let events = vec![event("order.changed"), event("order.changed")];
    store.append_in(&mut given_up, &stream(9), ExpectedVersion::Any, events).await.unwrap();
    given_up.rollback().await.unwrap();
    append(&*store, 3, 1).await;
    // The first look already goes over the gap.
    for filter in [EventFilter::all(), EventFilter::all().stream_types(["order"])] {
        let page = store.read_page(0, &filter, 100).await.unwrap();
        assert_eq!((page.events.len(), page.through), (6, page.head));
        assert_eq!(page.head, 8);
    }
    test.close().await;
}

/// What is at or below a safe position never changes. And what is wrong with asking for the safe
/// position in the statement that reads: its rows are of an older moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn safe_position_never_exceeds_reader_snapshot() {
    let test = TestDatabase::postgres().await;
    let store = store(&test).await;
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, done) = (Arc::clone(&store), Arc::clone(&done));
            tokio::spawn(async move {
                let mut n = 0;
                while !done.load(Ordering::SeqCst) {
                    let mut tx = store.database().unwrap().begin().await.unwrap();
                    let stream = StreamId::new("soak", format!("{writer}-{n}")).unwrap();
                    let events = vec![event("soaked")];
                    store.append_in(&mut tx, &stream, ExpectedVersion::Any, events).await.unwrap();
                    tokio::time::sleep(Duration::from_micros(n * 7919 % 3000)).await;
                    match n % 5 {
                        0 => tx.rollback().await.unwrap(),
                        _ => tx.commit().await.unwrap(),
                    }
                    n += 1;
                }
            })
        })
        .collect();
    let below = "SELECT count(*) AS n FROM potter_events WHERE global_position <= $1";
    let count = async |safe: u64| {
        let safe = i64::try_from(safe).unwrap();
        test.database().read(below, values![safe]).await.unwrap()[0].i64("n").unwrap()
    };
    let mut seen = Vec::new();
    while seen.len() < 400 || seen.last().is_some_and(|(safe, _)| *safe < 200) {
        let safe = store.safe_position().await.unwrap();
        seen.push((safe, count(safe).await));
    }
    done.store(true, Ordering::SeqCst);
    futures::future::join_all(writers).await;
    for (safe, then) in seen {
        assert_eq!(count(safe).await, then, "something at or below {safe} came later");
    }
    one_statement_misses_an_event(&test, &store).await;
    test.close().await;
}

/// A reader whose safe position is computed inside its statement, stopped between the two.
async fn one_statement_misses_an_event(test: &TestDatabase, store: &Arc<dyn EventStore>) {
    let database = test.database();
    let function = "CREATE FUNCTION safe_inside() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
         BEGIN
             PERFORM pg_advisory_xact_lock_shared(77);
             RETURN (SELECT max(global_position) FROM potter_events);
         END $$";
    database.execute(function, &[]).await.unwrap();
    let mut open = database.begin().await.unwrap();
    let events = vec![event("order.changed")];
    let late = StreamId::new("late", new_id()).unwrap();
    let position = store
        .append_in(&mut open, &late, ExpectedVersion::Any, events)
        .await
        .unwrap()
        .last_position;
    let mut gate = database.begin().await.unwrap();
    gate.execute("SELECT pg_advisory_xact_lock(77)", &[]).await.unwrap();
    let reader = tokio::spawn({
        let database = database.clone();
        async move {
            let statement = "SELECT safe, (SELECT count(*) FROM potter_events
                     WHERE global_position = safe) AS rows FROM (SELECT safe_inside() AS safe) s";
            database.read(statement, &[]).await.unwrap()
        }
    });
    let waits = "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    eventually("the reader stands inside its statement", async || {
        database.read(waits, &[]).await.unwrap()[0].i64("n").unwrap() > 0
    })
    .await;
    open.commit().await.unwrap();
    gate.rollback().await.unwrap();
    let rows = reader.await.unwrap();
    assert_eq!(rows[0].i64("safe").unwrap().unsigned_abs(), position);
    assert_eq!(rows[0].i64("rows").unwrap(), 0, "its snapshot is older than its safe position");
    assert_eq!(store.safe_position().await.unwrap(), position);
}
