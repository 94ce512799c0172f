//! What became of commands: one row each.
//!
//! A completed command's row commits with its events. So a command that comes again finds its row
//! and is answered from it, however long ago the first time was; two at once wait for each other at
//! the row.

use std::time::Duration;

use chrono::{DateTime, Utc};
use examples_common::{OnceAnswer, Problem};
use potter_core::{Database, Json, Row, Sql, Tx, values};
use serde::Serialize;
use utoipa::ToSchema;

/// What became of a command.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CommandStatus {
    pub(crate) command_id: String,
    aggregate_id: String,
    #[schema(example = "Deposit")]
    command_type: String,
    /// `completed` or `rejected`.
    #[schema(example = "completed")]
    status: String,
    /// What the command was answered with; a problem when it was rejected.
    #[schema(value_type = Object)]
    result: Json,
    /// How long it took.
    duration_ms: f64,
    finished_at: DateTime<Utc>,
}

/// The command that a row is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) command_id: &'a str,
    pub(crate) request_hash: &'a str,
    pub(crate) aggregate_id: &'a str,
    pub(crate) command_type: &'a str,
}

// Waits for another transaction that has the row. No row comes back when it is completed.
const CLAIM: Sql = Sql::new(
    "INSERT INTO cqrs_commands AS c (command_id, request_hash, aggregate_id, command_type, status,
         answer, duration_us, finished_at)
     VALUES ($1, $2, $3, $4, 'completed', 'null', 0, $5)
     ON CONFLICT (command_id) DO UPDATE SET request_hash = excluded.request_hash,
         aggregate_id = excluded.aggregate_id, command_type = excluded.command_type,
         status = 'completed', finished_at = excluded.finished_at
     WHERE c.status <> 'completed' RETURNING command_id",
    "INSERT INTO cqrs_commands AS c (command_id, request_hash, aggregate_id, command_type, status,
         answer, duration_us, finished_at)
     VALUES ($1, $2, $3, $4, 'completed', 'null'::json, 0, $5)
     ON CONFLICT (command_id) DO UPDATE SET request_hash = excluded.request_hash,
         aggregate_id = excluded.aggregate_id, command_type = excluded.command_type,
         status = 'completed', finished_at = excluded.finished_at
     WHERE c.status <> 'completed' RETURNING command_id",
);
const COMPLETE: Sql = Sql::new(
    "UPDATE cqrs_commands SET answer = $2, duration_us = $3 WHERE command_id = $1",
    "UPDATE cqrs_commands SET answer = $2::json, duration_us = $3 WHERE command_id = $1",
);
const REJECT: Sql = Sql::new(
    "INSERT INTO cqrs_commands AS c (command_id, request_hash, aggregate_id, command_type, status,
         answer, duration_us, finished_at)
     VALUES ($1, $2, $3, $4, 'rejected', $5, $6, $7)
     ON CONFLICT (command_id) DO UPDATE SET request_hash = excluded.request_hash,
         aggregate_id = excluded.aggregate_id, command_type = excluded.command_type,
         answer = excluded.answer, duration_us = excluded.duration_us,
         finished_at = excluded.finished_at
     WHERE c.status <> 'completed'",
    "INSERT INTO cqrs_commands AS c (command_id, request_hash, aggregate_id, command_type, status,
         answer, duration_us, finished_at)
     VALUES ($1, $2, $3, $4, 'rejected', $5::json, $6, $7)
     ON CONFLICT (command_id) DO UPDATE SET request_hash = excluded.request_hash,
         aggregate_id = excluded.aggregate_id, command_type = excluded.command_type,
         answer = excluded.answer, duration_us = excluded.duration_us,
         finished_at = excluded.finished_at
     WHERE c.status <> 'completed'",
);
const FIND: &str = "SELECT command_id, request_hash, aggregate_id, command_type, status, answer,
         duration_us, finished_at
     FROM cqrs_commands WHERE command_id = $1";

fn micros(took: Duration) -> i64 {
    i64::try_from(took.as_micros()).unwrap_or(i64::MAX)
}

/// Takes the row of a command for this transaction; the first answer when it is done already.
///
/// # Errors
/// 422 `command_id_reused` when it was another command.
pub(crate) async fn claim(tx: &mut Tx, entry: &Entry<'_>) -> Result<Option<OnceAnswer>, Problem> {
    let Entry { command_id, request_hash, aggregate_id, command_type } = *entry;
    let row = values![command_id, request_hash, aggregate_id, command_type, Utc::now()];
    if tx.fetch_optional(CLAIM, row).await?.is_some() {
        return Ok(None);
    }
    let Some(row) = tx.fetch_optional(FIND, values![command_id]).await? else {
        let text = "the command's row went away";
        return Err(potter_core::Error::new(potter_core::ErrorKind::Conflict, text).into());
    };
    if row.text("request_hash")? != request_hash {
        let detail =
            format!("The command_id {command_id} was used for another command: take a new one.");
        return Err(
            Problem::unprocessable("command_id_reused", &*detail).with_field("command_id", detail)
        );
    }
    Ok(Some(row.json("answer")?.get()?))
}

