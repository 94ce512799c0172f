//! Sagas on SQLite and PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use potter_core::{Database, Engine, Json, Migration, Migrations, Row, Sql, Tx, values};
use uuid::Uuid;

use super::rules::{cancel, existing_id, fenced, id_taken, not_found, resume, resumed_entry};
use super::{
    Advance, Advanced, ClaimRequest, Claimed, Inserted, LogRecord, NewSaga, SagaFilter, SagaRecord,
    SagaStore, saga_json,
};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{EntryKind, LogEntry};
use crate::status::SagaStatus;

/// The schema of this crate's tables, to apply or to print.
pub const MIGRATIONS: Migrations = Migrations {
    owner: "potter-saga",
    list: &[Migration {
        version: 1,
        name: "sagas",
        sqlite: include_str!("../../migrations/sqlite/0001_sagas.sql"),
        postgres: include_str!("../../migrations/postgres/0001_sagas.sql"),
    }],
};

/// Sagas in an SQL database.
#[derive(Clone, Debug)]
pub struct SqlSagaStore {
    pub(super) database: Database,
}

const INSERT: Sql = Sql::new(
    "INSERT INTO potter_sagas (id, name, version, definition_hash, key, input_hash, input, metadata,
         correlation_id, status, steps_total, owner, fence, wake_at, deadline_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'pending', $10, $11, $12,
         CAST(unixepoch('subsec') * 1000000 AS INTEGER),
         CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $13)
     ON CONFLICT DO NOTHING RETURNING id",
    "INSERT INTO potter_sagas (id, name, version, definition_hash, key, input_hash, input, metadata,
         correlation_id, status, steps_total, owner, fence, wake_at, deadline_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7::json, $8::json, $9, 'pending', $10, $11, $12,
         clock_timestamp(), clock_timestamp() + $13 * interval '1 microsecond')
     ON CONFLICT DO NOTHING RETURNING id",
);

// The log rows are inserted by the same statement: one round trip, and none without the fence.
#[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "the other engine's text"))]
const ADVANCE_POSTGRES: &str = "WITH saga AS (
         UPDATE potter_sagas SET status = $3, step = $4, attempt = $5, past_pivot = $6, compensating = $7,
             parked = $8, error = coalesce($9, error), rev = rev + 1, updated_at = clock_timestamp(),
             owner = CASE WHEN $10 THEN NULL ELSE owner END,
             wake_at = CASE WHEN $11::bigint IS NULL THEN wake_at
                 ELSE least(clock_timestamp() + $11 * interval '1 microsecond',
                     CASE WHEN $6 OR $7 THEN NULL ELSE deadline_at END) END,
             finished_at = CASE WHEN $12 THEN clock_timestamp() END
         WHERE id = $1 AND fence = $2 AND owner IS NOT NULL
         RETURNING cancel_requested, coalesce(deadline_at <= clock_timestamp(), false) AS overdue
     ), log AS (
         INSERT INTO potter_saga_log
             (saga_id, seq, kind, step, step_name, attempt, uncertain, output, error, duration_us)
         SELECT $1, $13 + row_number() OVER (), r.* FROM saga, json_to_recordset($14::json) AS r (
             kind text, step integer, step_name text, attempt integer, uncertain boolean, output json,
             error text, duration_us bigint)
     )
     SELECT cancel_requested, overdue FROM saga";

const ADVANCE_SQLITE: &str =
    "UPDATE potter_sagas SET status = $3, step = $4, attempt = $5, past_pivot = $6,
         compensating = $7, parked = $8, error = coalesce($9, error), rev = rev + 1,
         updated_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER),
         owner = CASE WHEN $10 THEN NULL ELSE owner END,
         wake_at = CASE WHEN $11 IS NULL THEN wake_at
             WHEN deadline_at IS NULL OR $6 OR $7
             THEN CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $11
             ELSE min(CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $11, deadline_at) END,
         finished_at = CASE WHEN $12 THEN CAST(unixepoch('subsec') * 1000000 AS INTEGER) END
     WHERE id = $1 AND fence = $2 AND owner IS NOT NULL
     RETURNING cancel_requested,
         coalesce(deadline_at <= CAST(unixepoch('subsec') * 1000000 AS INTEGER), 0) AS overdue";

