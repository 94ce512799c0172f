//! Bare SQL on the same tables through the same driver.

use std::time::Instant;

use potter_core::new_id;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};

use crate::common::{AMOUNT, Deposited, EVENT_TYPE, Job, ONE_ROW, ROWS, together};

async fn connect(job: &Job) -> PgConnection {
    PgConnection::connect(&job.url).await.unwrap()
}

pub(crate) async fn run(job: &Job) {
    match job.work.as_str() {
        "append" => append(job).await,
        "load" => load(job).await,
        "catch-up" => catch_up(job, 500, false).await,
        "catch-up-batch" => catch_up(job, 1000, true).await,
        "catch-up-server" => in_the_server(job).await,
        _ => job.unsupported(),
    }
}

async fn append(job: &Job) {
    let (each, batch) = (job.operations / job.writers, job.batch);
    let mut connections = Vec::new();
    for _ in 0..job.writers {
        connections.push(connect(job).await);
    }
    let connections = std::sync::Mutex::new(connections);
    let time = together(job.writers, |writer| {
        let mut connection = connections.lock().unwrap().pop().unwrap();
        async move {
            for number in 0..each {
                write(&mut connection, writer, number * batch, batch).await;
            }
        }
    })
    .await;
    job.report(each * job.writers * batch, time);
}

/// Both tables in one statement, one round trip, one commit. It trusts the caller's version; the
/// unique index would catch another's.
async fn write(connection: &mut PgConnection, writer: u64, before: u64, batch: u64) {
    let count = usize::try_from(batch).unwrap();
    let payloads: Vec<_> =
        (0..batch).map(|_| serde_json::to_string(&Deposited::new()).unwrap()).collect();
    sqlx::query(
        "WITH head AS (
             INSERT INTO potter_streams (stream_id, version) VALUES ($1, $2::bigint + $3)
             ON CONFLICT (stream_id) DO UPDATE SET version = excluded.version)
         INSERT INTO potter_events
             (stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
         SELECT $1, $2::bigint + n.ordinal, n.id, n.type, 1, n.payload::json, n.metadata::json, 7
         FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[])
             WITH ORDINALITY AS n (id, type, payload, metadata, ordinal)",
    )
    .bind(format!("account-{writer}"))
    .bind(i64::try_from(before).unwrap())
    .bind(i64::try_from(batch).unwrap())
    .bind((0..count).map(|_| new_id()).collect::<Vec<_>>())
    .bind(vec![EVENT_TYPE; count])
    .bind(payloads)
    .bind(vec!["{}"; count])
    .execute(connection)
    .await
    .unwrap();
}

async fn load(job: &Job) {
    let mut connection = connect(job).await;
    write(&mut connection, 0, 0, job.events).await;
    let began = Instant::now();
    for _ in 0..job.operations {
        let rows = sqlx::query(
            "SELECT payload, global_position, stream_id, version, event_id, event_type, schema_version, metadata, recorded_at
             FROM potter_events WHERE stream_id = 'account-0' ORDER BY version",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let sum: i64 = rows.iter().map(|row| deposited(row, 0).amount).sum();
        assert_eq!(sum, AMOUNT * i64::try_from(job.events).unwrap());
    }
    job.report(job.operations, began.elapsed());
}

fn deposited(row: &PgRow, column: usize) -> Deposited {
    row.get::<sqlx::types::Json<Deposited>, _>(column).0
}

const PAGE: &str = "SELECT global_position, stream_id, payload, version, event_id, event_type, schema_version, metadata, recorded_at
    FROM potter_events WHERE global_position > $1 ORDER BY global_position LIMIT $2";
const MOVE: &str = "INSERT INTO checkpoints VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET position = excluded.position";

/// A page, its rows and the checkpoint in one transaction, by one client.
async fn catch_up(job: &Job, page: i64, batches: bool) {
    if job.writers > 1 {
        job.unsupported();
    }
    let mut connection = connect(job).await;
    let (mut last, mut count) = (0i64, 0);
    let began = Instant::now();
    loop {
        let mut tx = connection.begin().await.unwrap();
        let rows = sqlx::query(PAGE).bind(last).bind(page).fetch_all(&mut *tx).await.unwrap();
        let Some(row) = rows.last() else { break };
        last = row.get(0);
        count += rows.len() as u64;
        if batches {
            let streams: Vec<&str> = rows.iter().map(|row| row.get(1)).collect();
            let amounts: Vec<_> = rows.iter().map(|row| deposited(row, 2).amount).collect();
            sqlx::query(ROWS).bind(streams).bind(amounts).execute(&mut *tx).await.unwrap();
        } else {
            for row in &rows {
                let insert = sqlx::query(ONE_ROW).bind(row.get::<&str, _>(1));
                insert.bind(deposited(row, 2).amount).execute(&mut *tx).await.unwrap();
            }
        }
        sqlx::query(MOVE).bind(&job.name).bind(last).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }
    job.report(count, began.elapsed());
}

/// Nothing leaves the server: pages of 1,000, each with its checkpoint.
async fn in_the_server(job: &Job) {
    if job.writers > 1 {
        job.unsupported();
    }
    let mut connection = connect(job).await;
    let (mut last, mut count) = (0i64, 0);
    let began = Instant::now();
    loop {
        let row = sqlx::query(
            "WITH page AS MATERIALIZED (
                 SELECT global_position, stream_id, payload FROM potter_events
                 WHERE global_position > $1 ORDER BY global_position LIMIT 1000),
             rows AS (
                 INSERT INTO read_model SELECT stream_id, (payload ->> 'amount')::bigint FROM page),
             moved AS (
                 INSERT INTO checkpoints SELECT $2, max(global_position) FROM page HAVING count(*) > 0
                 ON CONFLICT (name) DO UPDATE SET position = excluded.position)
             SELECT max(global_position), count(*) FROM page",
        )
        .bind(last)
        .bind(&job.name)
        .fetch_one(&mut connection)
        .await
        .unwrap();
        let Some(read) = row.get::<Option<i64>, _>(0) else { break };
        last = read;
        count += u64::try_from(row.get::<i64, _>(1)).unwrap();
    }
    job.report(count, began.elapsed());
}

/// Each partition reads the whole log and leaves out what is not its own.
pub(crate) async fn whole_log(job: &Job) {
    if job.work != "catch-up" {
        job.unsupported();
    }
    let partitions = i32::try_from(job.writers).unwrap();
    let only: Option<u64> = std::env::var("ONLY").ok().map(|key| key.parse().unwrap());
    let time = together(job.writers, |key| {
        let job = job.clone();
        async move {
            if only.is_some_and(|only| only != key) {
                return;
            }
            let mut connection = connect(&job).await;
            let mut last = 0i64;
            loop {
                let mut tx = connection.begin().await.unwrap();
                let rows =
                    sqlx::query(PAGE).bind(last).bind(100i64).fetch_all(&mut *tx).await.unwrap();
                let Some(row) = rows.last() else { break };
                last = row.get(0);
                for row in &rows {
                    let stream: &str = row.get(1);
                    let hash = stream.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
                        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
                    });
                    if u64::from(hash) % u64::try_from(partitions).unwrap() != key {
                        continue;
                    }
                    let insert = sqlx::query(ONE_ROW).bind(stream);
                    insert.bind(deposited(row, 2).amount).execute(&mut *tx).await.unwrap();
                }
                let name = format!("{}-{key}", job.name);
                sqlx::query(MOVE).bind(name).bind(last).execute(&mut *tx).await.unwrap();
                tx.commit().await.unwrap();
            }
        }
    })
    .await;
    job.report(job.events, time);
}
