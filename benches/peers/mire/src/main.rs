//! mire: appends by `EventStore::append`, projections by `ProjectionRunner` with a transactional
//! handler, one event or a page at a time.

#[path = "../../common.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::*;
use mire::{
    Aggregate, Event, EventData, EventStore, ExpectedVersion, HandledEvent, ProjectionRunner,
    Snapshot, TransactionalBatchEventHandler, TransactionalEventHandler,
};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct AccountEvent(Deposited);

impl EventData for AccountEvent {
    fn event_type(&self) -> &'static str {
        EVENT_TYPE
    }
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Account {
    balance: i64,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn stream_category() -> &'static str {
        "account"
    }

    fn apply(&mut self, event: &AccountEvent) {
        self.balance += event.0.amount;
    }
}

impl Snapshot for Account {
    const SNAPSHOT_FREQUENCY: i64 = 100;
}

#[derive(Clone, Default)]
struct Handler {
    count: Arc<AtomicU64>,
    latencies: Arc<std::sync::Mutex<Vec<u64>>>,
    live: bool,
}

impl Handler {
    fn saw(&self, events: &[HandledEvent<AccountEvent>]) {
        if self.live {
            let now = nanos();
            let mut all = self.latencies.lock().unwrap();
            all.extend(events.iter().map(|event| now - event.event.0.sent_at()));
        }
        self.count.fetch_add(events.len() as u64, Ordering::Relaxed);
    }
}

impl TransactionalEventHandler for Handler {
    type Aggregate = Account;

    async fn handle(
        &self,
        event: HandledEvent<AccountEvent>,
        conn: &mut PgConnection,
    ) -> anyhow::Result<()> {
        sqlx::query(ONE_ROW)
            .bind(event.stream_id())
            .bind(event.event.0.amount)
            .execute(conn)
            .await?;
        self.saw(&[event]);
        Ok(())
    }
}

struct Batches(Handler);

impl TransactionalBatchEventHandler for Batches {
    type Aggregate = Account;

    async fn handle_batch(
        &self,
        events: Vec<HandledEvent<AccountEvent>>,
        conn: &mut PgConnection,
    ) -> anyhow::Result<()> {
        let streams: Vec<_> = events.iter().map(|event| event.stream_id()).collect();
        let amounts: Vec<_> = events.iter().map(|event| event.event.0.amount).collect();
        sqlx::query(ROWS).bind(&streams).bind(&amounts).execute(conn).await?;
        self.0.saw(&events);
        Ok(())
    }
}

#[tokio::main]
async fn main() {
    let job = job();
    let pool = PgPoolOptions::new().max_connections(40).connect(&job.url).await.unwrap();
    let store = EventStore::new(pool.clone());
    match job.work.as_str() {
        "setup" => {
            store.migrate().await.unwrap();
            sqlx::query(READ_MODEL).execute(&pool).await.unwrap();
        }
        "fill" => fill(&pool, &job).await,
        "append" => append(store, &job).await,
        "load" | "load-snapshot" => load(store, &job).await,
        "catch-up" | "catch-up-batch" => catch_up(store, &job).await,
        "latency" => latency(store, &job).await,
        _ => job.unsupported(),
    }
}

async fn fill(pool: &PgPool, job: &Job) {
    sqlx::query("INSERT INTO es_streams (stream_id, stream_category, stream_version) SELECT 'account-' || s, 'account', $1 / $2 FROM generate_series(0, $2 - 1) s")
        .bind(job.events as i64).bind(STREAMS as i64).execute(pool).await.unwrap();
    // 100 events a transaction, as if they had been appended.
    sqlx::query("INSERT INTO es_events (stream_id, stream_version, event_type, data, stream_category, payload_size, metadata_size, transaction_id)
         SELECT 'account-' || n % $2, n / $2 + 1, $3, $4::jsonb, 'account', length($4), 2, (n / 100 + 3)::text::xid8 FROM generate_series(0, $1 - 1) n")
        .bind(job.events as i64).bind(STREAMS as i64).bind(EVENT_TYPE).bind(PAYLOAD).execute(pool).await.unwrap();
    sqlx::query("ANALYZE").execute(pool).await.unwrap();
}

async fn append(store: EventStore, job: &Job) {
    let (each, batch) = (job.operations / job.writers, job.batch);
    let time = together(job.writers, |writer| {
        let store = store.clone();
        let stream = format!("account-{writer}");
        async move {
            let mut expected = ExpectedVersion::NoStream;
            for _ in 0..each {
                let events: Vec<_> =
                    (0..batch).map(|_| Event::new(AccountEvent(Deposited::new()))).collect();
                let version = store.append(&stream, "account", expected, &events).await.unwrap();
                expected = ExpectedVersion::Exact(version);
            }
        }
    })
    .await;
    job.report(each * job.writers * batch, time);
}

async fn load(store: EventStore, job: &Job) {
    let mut account = store.load_or_default::<Account>("0").await.unwrap();
    account.record_many((0..job.events).map(|_| AccountEvent(Deposited::new())));
    let snapshot = job.work == "load-snapshot";
    if snapshot {
        store.save_snapshotting(&mut account).await.unwrap();
    } else {
        store.save(&mut account).await.unwrap();
    }
    let began = Instant::now();
    for _ in 0..job.operations {
        let account = if snapshot {
            store.load_snapshotted::<Account>("0").await.unwrap().unwrap()
        } else {
            store.load::<Account>("0").await.unwrap().unwrap()
        };
        assert_eq!(account.state.balance, AMOUNT * job.events as i64);
    }
    job.report(job.operations, began.elapsed());
}

fn start(
    store: &EventStore,
    job: &Job,
    handler: &Handler,
    batches: bool,
) -> (CancellationToken, tokio::task::JoinHandle<anyhow::Result<()>>) {
    let builder = ProjectionRunner::builder(store.clone()).batch_size(job.batch as i64);
    let builder = if batches {
        builder.subscribe_transactional_batch(&job.name, Batches(handler.clone()))
    } else {
        builder.subscribe_transactional(&job.name, handler.clone())
    };
    let token = CancellationToken::new();
    let runner = builder.build();
    (token.clone(), tokio::spawn(async move { runner.run(token).await }))
}

async fn catch_up(store: EventStore, job: &Job) {
    if job.writers > 1 {
        job.unsupported();
    }
    let handler = Handler::default();
    let began = Instant::now();
    let (token, running) = start(&store, job, &handler, job.work == "catch-up-batch");
    until(&handler.count, job.events).await;
    let time = began.elapsed();
    token.cancel();
    running.await.unwrap().unwrap();
    job.report(job.events, time);
}

async fn latency(store: EventStore, job: &Job) {
    let handler = Handler { live: true, ..Handler::default() };
    let (token, running) = start(&store, job, &handler, false);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    paced(job.operations, |number| {
        let store = store.clone();
        async move {
            let event = Event::new(AccountEvent(Deposited::sent_now()));
            let stream = format!("account-{number}");
            store.append(&stream, "account", ExpectedVersion::NoStream, &[event]).await.unwrap();
        }
    })
    .await;
    until(&handler.count, job.operations).await;
    let time = began.elapsed();
    token.cancel();
    running.await.unwrap().unwrap();
    let latencies = std::mem::take(&mut *handler.latencies.lock().unwrap());
    job.report_latency(latencies, time);
}