const LOG: Sql = Sql::new(
    "INSERT INTO potter_saga_log
         (saga_id, seq, kind, step, step_name, attempt, uncertain, output, error, duration_us)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    "INSERT INTO potter_saga_log
         (saga_id, seq, kind, step, step_name, attempt, uncertain, output, error, duration_us)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8::json, $9, $10)",
);

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, CAST(version AS bigint) AS version, definition_hash, key, input, metadata, status,
             CAST(steps_total AS bigint) AS steps_total, CAST(step AS bigint) AS step,
             CAST(attempt AS bigint) AS attempt, error, parked, past_pivot, compensating, cancel_requested,
             owner, fence, wake_at, deadline_at, created_at, updated_at, finished_at FROM potter_sagas ",
            $rest
        )
    };
}
pub(super) use select;

impl SqlSagaStore {
    /// A store in `database`, which must be SQLite or PostgreSQL.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    async fn insert_in(&self, tx: &mut Tx, saga: &NewSaga) -> Result<Inserted> {
        let timeout = saga.timeout.map(micros);
        let inserted = tx
            .fetch_optional(
                INSERT,
                values![
                    saga.id,
                    saga.name,
                    saga.version,
                    &saga.definition_hash,
                    &saga.key,
                    &saga.input_hash,
                    &saga.input,
                    Json::of(&saga.metadata)?,
                    saga.metadata.correlation_id.clone(),
                    count(saga.steps_total),
                    saga.owner,
                    i64::from(saga.owner.is_some()),
                    timeout
                ],
            )
            .await?;
        if inserted.is_some() {
            return Ok(Inserted::Created);
        }
        let row = tx
            .fetch_optional(
                "SELECT id, input_hash FROM potter_sagas WHERE name = $1 AND key = $2",
                values![saga.name, &saga.key],
            )
            .await?;
        existing(row.as_ref(), saga)
    }

    /// One statement, one round trip; the rare second one finds the saga that was there before.
    async fn insert_alone(&self, saga: &NewSaga) -> Result<Inserted> {
        let inserted = self
            .database
            .write(
                INSERT,
                values![
                    saga.id,
                    saga.name,
                    saga.version,
                    &saga.definition_hash,
                    &saga.key,
                    &saga.input_hash,
                    &saga.input,
                    Json::of(&saga.metadata)?,
                    saga.metadata.correlation_id.clone(),
                    count(saga.steps_total),
                    saga.owner,
                    i64::from(saga.owner.is_some()),
                    saga.timeout.map(micros)
                ],
            )
            .await?;
        if !inserted.is_empty() {
            return Ok(Inserted::Created);
        }
        let rows = self
            .database
            .read(
                "SELECT id, input_hash FROM potter_sagas WHERE name = $1 AND key = $2",
                values![saga.name, &saga.key],
            )
            .await?;
        existing(rows.first(), saga)
    }

    async fn advance_in(&self, tx: &mut Tx, advance: &Advance) -> Result<Advanced> {
        let postgres = tx.engine() == Engine::Postgres;
        let text = if postgres { ADVANCE_POSTGRES } else { ADVANCE_SQLITE };
        let row = tx.fetch_optional(text, &advance_values(advance)?).await?;
        let advanced = advanced(row.as_ref(), advance)?;
        if !postgres {
            append(tx, advance.saga_id, advance.seq, &advance.entries).await?;
        }
        Ok(advanced)
    }

    async fn change(&self, id: Uuid, work: fn(&mut SagaRecord) -> Result<bool>) -> Result<()> {
        let mut tx = self.database.begin().await?;
        let row = tx
            .fetch_optional(
                Sql::new(select!("WHERE id = $1"), select!("WHERE id = $1 FOR UPDATE")),
                values![id],
            )
            .await?;
        let mut record = record_of(&row.ok_or_else(|| not_found(id))?)?;
        let resumed = work(&mut record)?;
        tx.execute(
            Sql::new(
                "UPDATE potter_sagas SET status = $2, parked = $3, attempt = $4, cancel_requested = $5,
                     rev = rev + 1, wake_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER),
                     updated_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) WHERE id = $1",
                "UPDATE potter_sagas SET status = $2, parked = $3, attempt = $4, cancel_requested = $5,
                     rev = rev + 1, wake_at = clock_timestamp(), updated_at = clock_timestamp() WHERE id = $1",
            ),
            values![id, record.status.as_str(), record.parked.clone(), record.attempt, record.cancel_requested],
        )
        .await?;
        if resumed {
            self.append_next(&mut tx, &record, &resumed_entry(&record)).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    pub(super) async fn append_next(
        &self,
        tx: &mut Tx,
        record: &SagaRecord,
        entry: &LogEntry,
    ) -> Result<()> {
        let row = tx
            .fetch_optional(
                "SELECT coalesce(max(seq), 0) AS seq FROM potter_saga_log WHERE saga_id = $1",
                values![record.id],
            )
            .await?;
        let seq = row.map_or(Ok(0), |row| row.i64("seq"))?;
        append(tx, record.id, seq, std::slice::from_ref(entry)).await
    }
}

