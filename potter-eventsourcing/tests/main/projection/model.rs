//! A read model that notices everything that must not happen: it counts the events of each
//! stream, and those that came out of order or twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::TryStreamExt;
use potter_core::testing::TestDatabase;
use potter_core::{Database, Identifier, MemoryTable, Sql, Tx, values};
use potter_eventsourcing::{
    EventFilter, EventStore, ExpectedVersion, HandlerError, NewEvent, Projection, ProjectionAdmin,
    ReadAllOptions, RecordedEvent, StreamId, WorkerOptions, event_store,
};

pub(super) struct Counts {
    pub(super) name: String,
    pub(super) table: Identifier,
    pub(super) filter: EventFilter,
    pub(super) version: u32,
    /// How often it was called, for events or batches.
    pub(super) calls: Arc<AtomicU64>,
}

/// Events, the last version, and how many came out of order.
pub(super) type Count = (u64, u64, u64);

struct CountsTable;

impl MemoryTable for CountsTable {
    type Key = String;
    type Row = Count;
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS counts (
    stream text PRIMARY KEY, events bigint NOT NULL, last bigint NOT NULL, disorder bigint NOT NULL)";
const INDEX: &str = "CREATE INDEX IF NOT EXISTS counts_events ON counts (events)";

const COUNT: Sql = Sql::new(
    "INSERT INTO {counts} AS c (stream, events, last, disorder) VALUES ($1, 1, $2, $2 <> 1)
     ON CONFLICT (stream) DO UPDATE SET events = c.events + 1, last = $2,
         disorder = c.disorder + ($2 <> c.last + 1)",
    "INSERT INTO {counts} AS c (stream, events, last, disorder)
     VALUES ($1, 1, $2, ($2::bigint <> 1)::int)
     ON CONFLICT (stream) DO UPDATE SET events = c.events + 1, last = $2,
         disorder = c.disorder + ($2 <> c.last + 1)::int",
);

impl Counts {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            table: Identifier::new("counts").unwrap(),
            filter: EventFilter::all(),
            version: 1,
            calls: Arc::default(),
        }
    }

    pub(super) async fn count(
        &self,
        tx: &mut Tx,
        event: &RecordedEvent,
    ) -> Result<(), HandlerError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let (stream, version) = (event.stream_id.as_str(), event.version);
        if let Some(memory) = tx.memory() {
            let key = stream.to_owned();
            let (events, last, disorder) =
                memory.get::<CountsTable>(&key).copied().unwrap_or_default();
            let disorder = disorder + u64::from(version != last + 1);
            memory.put::<CountsTable>(key, (events + 1, version, disorder));
            return Ok(());
        }
        let version = i64::try_from(version)?;
        tx.execute(COUNT.with("counts", &self.table), values![stream, version]).await?;
        Ok(())
    }
}

#[async_trait]
impl Projection for Counts {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn filter(&self) -> EventFilter {
        self.filter.clone()
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        self.count(tx, event).await
    }

    async fn reset(&self, tx: &mut Tx) -> Result<(), HandlerError> {
        if let Some(memory) = tx.memory() {
            let keys: Vec<_> = memory.rows::<CountsTable>().keys().cloned().collect();
            for key in keys {
                memory.remove::<CountsTable>(&key);
            }
            return Ok(());
        }
        tx.execute(Sql::same("DELETE FROM {counts}").with("counts", &self.table), &[]).await?;
        Ok(())
    }
}

/// A store with the tables that a projection needs.
pub(super) async fn store(test: &TestDatabase) -> Arc<dyn EventStore> {
    let store = event_store(test.database()).unwrap();
    store.migrate().await.unwrap();
    tables(test.database()).await;
    store
}

pub(super) async fn tables(database: &Database) {
    let mut tx = database.begin().await.unwrap();
    if tx.memory().is_none() {
        tx.execute(TABLE, &[]).await.unwrap();
        tx.execute(INDEX, &[]).await.unwrap();
    }
    tx.commit().await.unwrap();
}

pub(super) fn stream(n: u64) -> StreamId {
    StreamId::new("order", n).unwrap()
}

pub(super) fn event(event_type: &str) -> NewEvent {
    NewEvent::new(event_type, &serde_json::json!({"amount": 1})).unwrap()
}

/// Appends `each` events to each of `streams` streams, in turn.
pub(super) async fn append(store: &dyn EventStore, streams: u64, each: u64) {
    for _ in 0..each {
        let appends = (0..streams).map(async |n| {
            let events = vec![event("order.changed")];
            store.append(&stream(n), ExpectedVersion::Any, events).await.unwrap();
        });
        futures::future::join_all(appends).await;
    }
}

/// What the read model should be: a fold over the log.
pub(super) async fn fold(store: &dyn EventStore, filter: &EventFilter) -> BTreeMap<String, Count> {
    let mut folded = BTreeMap::<String, Count>::new();
    let mut events = store.read_all(0, ReadAllOptions::new());
    while let Some(event) = events.try_next().await.unwrap() {
        if filter.matches(&event) {
            let count = folded.entry(event.stream_id.as_str().to_owned()).or_default();
            *count = (count.0 + 1, event.version, 0);
        }
    }
    folded
}

/// What it is.
pub(super) async fn counts(database: &Database) -> BTreeMap<String, Count> {
    let mut tx = database.begin().await.unwrap();
    if let Some(memory) = tx.memory() {
        return memory.rows::<CountsTable>().clone();
    }
    let rows =
        tx.fetch_all("SELECT stream, events, last, disorder FROM counts", &[]).await.unwrap();
    let number = |row: &potter_core::Row, name| u64::try_from(row.i64(name).unwrap()).unwrap();
    rows.iter()
        .map(|row| {
            let count = (number(row, "events"), number(row, "last"), number(row, "disorder"));
            (row.text("stream").unwrap(), count)
        })
        .collect()
}

/// Waits until the read model is the fold over the log, and fails if it never is.
pub(super) async fn becomes_the_fold(store: &dyn EventStore, filter: &EventFilter) {
    let database = store.database().unwrap();
    let began = Instant::now();
    loop {
        let (is, should) = (counts(database).await, fold(store, filter).await);
        if is == should {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{}", difference(&is, &should));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn difference(is: &BTreeMap<String, Count>, should: &BTreeMap<String, Count>) -> String {
    let streams = should.keys().chain(is.keys());
    let differ: Vec<_> = streams
        .filter(|stream| is.get(*stream) != should.get(*stream))
        .map(|stream| format!("{stream}: {:?}, not {:?}", is.get(stream), should.get(stream)))
        .take(5)
        .collect();
    format!("the read model differs from the log: {differ:?}")
}

/// Quick to notice things, for tests.
pub(super) fn quick() -> WorkerOptions {
    WorkerOptions::new()
        .lease(Duration::from_millis(600))
        .poll_interval(Duration::from_millis(20))
        .retry(potter_core::Backoff::fixed(Duration::from_millis(10)).max_attempts(3))
}

/// Waits until `condition` holds.
pub(super) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) fn admin(store: &Arc<dyn EventStore>) -> ProjectionAdmin {
    ProjectionAdmin::new(Arc::clone(store)).unwrap()
}
