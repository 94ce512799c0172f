//! disintegrate: appends by `EventStore::append` with the query that a decision about one account
//! makes, projections by `PgEventListener` with its notifier.
//!
//! Its migration needs PostgreSQL 16: the literal 0xFFFFFFFF in one function. So that it runs on
//! 15 too, `setup` makes the same tables and functions with that literal written in decimals.

#[path = "../../common.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::*;
use disintegrate::serde::json::Json;
use disintegrate::{Event, EventListener, EventStore, PersistedEvent, StreamQuery, query};
use disintegrate_postgres::{PgEventId, PgEventListener, PgEventListenerConfig, PgEventStore};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[serde(tag = "type")]
enum AccountEvent {
    AccountDeposited {
        #[id]
        account_id: String,
        payload: Deposited,
    },
}

type Store = PgEventStore<AccountEvent, Json<AccountEvent>>;

fn deposited(account_id: &str, payload: Deposited) -> AccountEvent {
    AccountEvent::AccountDeposited { account_id: account_id.to_owned(), payload }
}

fn of_account(id: &str) -> StreamQuery<PgEventId, AccountEvent> {
    let id = id.to_owned();
    query!(AccountEvent; account_id == id)
}

struct Rows {
    id: &'static str,
    query: StreamQuery<PgEventId, AccountEvent>,
    pool: PgPool,
    count: Arc<AtomicU64>,
    latencies: Arc<std::sync::Mutex<Vec<u64>>>,
    live: bool,
}

#[async_trait]
impl EventListener<PgEventId, AccountEvent> for Rows {
    type Error = sqlx::Error;

