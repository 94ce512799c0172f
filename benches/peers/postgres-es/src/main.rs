//! cqrs-es with postgres-es: appends by the event store under its `CqrsFramework` (load, decide,
//! commit is what the framework does for a command; here the context of the last commit is kept,
//! so that only the commit is timed), replay by `QueryReplay`: it has no subscriptions.

#[path = "../../common.rs"]
mod common;

use std::collections::HashMap;
use std::time::Instant;

use async_trait::async_trait;
use common::*;
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{EventStoreAggregateContext, PersistedEventStore, QueryReplay};
use cqrs_es::{Aggregate, DomainEvent, EventEnvelope, EventStore, Query};
use postgres_es::PostgresEventRepository;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct AccountEvent(Deposited);

impl DomainEvent for AccountEvent {
    fn event_type(&self) -> String {
        EVENT_TYPE.to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Account {
    balance: i64,
}

#[derive(Debug)]
struct Never;

impl std::fmt::Display for Never {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}

impl std::error::Error for Never {}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = ();
    type Event = AccountEvent;
    type Error = Never;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), Never> {
        Ok(())
    }

    fn apply(&mut self, event: AccountEvent) {
        self.balance += event.0.amount;
    }
}

struct Rows(PgPool);

#[async_trait]
impl Query<Account> for Rows {
    async fn dispatch(&self, id: &str, events: &[EventEnvelope<Account>]) {
        for event in events {
            sqlx::query(ONE_ROW)
                .bind(id)
                .bind(event.payload.0.amount)
                .execute(&self.0)
                .await
                .unwrap();
        }
    }
}

type Store = PersistedEventStore<PostgresEventRepository, Account>;

fn context(id: &str, sequence: usize) -> EventStoreAggregateContext<Account> {
    EventStoreAggregateContext {
        aggregate_id: id.to_owned(),
        aggregate: Account::default(),
        current_sequence: sequence,
        current_snapshot: None,
    }
}

#[tokio::main]
async fn main() {
    let job = job();
    let pool = PgPoolOptions::new().max_connections(40).connect(&job.url).await.unwrap();
    match job.work.as_str() {
        "setup" => {
            // The tables of its db/init.sql.
            for statement in [
                "CREATE TABLE events (aggregate_type text NOT NULL, aggregate_id text NOT NULL, sequence bigint CHECK (sequence >= 0) NOT NULL, event_type text NOT NULL, event_version text NOT NULL, payload json NOT NULL, metadata json NOT NULL, PRIMARY KEY (aggregate_type, aggregate_id, sequence))",
                "CREATE TABLE snapshots (aggregate_type text NOT NULL, aggregate_id text NOT NULL, last_sequence bigint CHECK (last_sequence >= 0) NOT NULL, current_snapshot bigint CHECK (current_snapshot >= 0) NOT NULL, payload json NOT NULL, PRIMARY KEY (aggregate_type, aggregate_id, last_sequence))",
                READ_MODEL,
            ] {
                sqlx::query(statement).execute(&pool).await.unwrap();
            }
        }
        "fill" => {
            sqlx::query("INSERT INTO events SELECT 'account', (n % $2)::text, n / $2 + 1, $3, '1.0', $4::json, '{}' FROM generate_series(0, $1 - 1) n")
                .bind(job.events as i64).bind(STREAMS as i64).bind(EVENT_TYPE).bind(PAYLOAD).execute(&pool).await.unwrap();
            sqlx::query("ANALYZE").execute(&pool).await.unwrap();
        }
        "append" => append(&pool, &job).await,
        "load" | "load-snapshot" => load(&pool, &job).await,
        "catch-up" if job.writers == 1 => {
            let began = Instant::now();
            let replay = QueryReplay::new(PostgresEventRepository::new(pool.clone()), Rows(pool));
            replay.replay_all().await.unwrap();
            job.report(job.events, began.elapsed());
        }
        _ => job.unsupported(),
    }
}

async fn append(pool: &PgPool, job: &Job) {
    let (each, batch) = (job.operations / job.writers, job.batch);
    let time = together(job.writers, |writer| {
        let store = Store::new_event_store(PostgresEventRepository::new(pool.clone()));
        async move {
            let id = writer.to_string();
            let mut sequence = 0;
            for _ in 0..each {
                let events = (0..batch).map(|_| AccountEvent(Deposited::new())).collect();
                let done =
                    store.commit(events, context(&id, sequence), HashMap::new()).await.unwrap();
                sequence += done.len();
            }
        }
    })
    .await;
    job.report(each * job.writers * batch, time);
}

async fn load(pool: &PgPool, job: &Job) {
    let repository = PostgresEventRepository::new(pool.clone());
    let store = if job.work == "load-snapshot" {
        Store::new_snapshot_store(repository, 100)
    } else {
        Store::new_event_store(repository)
    };
    for _ in 0..job.events / 100 {
        let context = store.load_aggregate("0").await.unwrap();
        let events = (0..100).map(|_| AccountEvent(Deposited::new())).collect();
        store.commit(events, context, HashMap::new()).await.unwrap();
    }
    let began = Instant::now();
    for _ in 0..job.operations {
        let loaded = store.load_aggregate("0").await.unwrap();
        assert_eq!(loaded.aggregate.balance, AMOUNT * job.events as i64);
    }
    job.report(job.operations, began.elapsed());
}
