//! Our two sides of the benchmark with peers: `SIDE=floor` is bare SQL on the same tables,
//! `SIDE=potter` the library, `SIDE=whole-log` a reader of the shape that pupsourcing's has (each
//! partition reads all events by position and leaves out what is not its own; one insert an
//! event; batches of 100), written here in bare SQL.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark ends at the first error")]

#[path = "../../peers/common.rs"]
#[expect(
    unreachable_pub,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is part of programs with other lints"
)]
mod common;

mod floor;
mod potter;

use common::job;
use potter_core::{Database, DatabaseOptions};
use potter_eventsourcing::{StreamId, event_store};

/// The same tables for all of them.
async fn setup(database: &Database) {
    event_store(database).unwrap().migrate().await.unwrap();
    database.execute(common::READ_MODEL, &[]).await.unwrap();
    let checkpoints = "CREATE TABLE checkpoints (name text PRIMARY KEY, position bigint NOT NULL)";
    database.execute(checkpoints, &[]).await.unwrap();
}

/// The log of every side: 10,000 streams in turn.
async fn fill(database: &Database, events: i64) {
    let streams = i64::try_from(common::STREAMS).unwrap();
    let segments: Vec<i16> = (0..streams)
        .map(|number| StreamId::new("account", number.to_string()).unwrap().segment())
        .map(|segment| i16::try_from(segment).unwrap())
        .collect();
    let pool = database.postgres().unwrap();
    sqlx::query("INSERT INTO potter_streams (stream_id, version) SELECT 'account-' || s, $1 / $2 FROM generate_series(0, $2 - 1) s")
        .bind(events).bind(streams).execute(pool).await.unwrap();
    sqlx::query(
        "INSERT INTO potter_events (stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
         SELECT 'account-' || n % $2, n / $2 + 1, gen_random_uuid(), $3, 1, $4::json, '{}', ($5::smallint[])[n % $2 + 1]
         FROM generate_series(0, $1 - 1) n",
    )
    .bind(events).bind(streams).bind(common::EVENT_TYPE).bind(common::PAYLOAD).bind(segments)
    .execute(pool).await.unwrap();
    sqlx::query("ANALYZE").execute(pool).await.unwrap();
}

#[tokio::main]
async fn main() {
    let job = job();
    let options = DatabaseOptions::new().max_connections(40);
    let database = options.connect(&job.url).await.unwrap();
    match job.work.as_str() {
        "setup" => setup(&database).await,
        "fill" => fill(&database, i64::try_from(job.events).unwrap()).await,
        _ => match std::env::var("SIDE").expect("SIDE").as_str() {
            "floor" => floor::run(&job).await,
            "whole-log" => floor::whole_log(&job).await,
            _ => potter::run(&job, database).await,
        },
    }
}
