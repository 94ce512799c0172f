//! Claiming due sagas on SQLite and PostgreSQL.
//!
//! A saga is due when its time has come and it has no owner, its owner's lease is over, or it is
//! this process's own and this process has lost it (an error on the way). The claim raises the
//! fencing token, so the owner before can't write any more. All on the database's clock.

use std::collections::HashMap;
use std::time::Duration;

use potter_core::{Engine, Json, Row, Sql, values};
use uuid::Uuid;

use super::rules::{unknown_version, unpark, whole_entry};
use super::sql::{SqlSagaStore, entry_of, micros, record_of, select};
use super::{ClaimRequest, Claimed, UNKNOWN_VERSION, UNNOTICED};
use crate::error::Result;
use crate::progress::{EntryKind, LogEntry};
use crate::status::SagaStatus;

macro_rules! due_sqlite {
    () => {
        "WHERE status IN ('pending', 'running', 'compensating')
           AND wake_at <= CAST(unixepoch('subsec') * 1000000 AS INTEGER)
           AND (name || '/' || version) IN (SELECT value FROM json_each($3))
           AND (owner IS NULL OR (owner = $1 AND (id IN (SELECT value FROM json_each($5))
                 OR (id NOT IN (SELECT value FROM json_each($2))
                     AND updated_at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - $6)))
             OR (owner <> $1 AND owner NOT IN (SELECT id FROM potter_saga_nodes
                 WHERE expires_at > CAST(unixepoch('subsec') * 1000000 AS INTEGER))))
         ORDER BY wake_at LIMIT $4"
    };
}

macro_rules! due_postgres {
    () => {
        "WHERE s.status IN ('pending', 'running', 'compensating') AND s.wake_at <= clock_timestamp()
           AND (s.name || '/' || s.version) IN (SELECT jsonb_array_elements_text($3::jsonb))
           AND (s.owner IS NULL
             OR (s.owner = $1 AND (s.id::text IN (SELECT jsonb_array_elements_text($5::jsonb))
                 OR (s.id::text NOT IN (SELECT jsonb_array_elements_text($2::jsonb))
                     AND s.updated_at < clock_timestamp() - $6 * interval '1 microsecond')))
             OR (s.owner <> $1 AND NOT EXISTS (SELECT 1 FROM potter_saga_nodes n
                 WHERE n.id = s.owner AND n.expires_at > clock_timestamp())))
         ORDER BY s.wake_at LIMIT $4"
    };
}

// A look before the claim: an idle process must not take SQLite's one writer to find nothing.
const LOOK: Sql = Sql::new(
    concat!(
        "SELECT count(*) AS due FROM (SELECT 1 FROM potter_sagas ",
        due_sqlite!(),
        ") AS found"
    ),
    concat!(
        "SELECT count(*) AS due FROM (SELECT 1 FROM potter_sagas s ",
        due_postgres!(),
        ") AS found"
    ),
);

const DUE_SQLITE: &str = concat!(
    "SELECT *, owner IS NOT NULL AS taken_over,
         coalesce(deadline_at <= CAST(unixepoch('subsec') * 1000000 AS INTEGER), 0) AS overdue
     FROM potter_sagas ",
    due_sqlite!()
);

const TAKE_SQLITE: &str = "UPDATE potter_sagas SET fence = fence + 1, owner = $1
     WHERE id IN (SELECT value FROM json_each($2))";

const CLAIM_POSTGRES: &str = concat!(
    "WITH due AS (SELECT s.id, s.owner FROM potter_sagas s ",
    due_postgres!(),
    " FOR UPDATE OF s SKIP LOCKED)
     UPDATE potter_sagas s SET fence = s.fence + 1, owner = $1
     FROM due WHERE s.id = due.id
     RETURNING s.id, s.name, s.version::bigint AS version, s.definition_hash, s.key, s.input, s.metadata,
         s.status, s.steps_total::bigint AS steps_total, s.step::bigint AS step, s.attempt::bigint AS attempt,
         s.error, s.parked, s.past_pivot, s.compensating, s.cancel_requested, s.owner, s.fence, s.wake_at,
         s.deadline_at, s.created_at, s.updated_at, s.finished_at, due.owner IS NOT NULL AS taken_over,
         coalesce(s.deadline_at <= clock_timestamp(), false) AS overdue"
);

const LOGS: Sql = Sql::new(
    "SELECT saga_id, kind, step, step_name, attempt, uncertain, output, error, duration_us FROM potter_saga_log
     WHERE saga_id IN (SELECT value FROM json_each($1)) ORDER BY saga_id, seq",
    "SELECT saga_id, kind, step::bigint AS step, step_name, attempt::bigint AS attempt, uncertain, output,
         error, duration_us FROM potter_saga_log
     WHERE saga_id IN (SELECT value::uuid FROM jsonb_array_elements_text($1::jsonb)) ORDER BY saga_id, seq",
);

const STRANDED: Sql = Sql::new(
    select!(
        "WHERE status IN ('pending', 'running', 'compensating') AND owner IS NULL
           AND wake_at <= CAST(unixepoch('subsec') * 1000000 AS INTEGER) - $3
           AND name IN (SELECT value FROM json_each($1))
           AND (name || '/' || version) NOT IN (SELECT value FROM json_each($2)) LIMIT 100"
    ),
    select!(
        "WHERE status IN ('pending', 'running', 'compensating') AND owner IS NULL
           AND wake_at <= clock_timestamp() - $3 * interval '1 microsecond'
           AND name IN (SELECT jsonb_array_elements_text($1::jsonb))
           AND (name || '/' || version) NOT IN (SELECT jsonb_array_elements_text($2::jsonb))
         LIMIT 100 FOR UPDATE SKIP LOCKED"
    ),
);