    fn id(&self) -> &'static str {
        self.id
    }

    fn query(&self) -> &StreamQuery<PgEventId, AccountEvent> {
        &self.query
    }

    async fn handle(
        &self,
        event: PersistedEvent<PgEventId, AccountEvent>,
    ) -> Result<(), sqlx::Error> {
        let AccountEvent::AccountDeposited { account_id, payload } = event.into_inner();
        sqlx::query(ONE_ROW).bind(account_id).bind(payload.amount).execute(&self.pool).await?;
        if self.live {
            self.latencies.lock().unwrap().push(nanos() - payload.sent_at());
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::main]
async fn main() {
    let job = job();
    let pool = PgPoolOptions::new().max_connections(40).connect(&job.url).await.unwrap();
    let store = Store::new_uninitialized(pool.clone(), Json::default());
    match job.work.as_str() {
        "setup" => {
            for statement in SETUP.iter().chain(&[READ_MODEL]) {
                sqlx::query(statement).execute(&pool).await.unwrap();
            }
        }
        "fill" => {
            let payload =
                format!(r#"{{"type":"AccountDeposited","account_id":"@","payload":{PAYLOAD}}}"#);
            sqlx::query("INSERT INTO event (event_type, payload, account_id) SELECT 'AccountDeposited', convert_to(replace($3, '@', (n % $2)::text), 'UTF8'), (n % $2)::text FROM generate_series(0, $1 - 1) n")
                .bind(job.events as i64).bind(STREAMS as i64).bind(payload).execute(&pool).await.unwrap();
            sqlx::query("ANALYZE").execute(&pool).await.unwrap();
        }
        "append" => append(store, &job).await,
        "load" => load(store, &job).await,
        "catch-up" if job.writers == 1 => catch_up(store, pool, &job).await,
        "latency" => latency(store, pool, &job).await,
        _ => job.unsupported(),
    }
}

async fn append(store: Store, job: &Job) {
    let (each, batch) = (job.operations / job.writers, job.batch);
    let retries = Arc::new(AtomicU64::new(0));
    let time = together(job.writers, |writer| {
        let (store, retries) = (store.clone(), Arc::clone(&retries));
        async move {
            let id = writer.to_string();
            let mut last = 0;
            for _ in 0..each {
                loop {
                    let events = (0..batch).map(|_| deposited(&id, Deposited::new())).collect();
                    match store.append(events, of_account(&id), last).await {
                        Ok(done) => {
                            last = done.last().unwrap().id();
                            break;
                        }
                        // Its transactions are serialisable: they fail without a conflict too.
                        Err(_) => {
                            retries.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
        }
    })
    .await;
    eprintln!("{} serialisation failures", retries.load(Ordering::Relaxed));
    job.report(each * job.writers * batch, time);
}

async fn load(store: Store, job: &Job) {
    let events = (0..job.events).map(|_| deposited("0", Deposited::new())).collect();
    store.append(events, of_account("0"), 0).await.unwrap();
    let query = of_account("0");
    let began = Instant::now();
    for _ in 0..job.operations {
        let mut balance = 0;
        let mut events = store.stream(&query);
        while let Some(item) = events.next().await {
            if let disintegrate::StreamItem::Event(event) = item.unwrap() {
                let AccountEvent::AccountDeposited { payload, .. } = event.into_inner();
                balance += payload.amount;
            }
        }
        assert_eq!(balance, AMOUNT * job.events as i64);
    }
    job.report(job.operations, began.elapsed());
}

fn rows(pool: PgPool, job: &Job, live: bool) -> Rows {
    Rows {
        id: job.name.clone().leak(),
        query: query!(AccountEvent),
        pool,
        count: Arc::default(),
        latencies: Arc::default(),
        live,
    }
}

async fn catch_up(store: Store, pool: PgPool, job: &Job) {
    let rows = rows(pool, job, false);
    let count = Arc::clone(&rows.count);
    let config = PgEventListenerConfig::poller(Duration::from_millis(50)).fetch_size(1000);
    let began = Instant::now();
    let running =
        tokio::spawn(PgEventListener::builder(store).register_listener(rows, config).start());
    until(&count, job.events).await;
    job.report(job.events, began.elapsed());
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.abort();
}

async fn latency(store: Store, pool: PgPool, job: &Job) {
    let rows = rows(pool, job, true);
    let (count, latencies) = (Arc::clone(&rows.count), Arc::clone(&rows.latencies));
    let config = PgEventListenerConfig::poller(Duration::from_secs(1)).with_notifier();
    let listener = PgEventListener::builder(store.clone()).register_listener(rows, config);
    let running = tokio::spawn(listener.start());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    paced(job.operations, |number| {
        let store = store.clone();
        async move {
            let id = number.to_string();
            let event = deposited(&id, Deposited::sent_now());
            while store.append(vec![event.clone()], of_account(&id), 0).await.is_err() {}
        }
    })
    .await;
    until(&count, job.operations).await;
    let time = began.elapsed();
    running.abort();
    let latencies = std::mem::take(&mut *latencies.lock().unwrap());
    job.report_latency(latencies, time);
}

/// What its migrator makes, with the literal that PostgreSQL 15 does not know in decimals.
const SETUP: &[&str] = &[
    "CREATE SEQUENCE seq_event_event_id",
    "CREATE TABLE event (event_id BIGINT PRIMARY KEY DEFAULT nextval('seq_event_event_id'), event_type VARCHAR(255), payload BYTEA, inserted_at TIMESTAMP DEFAULT now())",
    "CREATE INDEX idx_event_type_btree ON event (event_type)",
    "CREATE FUNCTION event_store_begin_epoch() RETURNS void AS $$
     DECLARE id BIGINT; db_id INT;
     BEGIN
        SELECT last_value INTO id FROM seq_event_event_id;
        SELECT oid INTO db_id FROM pg_database WHERE datname = current_database();
        PERFORM pg_try_advisory_xact_lock_shared(db_id, 0);
        PERFORM pg_try_advisory_xact_lock_shared(1, (id & 4294967295)::bit(32)::integer);
        PERFORM pg_try_advisory_xact_lock_shared(2, (id >> 32)::bit(32)::integer);
     END $$ LANGUAGE plpgsql",
    "CREATE FUNCTION event_store_current_epoch() RETURNS BIGINT AS $$
     DECLARE persisted_event_id BIGINT; pending_event_id BIGINT; db_id INT;
     BEGIN
        SELECT COALESCE(MAX(event_id), 0) INTO persisted_event_id FROM event;
        SELECT oid INTO db_id FROM pg_database WHERE datname = current_database();
        SELECT MIN((l3.objid::bigint << 32) + l2.objid::bigint) INTO pending_event_id
        FROM pg_locks l1 INNER JOIN pg_locks l2 ON l1.pid = l2.pid INNER JOIN pg_locks l3 ON l1.pid = l3.pid
        WHERE l1.classid = db_id AND l2.classid = 1 AND l3.classid = 2 AND l1.locktype = 'advisory';
        RETURN LEAST(COALESCE(pending_event_id, persisted_event_id), persisted_event_id);
     END $$ LANGUAGE plpgsql",
    "ALTER TABLE event ADD COLUMN account_id TEXT",
    "CREATE INDEX idx_event_account_id ON event (account_id) WHERE account_id IS NOT NULL",
];
