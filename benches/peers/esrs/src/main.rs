//! esrs: appends by `EventStore::persist`, the projection by `PgRebuilder::all_at_once` with a
//! transactional handler: it has no subscriptions.

#[path = "../../common.rs"]
mod common;

use std::time::Instant;

use async_trait::async_trait;
use common::*;
use esrs::handler::TransactionalEventHandler;
use esrs::manager::AggregateManager;
use esrs::rebuilder::{PgRebuilder, Rebuilder};
use esrs::store::postgres::{PgStore, PgStoreBuilder, PgStoreError};
use esrs::store::{EventStore, StoreEvent};
use esrs::{Aggregate, AggregateState};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct AccountEvent(Deposited);

#[derive(Default)]
struct Balance(i64);

#[derive(Debug)]
struct Never;

impl std::fmt::Display for Never {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}

impl std::error::Error for Never {}

struct Account;

impl Aggregate for Account {
    const NAME: &'static str = "account";
    type State = Balance;
    type Command = u64;
    type Event = AccountEvent;
    type Error = Never;

    fn handle_command(_: &Balance, count: u64) -> Result<Vec<AccountEvent>, Never> {
        Ok((0..count).map(|_| AccountEvent(Deposited::new())).collect())
    }

    fn apply_event(state: Balance, event: AccountEvent) -> Balance {
        Balance(state.0 + event.0.amount)
    }
}

struct Rows;

#[async_trait]
impl TransactionalEventHandler<Account, PgStoreError, PgConnection> for Rows {
    async fn handle(
        &self,
        event: &StoreEvent<AccountEvent>,
        transaction: &mut PgConnection,
    ) -> Result<(), PgStoreError> {
        sqlx::query(ONE_ROW)
            .bind(event.aggregate_id.to_string())
            .bind(event.payload.0.amount)
            .execute(transaction)
            .await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() {
    let job = job();
    let pool = PgPoolOptions::new().max_connections(40).connect(&job.url).await.unwrap();
    let store: PgStore<Account> = PgStoreBuilder::new(pool.clone()).try_build().await.unwrap();
    match job.work.as_str() {
        "setup" => {
            sqlx::query(READ_MODEL).execute(&pool).await.unwrap();
        }
        "fill" => {
            sqlx::query("INSERT INTO account_events (id, aggregate_id, payload, sequence_number) SELECT gen_random_uuid(), md5((n % $2)::text)::uuid, $3::jsonb, n / $2 + 1 FROM generate_series(0, $1 - 1) n")
                .bind(job.events as i64).bind(STREAMS as i64).bind(PAYLOAD).execute(&pool).await.unwrap();
            sqlx::query("ANALYZE").execute(&pool).await.unwrap();
        }
        "append" => append(store, &job).await,
        "load" => {
            let id = Uuid::new_v4();
            let manager = AggregateManager::new(store);
            let made = manager.handle_command(AggregateState::with_id(id), job.events).await;
            made.unwrap().unwrap();
            let began = Instant::now();
            for _ in 0..job.operations {
                let state = manager.load(id).await.unwrap().unwrap();
                assert_eq!(state.inner().0, AMOUNT * job.events as i64);
            }
            job.report(job.operations, began.elapsed());
        }
        "catch-up" if job.writers == 1 => {
            let began = Instant::now();
            let rebuilder: PgRebuilder<Account> =
                PgRebuilder::new().with_transactional_event_handlers(vec![Box::new(Rows)]);
            rebuilder.all_at_once(pool).await.unwrap();
            job.report(job.events, began.elapsed());
        }
        _ => job.unsupported(),
    }
}

async fn append(store: PgStore<Account>, job: &Job) {
    let (each, batch) = (job.operations / job.writers, job.batch);
    let time = together(job.writers, |_| {
        let store = store.clone();
        async move {
            let mut state = AggregateState::with_id(Uuid::new_v4());
            for _ in 0..each {
                let events = (0..batch).map(|_| AccountEvent(Deposited::new())).collect();
                let stored = store.persist(&mut state, events).await.unwrap();
                state = state.apply_store_events(stored, Account::apply_event);
            }
        }
    })
    .await;
    job.report(each * job.writers * batch, time);
}