/// Writes the answer of a claimed command.
///
/// # Errors
/// 503 when the database is away.
pub(crate) async fn complete(
    tx: &mut Tx,
    command_id: &str,
    answer: &OnceAnswer,
    took: Duration,
) -> Result<(), Problem> {
    let answer = Json::of(answer)?;
    tx.execute(COMPLETE, values![command_id, &answer, micros(took)]).await?;
    Ok(())
}

/// Writes that a command was refused, unless it was completed meanwhile. Only for those who look:
/// what goes wrong here is logged.
pub(crate) async fn reject(
    database: &Database,
    entry: &Entry<'_>,
    problem: &Problem,
    took: Duration,
) {
    let Entry { command_id, request_hash, aggregate_id, command_type } = *entry;
    let written = async {
        let (answer, took) = (Json::of(problem)?, micros(took));
        let row = values![
            command_id,
            request_hash,
            aggregate_id,
            command_type,
            &answer,
            took,
            Utc::now()
        ];
        database.execute(REJECT, row).await
    };
    if let Err(error) = written.await {
        tracing::warn!(command_id, %error, "a rejected command could not be written down");
    }
}

/// What became of a command.
///
/// # Errors
/// 404 `command_not_found`.
pub(crate) async fn find(database: &Database, command_id: &str) -> Result<CommandStatus, Problem> {
    let rows = database.read(FIND, values![command_id]).await?;
    let Some(row) = rows.first() else {
        let detail = format!(
            "There is no command {command_id}: it is under way, or did not take effect. Send it \
             again with the same command_id."
        );
        return Err(Problem::not_found("command_not_found", detail));
    };
    status(row)
}

fn status(row: &Row) -> Result<CommandStatus, Problem> {
    let (status, answer) = (row.text("status")?, row.json("answer")?);
    let result =
        if status == "completed" { answer.get::<OnceAnswer>()?.body().clone() } else { answer };
    Ok(CommandStatus {
        command_id: row.text("command_id")?,
        aggregate_id: row.text("aggregate_id")?,
        command_type: row.text("command_type")?,
        status,
        result,
        duration_ms: milliseconds(row.i64("duration_us")?),
        finished_at: row.time("finished_at")?,
    })
}

#[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53 microseconds")]
fn milliseconds(micros: i64) -> f64 {
    micros as f64 / 1000.0
}

/// How commands of one type went.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CommandTypeFigures {
    #[schema(example = "Deposit")]
    command_type: String,
    commands: i64,
    completed: i64,
    rejected: i64,
    /// Of half of them, at most.
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// By type, of commands that finished at or after `since`, the most frequent first.
///
/// # Errors
/// 503 when the database is away.
pub(crate) async fn figures(
    database: &Database,
    since: DateTime<Utc>,
) -> Result<Vec<CommandTypeFigures>, Problem> {
    const FIGURES: &str = "WITH ranked AS (
             SELECT command_type, status, duration_us,
                 row_number() OVER (PARTITION BY command_type ORDER BY duration_us) AS place,
                 count(*) OVER (PARTITION BY command_type) AS commands
             FROM cqrs_commands WHERE finished_at >= $1)
         SELECT command_type, max(commands) AS commands,
             count(CASE WHEN status = 'completed' THEN 1 END) AS completed,
             count(CASE WHEN status = 'rejected' THEN 1 END) AS rejected,
             min(CASE WHEN place * 2 >= commands THEN duration_us END) AS p50,
             min(CASE WHEN place * 20 >= commands * 19 THEN duration_us END) AS p95,
             min(CASE WHEN place * 100 >= commands * 99 THEN duration_us END) AS p99,
             max(duration_us) AS longest
         FROM ranked GROUP BY command_type ORDER BY 2 DESC, 1";
    let rows = database.read(FIGURES, values![since]).await?;
    rows.iter()
        .map(|row| {
            Ok(CommandTypeFigures {
                command_type: row.text("command_type")?,
                commands: row.i64("commands")?,
                completed: row.i64("completed")?,
                rejected: row.i64("rejected")?,
                p50_ms: milliseconds(row.i64("p50")?),
                p95_ms: milliseconds(row.i64("p95")?),
                p99_ms: milliseconds(row.i64("p99")?),
                max_ms: milliseconds(row.i64("longest")?),
            })
        })
        .collect()
}
