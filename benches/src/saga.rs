//! A saga of five steps, each of which changes one row; beside it the same rows by hand: the
//! start, and for each step BEGIN, the change, the saga's row, the log's row, COMMIT.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use potter_core::values;
use potter_saga::{
    BeforePivot, Compensate, Finished, Flow, Orchestrator, Saga, SagaStatus, Step, StepContext,
    StepError, StepOptions, Value, saga_store,
};
use sqlx::Connection;
use tokio::sync::Semaphore;

use crate::floor::{postgres, sqlite, together};
use crate::target::{Engine, Target};
use crate::{Prepared, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "saga of 5 steps, 1 in flight (op = saga)".to_owned(),
            operations: 200,
            floor: |target, n| floor(target, n, 1),
            potter: |target, n| potter(target, n, 1),
        },
        Row {
            name: "saga of 5 steps, 32 in flight (op = saga)".to_owned(),
            operations: 960,
            floor: |target, n| floor(target, n, 32),
            potter: |target, n| potter(target, n, 32),
        },
        Row {
            name: "saga of 5 steps, 128 in flight (op = saga)".to_owned(),
            operations: 1280,
            floor: |target, n| floor(target, n, 128),
            potter: |target, n| potter(target, n, 128),
        },
    ]
}

const CHANGE: &str = "UPDATE accounts SET balance = balance + 1 WHERE id = $1";

struct Change<const N: usize>;

#[async_trait]
impl<const N: usize> Step for Change<N> {
    const NAME: &'static str = ["one", "two", "three", "four", "five"][N];
    type Input = i64;
    type Output = i64;

    async fn run(&self, cx: &mut StepContext, account: i64) -> Result<i64, StepError> {
        cx.tx().await?.execute(CHANGE, values![account]).await?;
        Ok(account)
    }

    fn options(&self) -> StepOptions {
        StepOptions::new().local()
    }
}

#[async_trait]
impl<const N: usize> Compensate for Change<N> {
    async fn undo(&self, _: &mut StepContext, _: i64, _: Option<i64>) -> Result<(), StepError> {
        Ok(())
    }
}

struct Five;

impl Saga for Five {
    const NAME: &'static str = "five";
    const VERSION: u32 = 1;
    type Input = i64;
    type Output = i64;

    fn define<'s>(
        &self,
        account: Value<'s, i64>,
        mut flow: Flow<'s, BeforePivot>,
    ) -> Finished<'s, i64> {
        let one = flow.step(Change::<0>, &account);
        let two = flow.step(Change::<1>, &one);
        let three = flow.step(Change::<2>, &two);
        let four = flow.step(Change::<3>, &three);
        let five = flow.step(Change::<4>, &four);
        flow.finish(five)
    }
}

fn potter(target: Target, operations: u32, in_flight: u32) -> Prepared {
    Box::pin(async move {
        let orchestrator = Orchestrator::builder(saga_store(&target.database))
            .concurrency(in_flight as usize)
            .register(&Five)
            .unwrap()
            .build();
        let running = orchestrator.spawn().await.unwrap();
        Box::pin(async move {
            let room = Arc::new(Semaphore::new(in_flight as usize));
            let tasks: Vec<_> = (0..operations)
                .map(|number| {
                    let (orchestrator, room) = (orchestrator.clone(), Arc::clone(&room));
                    async move {
                        let _here = room.acquire().await.unwrap();
                        let account = i64::from(number % 10_000);
                        let started = orchestrator.start::<Five>(&account).await.unwrap();
                        let done = orchestrator.wait(started.id, LIMIT).await.unwrap();
                        assert_eq!(done.status, SagaStatus::Completed);
                    }
                })
                .collect();
            together(tasks).await;
            running.shutdown().await.unwrap();
        }) as crate::Work
    })
}

fn floor(target: Target, operations: u32, in_flight: u32) -> Prepared {
    Box::pin(async move {
        match target.engine() {
            Engine::Sqlite => {
                let connection = sqlite(&target).await;
                let room = Arc::new(Semaphore::new(in_flight as usize));
                let tasks: Vec<_> = (0..operations)
                    .map(|number| {
                        let (connection, room) = (Arc::clone(&connection), Arc::clone(&room));
                        async move {
                            let _here = room.acquire().await.unwrap();
                            on_sqlite(&connection, i64::from(number)).await;
                        }
                    })
                    .collect();
                Box::pin(together(tasks)) as crate::Work
            }
            Engine::Postgres => {
                // As many connections as Potter's pool has.
                let workers = in_flight.min(crate::target::CONNECTIONS);
                let connections = postgres(&target, workers).await;
                let tasks: Vec<_> = (0..workers)
                    .zip(connections)
                    .map(|(worker, mut connection)| async move {
                        let mut number = worker;
                        while number < operations {
                            on_postgres(&mut connection, i64::from(number)).await;
                            number += workers;
                        }
                    })
                    .collect();
                Box::pin(together(tasks)) as crate::Work
            }
        }
    })
}

const START: &str = "INSERT INTO potter_sagas (id, name, version, definition_hash, key, input_hash, input, metadata,
     status, steps_total, fence, wake_at) VALUES ($1, 'five', 1, 'hash', $2, 'hash', '7', '{}', 'pending', 5, 1, ";
const LOG: &str =
    "INSERT INTO potter_saga_log (saga_id, seq, kind, step, step_name, attempt, uncertain, output,
     duration_us) VALUES ($1, $2, 'completed', $3, 'one', 1, false, '7', 12)";

async fn on_sqlite(connection: &tokio::sync::Mutex<sqlx::SqliteConnection>, number: i64) {
    let id = potter_core::new_id().to_string();
    let start = sqlx::AssertSqlSafe(format!("{START} 0)"));
    let mut locked = connection.lock().await;
    sqlx::query(start).bind(&id).bind(&id).execute(&mut *locked).await.unwrap();
    drop(locked);
    for step in 0..5i64 {
        let mut locked = connection.lock().await;
        let mut tx = locked.begin_with("BEGIN IMMEDIATE").await.unwrap();
        sqlx::query(CHANGE).bind(number % 10_000).execute(&mut *tx).await.unwrap();
        sqlx::query(
            "UPDATE potter_sagas SET status = $2, step = $3, rev = rev + 1,
                 updated_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) WHERE id = $1 AND fence = 1",
        )
        .bind(&id)
        .bind(if step == 4 { "completed" } else { "running" })
        .bind(step)
        .execute(&mut *tx)
        .await
        .unwrap();
        sqlx::query(LOG).bind(&id).bind(step + 1).bind(step).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }
}

async fn on_postgres(connection: &mut sqlx::PgConnection, number: i64) {
    let id = potter_core::new_id();
    let start = sqlx::AssertSqlSafe(format!("{START} clock_timestamp())"));
    sqlx::query(start).bind(id).bind(id.to_string()).execute(&mut *connection).await.unwrap();
    for step in 0..5i32 {
        let mut tx = connection.begin().await.unwrap();
        sqlx::query(CHANGE).bind(number % 10_000).execute(&mut *tx).await.unwrap();
        sqlx::query(
            "UPDATE potter_sagas SET status = $2, step = $3, rev = rev + 1, updated_at = clock_timestamp()
             WHERE id = $1 AND fence = 1",
        )
        .bind(id)
        .bind(if step == 4 { "completed" } else { "running" })
        .bind(step)
        .execute(&mut *tx)
        .await
        .unwrap();
        sqlx::query(LOG)
            .bind(id)
            .bind(i64::from(step) + 1)
            .bind(step)
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
}

/// Long enough for any round.
const LIMIT: Duration = Duration::from_secs(120);