async fn append(tx: &mut Tx, id: Uuid, seq: i64, entries: &[LogEntry]) -> Result<()> {
    for (offset, entry) in (1i64..).zip(entries) {
        tx.execute(
            LOG,
            values![
                id,
                seq + offset,
                entry.kind.as_str(),
                count(entry.step),
                entry.step_name.clone(),
                entry.attempt,
                entry.uncertain,
                entry.output.clone(),
                entry.error.clone(),
                entry.duration_us
            ],
        )
        .await?;
    }
    Ok(())
}

fn advance_values(advance: &Advance) -> Result<Vec<potter_core::SqlValue>> {
    let active = matches!(
        advance.status,
        SagaStatus::Pending | SagaStatus::Running | SagaStatus::Compensating
    );
    Ok(values![
        advance.saga_id,
        advance.fence,
        advance.status.as_str(),
        count(advance.step),
        advance.attempt,
        advance.past_pivot,
        advance.compensating,
        advance.parked.clone(),
        advance.error.clone(),
        !active || advance.release_after.is_some(),
        advance.release_after.map(micros),
        advance.status.is_final(),
        advance.seq,
        saga_json(&advance.entries)?
    ]
    .to_vec())
}

fn advanced(row: Option<&Row>, advance: &Advance) -> Result<Advanced> {
    let row = row.ok_or_else(|| fenced(advance))?;
    Ok(Advanced { cancel_requested: row.bool("cancel_requested")?, overdue: row.bool("overdue")? })
}

fn existing(row: Option<&Row>, saga: &NewSaga) -> Result<Inserted> {
    let row = row.ok_or_else(|| id_taken(saga))?;
    existing_id(saga, row.uuid("id")?, &row.text("input_hash")?)
}

#[async_trait]
impl SagaStore for SqlSagaStore {
    async fn migrate(&self) -> Result<()> {
        potter_core::migrate(&self.database).await?;
        Ok(MIGRATIONS.apply(&self.database).await?)
    }

    fn database(&self) -> &Database {
        &self.database
    }

    async fn insert(&self, tx: Option<&mut Tx>, saga: &NewSaga) -> Result<Inserted> {
        match tx {
            Some(tx) => self.insert_in(tx, saga).await,
            None => self.insert_alone(saga).await,
        }
    }

