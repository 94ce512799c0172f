//! eventcore: appends by `EventStore::append_events`, projections by
//! `run_transactional_projection`, which takes an event a transaction.

#[path = "../../common.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::*;
use eventcore_postgres::PostgresEventStore;
use eventcore_postgres::projections::{
    DeliveryPosition, DeliverySourceId, EventTypeName, NoopAfterCommit, Postgres,
    PostgresProjectionConfig, PostgresProjectionSource, PostgresProjectionStore, PostgresProjector,
    ProjectionSelection, ProjectionSelectionId, ProjectionStreamFilter, ProjectorName, Transaction,
    run_transactional_projection,
};
use eventcore_types::{Event, EventStore, StreamId, StreamVersion, StreamWrites, collect_events};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct AccountEvent {
    stream: StreamId,
    #[serde(flatten)]
    payload: Deposited,
}

impl Event for AccountEvent {
    fn stream_id(&self) -> &StreamId {
        &self.stream
    }

    fn event_type_name() -> &'static str {
        EVENT_TYPE
    }
}

struct Rows {
    name: ProjectorName,
    count: Arc<AtomicU64>,
    latencies: Arc<std::sync::Mutex<Vec<u64>>>,
    live: bool,
}

impl PostgresProjector for Rows {
    type Event = AccountEvent;
    type Error = sqlx::Error;
    type AfterCommit = NoopAfterCommit;

    fn name(&self) -> &ProjectorName {
        &self.name
    }

    fn apply<'a, 'c>(
        &'a mut self,
        event: &'a AccountEvent,
        _: DeliveryPosition,
        tx: &'a mut Transaction<'c, Postgres>,
    ) -> impl Future<Output = Result<NoopAfterCommit, sqlx::Error>> + Send + 'a
    where
        'c: 'a,
    {
        async move {
            sqlx::query(ONE_ROW)
                .bind(event.stream.as_ref())
                .bind(event.payload.amount)
                .execute(&mut **tx)
                .await?;
            if self.live {
                self.latencies.lock().unwrap().push(nanos() - event.payload.sent_at());
            }
            self.count.fetch_add(1, Ordering::Relaxed);
            Ok(NoopAfterCommit)
        }
    }
}