const KNOWN_AGAIN: Sql = Sql::new(
    select!(
        "WHERE status = 'failed' AND parked LIKE $1
           AND (name || '/' || version) IN (SELECT value FROM json_each($2)) LIMIT 100"
    ),
    select!(
        "WHERE status = 'failed' AND parked LIKE $1
           AND (name || '/' || version) IN (SELECT jsonb_array_elements_text($2::jsonb))
         LIMIT 100 FOR UPDATE SKIP LOCKED"
    ),
);

fn names_and_versions(registered: &[(&'static str, u32)]) -> Result<Json> {
    let list: Vec<_> =
        registered.iter().map(|(name, version)| format!("{name}/{version}")).collect();
    Ok(Json::of(&list)?)
}

fn arguments(request: &ClaimRequest) -> Result<Vec<potter_core::SqlValue>> {
    Ok(values![
        request.node,
        Json::of(&request.running)?,
        names_and_versions(&request.registered)?,
        request.limit,
        Json::of(&request.lost)?,
        micros(UNNOTICED)
    ]
    .to_vec())
}

impl SqlSagaStore {
    pub(super) async fn count_due(&self, request: &ClaimRequest) -> Result<u32> {
        let rows = self.database.read(LOOK, &arguments(request)?).await?;
        let due = rows.first().map_or(Ok(0), |row| row.i64("due"))?;
        Ok(u32::try_from(due).unwrap_or(u32::MAX))
    }

    pub(super) async fn claim_due(&self, request: &ClaimRequest) -> Result<Vec<Claimed>> {
        let arguments = arguments(request)?;
        let rows = if self.database.engine() == Engine::Postgres {
            self.database.write(CLAIM_POSTGRES, &arguments).await?
        } else {
            let mut tx = self.database.begin().await?;
            let rows = tx.fetch_all(DUE_SQLITE, &arguments).await?;
            let ids: Vec<_> = rows.iter().map(|row| row.text("id")).collect::<Result<_, _>>()?;
            tx.execute(TAKE_SQLITE, values![request.node, Json::of(&ids)?]).await?;
            tx.commit().await?;
            rows
        };
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut claimed: Vec<_> =
            rows.iter().map(|row| self.claimed(row, request.node)).collect::<Result<_>>()?;
        self.add_logs(&mut claimed).await?;
        Ok(claimed)
    }

    fn claimed(&self, row: &Row, node: Uuid) -> Result<Claimed> {
        let mut record = record_of(row)?;
        if self.database.engine() == Engine::Sqlite {
            // The row is as it was before the update.
            record.fence += 1;
            record.owner = Some(node);
        }
        let (taken_over, overdue) = (row.bool("taken_over")?, row.bool("overdue")?);
        Ok(Claimed { record, taken_over, log: Vec::new(), overdue })
    }

    async fn add_logs(&self, claimed: &mut [Claimed]) -> Result<()> {
        let ids: Vec<_> = claimed.iter().map(|one| one.record.id).collect();
        let mut logs: HashMap<Uuid, Vec<LogEntry>> = HashMap::new();
        for row in self.database.read(LOGS, values![Json::of(&ids)?]).await? {
            logs.entry(row.uuid("saga_id")?).or_default().push(entry_of(&row)?);
        }
        for one in claimed {
            one.log = logs.remove(&one.record.id).unwrap_or_default();
        }
        Ok(())
    }

    pub(super) async fn park_unknown_versions(
        &self,
        registered: &[(&'static str, u32)],
        grace: Duration,
    ) -> Result<u64> {
        let names: Vec<_> = registered.iter().map(|(name, _)| *name).collect();
        let (names, known) = (Json::of(&names)?, names_and_versions(registered)?);
        let mut tx = self.database.begin().await?;
        let stranded = tx.fetch_all(STRANDED, values![names, &known, micros(grace)]).await?;
        let back = tx.fetch_all(KNOWN_AGAIN, values![format!("{UNKNOWN_VERSION}%"), known]).await?;
        for row in &stranded {
            let mut record = record_of(row)?;
            record.status = SagaStatus::Failed;
            record.parked = Some(unknown_version(&record));
            let entry = whole_entry(&record, EntryKind::Parked, record.parked.clone());
            self.set_parked(&mut tx, &record, &entry).await?;
        }
        for row in &back {
            let mut record = record_of(row)?;
            unpark(&mut record);
            let entry = whole_entry(&record, EntryKind::Resumed, None);
            self.set_parked(&mut tx, &record, &entry).await?;
        }
        tx.commit().await?;
        Ok(stranded.len() as u64)
    }

    async fn set_parked(
        &self,
        tx: &mut potter_core::Tx,
        record: &super::SagaRecord,
        entry: &LogEntry,
    ) -> Result<()> {
        tx.execute(
            "UPDATE potter_sagas SET status = $2, parked = $3, rev = rev + 1 WHERE id = $1",
            values![record.id, record.status.as_str(), record.parked.clone()],
        )
        .await?;
        self.append_next(tx, record, entry).await
    }
}