    async fn due(&self, request: &ClaimRequest) -> Result<u32> {
        self.count_due(request).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>> {
        self.claim_due(request).await
    }

    async fn advance(&self, tx: Option<Tx>, advance: &Advance) -> Result<Advanced> {
        if tx.is_none() && self.database.engine() == Engine::Postgres {
            let rows = self.database.write(ADVANCE_POSTGRES, &advance_values(advance)?).await?;
            return advanced(rows.first(), advance);
        }
        let mut tx = match tx {
            Some(tx) => tx,
            None => self.database.begin().await?,
        };
        let advanced = self.advance_in(&mut tx, advance).await?;
        tx.commit().await?;
        Ok(advanced)
    }

    async fn heartbeat(&self, node: Uuid, ttl: Duration) -> Result<()> {
        // Also while all connections wait inside of steps: who misses it loses its sagas.
        self.database
            .reserved()
            .execute(
                Sql::new(
                    "INSERT INTO potter_saga_nodes (id, expires_at)
                     VALUES ($1, CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $2)
                     ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at",
                    "INSERT INTO potter_saga_nodes (id, expires_at)
                     VALUES ($1, clock_timestamp() + $2 * interval '1 microsecond')
                     ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at",
                ),
                values![node, micros(ttl)],
            )
            .await?;
        Ok(())
    }

    async fn retire(&self, node: Uuid, clean: bool) -> Result<()> {
        let mut tx = self.database.begin().await?;
        if clean {
            tx.execute("UPDATE potter_sagas SET owner = NULL WHERE owner = $1", values![node])
                .await?;
        }
        tx.execute("DELETE FROM potter_saga_nodes WHERE id = $1", values![node]).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn park_unknown(
        &self,
        registered: &[(&'static str, u32)],
        grace: Duration,
    ) -> Result<u64> {
        self.park_unknown_versions(registered, grace).await
    }

    async fn request_cancel(&self, id: Uuid) -> Result<()> {
        self.change(id, cancel).await
    }

    async fn resume(&self, id: Uuid) -> Result<()> {
        self.change(id, resume).await
    }

    async fn get(&self, id: Uuid) -> Result<Option<SagaRecord>> {
        let rows = self.database.read(select!("WHERE id = $1"), values![id]).await?;
        rows.first().map(record_of).transpose()
    }

    async fn log(&self, id: Uuid) -> Result<Vec<LogRecord>> {
        let rows = self
            .database
            .read(
                "SELECT kind, CAST(step AS bigint) AS step, step_name, CAST(attempt AS bigint) AS attempt,
                     uncertain, output, error, duration_us, at
                 FROM potter_saga_log WHERE saga_id = $1 ORDER BY seq",
                values![id],
            )
            .await?;
        rows.iter()
            .map(|row| Ok(LogRecord { entry: entry_of(row)?, at: row.time("at")? }))
            .collect()
    }

    async fn list(&self, filter: &SagaFilter) -> Result<(Vec<SagaRecord>, u64)> {
        let status = filter.status.map(SagaStatus::as_str);
        let (name, correlation_id) = (filter.name.clone(), filter.correlation_id.clone());
        let matching =
            values![status, name, correlation_id, filter.version, filter.unfinished].to_vec();
        let rows = self
            .database
            .read(
                "SELECT count(*) AS total FROM potter_sagas
                 WHERE (CAST($1 AS text) IS NULL OR status = $1) AND (CAST($2 AS text) IS NULL OR name = $2)
                   AND (CAST($3 AS text) IS NULL OR correlation_id = $3)
                   AND (CAST($4 AS bigint) IS NULL OR version = $4) AND (NOT $5 OR finished_at IS NULL)",
                &matching,
            )
            .await?;
        let total = rows.first().map_or(Ok(0), |row| row.i64("total"))?;
        let mut page = matching;
        page.extend_from_slice(values![filter.limit.min(SagaFilter::LIMIT_MAX), filter.offset]);
        let rows = self
            .database
            .read(
                select!(
                    "WHERE (CAST($1 AS text) IS NULL OR status = $1) AND (CAST($2 AS text) IS NULL OR name = $2)
                       AND (CAST($3 AS text) IS NULL OR correlation_id = $3)
                       AND (CAST($4 AS bigint) IS NULL OR version = $4) AND (NOT $5 OR finished_at IS NULL)
                     ORDER BY created_at DESC, id DESC LIMIT $6 OFFSET $7"
                ),
                &page,
            )
            .await?;
        Ok((rows.iter().map(record_of).collect::<Result<_>>()?, total.unsigned_abs()))
    }

    async fn purge(&self, before: DateTime<Utc>, limit: u32) -> Result<u64> {
        Ok(self
            .database
            .execute(
                "DELETE FROM potter_sagas WHERE id IN (
                     SELECT id FROM potter_sagas WHERE finished_at < $1 ORDER BY finished_at LIMIT $2)",
                values![before, limit],
            )
            .await?)
    }
}

pub(super) fn record_of(row: &Row) -> Result<SagaRecord> {
    Ok(SagaRecord {
        id: row.uuid("id")?,
        name: row.text("name")?,
        version: u32::try_from(row.i64("version")?).unwrap_or_default(),
        definition_hash: row.text("definition_hash")?,
        key: row.text("key")?,
        input: row.json("input")?,
        metadata: row.json("metadata")?.get()?,
        status: row.text("status")?.parse()?,
        steps_total: usize::try_from(row.i64("steps_total")?).unwrap_or_default(),
        step: usize::try_from(row.i64("step")?).unwrap_or_default(),
        attempt: u32::try_from(row.i64("attempt")?).unwrap_or_default(),
        error: row.opt_text("error")?,
        parked: row.opt_text("parked")?,
        past_pivot: row.bool("past_pivot")?,
        compensating: row.bool("compensating")?,
        cancel_requested: row.bool("cancel_requested")?,
        owner: row.opt_uuid("owner")?,
        fence: row.i64("fence")?,
        wake_at: row.time("wake_at")?,
        deadline_at: row.opt_time("deadline_at")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        finished_at: row.opt_time("finished_at")?,
    })
}

pub(super) fn entry_of(row: &Row) -> Result<LogEntry> {
    let word = row.text("kind")?;
    let kind = EntryKind::parse(&word).ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            format!("the log of a saga has an entry of the unknown kind \"{word}\""),
        )
    })?;
    Ok(LogEntry {
        kind,
        step: usize::try_from(row.i64("step")?).unwrap_or_default(),
        step_name: row.opt_text("step_name")?,
        attempt: u32::try_from(row.i64("attempt")?).unwrap_or_default(),
        uncertain: row.bool("uncertain")?,
        output: row.opt_json("output")?,
        error: row.opt_text("error")?,
        duration_us: row.i64("duration_us")?,
    })
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
