//! The library, with its defaults.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use potter_core::{Database, Sql, Tx, values};
use potter_eventsourcing::{
    Aggregate, DomainEvent, EventStore, ExpectedVersion, Frequency, HandlerError, NewEvent,
    Projection, RecordedEvent, Repository, Snapshots, Snapshottable, StreamId, Worker,
    WorkerOptions, WorkerPool, event_store, snapshot_store,
};
use serde::{Deserialize, Serialize};

use crate::common::{
    AMOUNT, Deposited, EVENT_TYPE, Job, ONE_ROW, ROWS, nanos, paced, together, until,
};

pub(crate) async fn run(job: &Job, database: Database) {
    let store = event_store(&database).unwrap();
    match job.work.as_str() {
        "append" => append(store, job).await,
        "load" => load(store, None, job).await,
        "load-snapshot" => {
            let snapshots = Snapshots::new(snapshot_store(&database), Frequency(100));
            load(store, Some(snapshots), job).await;
        }
        "catch-up" | "catch-up-batch" => catch_up(store, job).await,
        "latency" => latency(store, job).await,
        _ => job.unsupported(),
    }
}

fn stream(number: u64) -> StreamId {
    StreamId::new("account", number.to_string()).unwrap()
}

async fn append(store: Arc<dyn EventStore>, job: &Job) {
    let (each, batch) = (job.operations / job.writers, job.batch);
    let time = together(job.writers, |writer| {
        let store = Arc::clone(&store);
        async move {
            let stream = stream(writer);
            let mut version = 0;
            for _ in 0..each {
                let events = (0..batch)
                    .map(|_| NewEvent::new(EVENT_TYPE, &Deposited::new()).unwrap())
                    .collect();
                let expected = ExpectedVersion::Exact(version);
                version = store.append(&stream, expected, events).await.unwrap().last_version;
            }
        }
    })
    .await;
    job.report(each * job.writers * batch, time);
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct AccountEvent(Deposited);

impl DomainEvent for AccountEvent {
    fn event_type(&self) -> &'static str {
        EVENT_TYPE
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Account {
    balance: i64,
}

impl Snapshottable for Account {
    const SNAPSHOT_VERSION: u32 = 1;
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = ();
    type Event = AccountEvent;
    type Error = std::convert::Infallible;

    fn decide(&self, (): &()) -> Result<Vec<AccountEvent>, Self::Error> {
        Ok(Vec::new())
    }

    fn evolve(&mut self, event: &AccountEvent) {
        self.balance += event.0.amount;
    }
}

async fn load(store: Arc<dyn EventStore>, snapshots: Option<Snapshots>, job: &Job) {
    let events =
        (0..job.events).map(|_| NewEvent::new(EVENT_TYPE, &Deposited::new()).unwrap()).collect();
    store.append(&stream(0), ExpectedVersion::NoStream, events).await.unwrap();
    let mut accounts = Repository::<Account>::new(store);
    if let Some(snapshots) = snapshots {
        accounts = accounts.with_snapshots(snapshots);
        accounts.take_snapshot("0").await.unwrap();
    }
    let began = Instant::now();
    for _ in 0..job.operations {
        let loaded = accounts.load("0").await.unwrap();
        assert_eq!(loaded.state.balance, AMOUNT * i64::try_from(job.events).unwrap());
    }
    job.report(job.operations, began.elapsed());
}

#[derive(Clone)]
struct Rows {
    name: String,
    batches: bool,
    live: bool,
    count: Arc<AtomicU64>,
    latencies: Arc<std::sync::Mutex<Vec<u64>>>,
}

impl Rows {
    fn new(job: &Job, live: bool) -> Self {
        Self {
            name: job.name.clone(),
            batches: job.work != "catch-up",
            live,
            count: Arc::default(),
            latencies: Arc::default(),
        }
    }

    fn saw(&self, events: &[RecordedEvent]) {
        if self.live {
            let now = nanos();
            let sent = events.iter().map(|event| event.payload.get::<Deposited>().unwrap());
            let mut latencies = self.latencies.lock().unwrap();
            latencies.extend(sent.map(|sent| now - sent.sent_at()));
        }
        self.count.fetch_add(events.len() as u64, Ordering::Relaxed);
    }
}

const ROW: Sql = Sql::same(ONE_ROW);

#[async_trait]
impl Projection for Rows {
    fn name(&self) -> &str {
        &self.name
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        let deposited: Deposited = event.payload.get()?;
        tx.execute(ROW, values![event.stream_id.as_str(), deposited.amount]).await?;
        self.saw(std::slice::from_ref(event));
        Ok(())
    }

    async fn handle_batch(
        &self,
        tx: &mut Tx,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        if !self.batches {
            for event in events {
                self.handle(tx, event).await?;
            }
            return Ok(());
        }
        let streams: Vec<&str> = events.iter().map(|event| event.stream_id.as_str()).collect();
        let amounts = events.iter().map(|event| Ok(event.payload.get::<Deposited>()?.amount));
        let amounts = amounts.collect::<Result<Vec<i64>, HandlerError>>()?;
        let connection = tx.postgres().ok_or("not on PostgreSQL")?;
        sqlx::query(ROWS).bind(streams).bind(amounts).execute(connection).await?;
        self.saw(events);
        Ok(())
    }
}

async fn catch_up(store: Arc<dyn EventStore>, job: &Job) {
    let rows = Rows::new(job, false);
    let began = Instant::now();
    let only: Option<u16> = std::env::var("ONLY").ok().map(|key| key.parse().unwrap());
    let workers: Vec<_> = (0..u16::try_from(job.writers).unwrap())
        .filter(|key| only.is_none_or(|only| *key == only))
        .map(|key| {
            let mut options = WorkerOptions::new();
            if job.batch > 1 {
                options = options.batch_size(u32::try_from(job.batch).unwrap());
            }
            if job.writers > 1 {
                options = options.partition(key, u16::try_from(job.writers).unwrap()).unwrap();
            }
            Worker::new(Arc::clone(&store), rows.clone()).unwrap().options(options)
        })
        .collect();
    if only.is_some() {
        // Part of a projection does not catch up by itself: until nothing more comes.
        let mut pool = WorkerPool::new();
        for worker in workers {
            pool = pool.worker(worker);
        }
        let running = pool.start();
        let mut before = u64::MAX;
        while before != rows.count.load(Ordering::Relaxed) {
            before = rows.count.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        running.stop().await.unwrap();
        job.report(before, began.elapsed());
        return;
    }
    let tasks: Vec<_> = workers.into_iter().map(|worker| tokio::spawn(worker.catch_up())).collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    job.report(rows.count.load(Ordering::Relaxed), began.elapsed());
}

async fn latency(store: Arc<dyn EventStore>, job: &Job) {
    let rows = Rows::new(job, true);
    let (count, latencies) = (Arc::clone(&rows.count), Arc::clone(&rows.latencies));
    let worker = Worker::new(Arc::clone(&store), rows).unwrap();
    let running = WorkerPool::new().worker(worker).start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    paced(job.operations, |number| {
        let store = Arc::clone(&store);
        async move {
            let event = NewEvent::new(EVENT_TYPE, &Deposited::sent_now()).unwrap();
            store.append(&stream(number), ExpectedVersion::NoStream, vec![event]).await.unwrap();
        }
    })
    .await;
    until(&count, job.operations).await;
    let time = began.elapsed();
    running.stop().await.unwrap();
    let latencies = std::mem::take(&mut *latencies.lock().unwrap());
    job.report_latency(latencies, time);
}