#[tokio::main]
async fn main() {
    let job = job();
    let pool = PgPoolOptions::new().max_connections(40).connect(&job.url).await.unwrap();
    let store = PostgresEventStore::from_pool(pool.clone());
    match job.work.as_str() {
        "setup" => {
            store.migrate().await;
            sqlx::query(READ_MODEL).execute(&pool).await.unwrap();
        }
        // The tables of its projections cost every append a trigger: they are made when they are
        // needed, as its documentation says.
        "fill" => {
            let payload = PAYLOAD.replacen('{', r#"{"stream":"@","#, 1);
            sqlx::query("ALTER TABLE eventcore_events DISABLE TRIGGER USER")
                .execute(&pool)
                .await
                .unwrap();
            sqlx::query("INSERT INTO eventcore_events (event_id, stream_id, stream_version, event_type, event_data) SELECT gen_random_uuid(), 'account-' || n % $2, n / $2 + 1, $3, replace($4, '@', 'account-' || n % $2)::jsonb FROM generate_series(0, $1 - 1) n")
                .bind(job.events as i64).bind(STREAMS as i64).bind(EVENT_TYPE).bind(payload).execute(&pool).await.unwrap();
            sqlx::query("ALTER TABLE eventcore_events ENABLE TRIGGER USER")
                .execute(&pool)
                .await
                .unwrap();
            sides(&pool).await;
            sqlx::query("ANALYZE").execute(&pool).await.unwrap();
        }
        "append" => append(store, &job).await,
        "load" => load(store, &job).await,
        "catch-up" if job.writers == 1 => {
            let (source, target) = sides(&pool).await;
            let rows = rows(&job, false);
            let began = Instant::now();
            run_transactional_projection(rows, &source, &target, config()).await.unwrap();
            job.report(job.events, began.elapsed());
        }
        "latency" => latency(store, pool, &job).await,
        _ => job.unsupported(),
    }
}

fn rows(job: &Job, live: bool) -> Rows {
    Rows {
        name: ProjectorName::try_new(job.name.clone()).unwrap(),
        count: Arc::default(),
        latencies: Arc::default(),
        live,
    }
}

async fn sides(pool: &PgPool) -> (PostgresProjectionSource, PostgresProjectionStore) {
    let id = DeliverySourceId::try_new("events".to_owned()).unwrap();
    let source = PostgresProjectionSource::from_pool(pool.clone(), id);
    source.migrate().await.unwrap();
    let target = PostgresProjectionStore::from_pool(pool.clone());
    target.migrate().await.unwrap();
    (source, target)
}

fn config() -> PostgresProjectionConfig {
    let selection = ProjectionSelection::try_new(
        ProjectionSelectionId::try_new("deposits".to_owned()).unwrap(),
        ProjectionStreamFilter::All,
        vec![EventTypeName::try_new(EVENT_TYPE.to_owned()).unwrap()],
    );
    PostgresProjectionConfig::new(selection.unwrap())
}

fn writes(
    stream: &StreamId,
    version: usize,
    events: impl Iterator<Item = Deposited>,
) -> StreamWrites {
    let begun = StreamWrites::new().register_stream(stream.clone(), StreamVersion::new(version));
    events.fold(begun.unwrap(), |writes, payload| {
        writes.append(AccountEvent { stream: stream.clone(), payload }).unwrap()
    })
}

async fn append(store: PostgresEventStore, job: &Job) {
    let (each, batch) = (job.operations / job.writers, job.batch);
    let time = together(job.writers, |writer| {
        let store = store.clone();
        async move {
            let stream = StreamId::try_new(format!("account-{writer}")).unwrap();
            let mut version = 0;
            for _ in 0..each {
                let events = (0..batch).map(|_| Deposited::new());
                store.append_events(writes(&stream, version, events)).await.unwrap();
                version += batch as usize;
            }
        }
    })
    .await;
    job.report(each * job.writers * batch, time);
}

async fn load(store: PostgresEventStore, job: &Job) {
    let stream = StreamId::try_new("account-0".to_owned()).unwrap();
    store
        .append_events(writes(&stream, 0, (0..job.events).map(|_| Deposited::new())))
        .await
        .unwrap();
    let began = Instant::now();
    for _ in 0..job.operations {
        let events = store.read_stream::<AccountEvent>(stream.clone()).await.unwrap();
        let events: Vec<_> = collect_events(events).await.unwrap();
        let balance: i64 = events.iter().map(|event| event.payload.amount).sum();
        assert_eq!(balance, AMOUNT * job.events as i64);
    }
    job.report(job.operations, began.elapsed());
}

async fn latency(store: PostgresEventStore, pool: PgPool, job: &Job) {
    let (source, target) = sides(&pool).await;
    let rows = rows(job, true);
    let (count, latencies) = (Arc::clone(&rows.count), Arc::clone(&rows.latencies));
    let token = CancellationToken::new();
    let config = config().continuous(token.clone());
    let running =
        tokio::spawn(
            async move { run_transactional_projection(rows, &source, &target, config).await },
        );
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    paced(job.operations, |number| {
        let store = store.clone();
        async move {
            let stream = StreamId::try_new(format!("account-{number}")).unwrap();
            let event = std::iter::once(Deposited::sent_now());
            store.append_events(writes(&stream, 0, event)).await.unwrap();
        }
    })
    .await;
    until(&count, job.operations).await;
    let time = began.elapsed();
    token.cancel();
    running.await.unwrap().unwrap();
    let latencies = std::mem::take(&mut *latencies.lock().unwrap());
    job.report_latency(latencies, time);
}
