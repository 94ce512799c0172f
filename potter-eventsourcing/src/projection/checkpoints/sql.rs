//! On SQLite and PostgreSQL: the statements of workers.

use std::time::Duration;

use async_trait::async_trait;
use potter_core::{Database, Json, Row, Sql, SqlValue, Tx, values};
use serde_json::json;

use super::{
    Checkpoints, Claimed, Membership, Move, WorkerId, checked_name, checked_segments,
    same_segments, same_version,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::projection::options::{Partition, WorkerOptions};
use crate::projection::status::ProjectionState;
use crate::store::rows::{signed, unsigned};

#[derive(Debug)]
pub(super) struct SqlCheckpoints {
    pub(super) database: Database,
}

macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}
pub(super) use now;

const REGISTER: Sql = Sql::same(
    "INSERT INTO potter_projections (name, segments, version) VALUES ($1, $2, $3)
     ON CONFLICT (name) DO NOTHING",
);

const REGISTER_SEGMENTS: Sql = Sql::new(
    "WITH RECURSIVE counted (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n + 1 < $2)
     INSERT INTO potter_projection_segments (projection, segment) SELECT $1, n FROM counted
     WHERE true ON CONFLICT DO NOTHING",
    "INSERT INTO potter_projection_segments (projection, segment)
     SELECT $1, n FROM generate_series(0, $2 - 1) AS n ON CONFLICT DO NOTHING",
);

const BEAT: Sql = Sql::new(
    concat!(
        "INSERT INTO potter_projection_workers (projection, worker, elastic, expires_at)
         VALUES ($1, $2, $3, ",
        now!(),
        " + $4)
         ON CONFLICT (projection, worker) DO UPDATE SET expires_at = excluded.expires_at"
    ),
    "INSERT INTO potter_projection_workers (projection, worker, elastic, expires_at)
     VALUES ($1, $2, $3, clock_timestamp() + $4 * interval '1 microsecond')
     ON CONFLICT (projection, worker) DO UPDATE SET expires_at = excluded.expires_at",
);

/// Workers that are long gone; a minute is for those who look at the table.
const SWEEP: Sql = Sql::new(
    concat!(
        "DELETE FROM potter_projection_workers WHERE projection = $1 AND expires_at < ",
        now!(),
        " - 60000000"
    ),
    "DELETE FROM potter_projection_workers
     WHERE projection = $1 AND expires_at < clock_timestamp() - interval '1 minute'",
);

const LOOK: Sql = Sql::new(
    concat!(
        "SELECT p.state, p.switch_until < ",
        now!(),
        " AS late, p.version, w.worker
         FROM potter_projections p
         LEFT JOIN potter_projection_workers w
           ON w.projection = p.name AND w.elastic AND w.expires_at > ",
        now!(),
        " WHERE p.name = $1 ORDER BY w.worker"
    ),
    "SELECT p.state, p.switch_until < clock_timestamp() AS late, p.version, w.worker
     FROM potter_projections p
     LEFT JOIN potter_projection_workers w
       ON w.projection = p.name AND w.elastic AND w.expires_at > clock_timestamp()
     WHERE p.name = $1 ORDER BY w.worker",
);

// A segment that is in somebody's transaction is passed over: it will be free, or moved, soon.
const CLAIM: Sql = Sql::new(
    concat!(
        "UPDATE potter_projection_segments SET owner = $2, token = token + 1
         WHERE projection = $1 AND segment IN (
             SELECT s.segment FROM potter_projection_segments s
             WHERE s.projection = $1 AND s.segment % $3 = $4
               AND (s.owner IS NULL OR s.owner <> $2 AND s.owner NOT IN (
                   SELECT worker FROM potter_projection_workers
                   WHERE projection = $1 AND expires_at > ",
        now!(),
        "))
             ORDER BY s.segment LIMIT $5)
         RETURNING segment, position, token, failure"
    ),
    "UPDATE potter_projection_segments AS mine SET owner = $2, token = mine.token + 1
     FROM (
         SELECT s.segment FROM potter_projection_segments s
         WHERE s.projection = $1 AND s.segment % $3 = $4
           AND (s.owner IS NULL OR s.owner <> $2 AND s.owner NOT IN (
               SELECT worker FROM potter_projection_workers
               WHERE projection = $1 AND expires_at > clock_timestamp()))
         ORDER BY s.segment LIMIT $5 FOR UPDATE SKIP LOCKED
     ) AS free
     WHERE mine.projection = $1 AND mine.segment = free.segment
     RETURNING mine.segment, mine.position, mine.token, mine.failure",
);

const OWNED: Sql = Sql::same(
    "SELECT segment, position, token, failure FROM potter_projection_segments
     WHERE projection = $1 AND owner = $2 ORDER BY segment",
);

const RELEASE: Sql = Sql::new(
    "UPDATE potter_projection_segments SET owner = NULL
     WHERE projection = $1 AND owner = $2 AND segment IN (SELECT value FROM json_each($3))",
    "UPDATE potter_projection_segments SET owner = NULL
     WHERE projection = $1 AND owner = $2
       AND segment = ANY (ARRAY(SELECT json_array_elements_text($3::json)::bigint))",
);

const RELEASE_ALL: Sql = Sql::same(
    "UPDATE potter_projection_segments SET owner = NULL WHERE projection = $1 AND owner = $2",
);

const LEAVE: Sql =
    Sql::same("DELETE FROM potter_projection_workers WHERE projection = $1 AND worker = $2");

const ADVANCE: Sql = Sql::new(
    concat!(
        "UPDATE potter_projection_segments AS s
         SET position = m.value ->> 3, handled = s.handled + (m.value ->> 4), moved_at = ", now!(),
        " FROM json_each($3) AS m
         WHERE s.projection = $1 AND s.segment = m.value ->> 0 AND s.owner = $2
           AND s.token = m.value ->> 1 AND s.position = m.value ->> 2 AND s.failure IS NULL
           AND EXISTS (SELECT 1 FROM potter_projections p WHERE p.name = $1 AND p.version = $4 AND
                       (p.state = 'running' OR p.state = 'switching' AND p.switch_until < ", now!(), "))"
    ),
    "UPDATE potter_projection_segments AS s
     SET position = m.to_position, handled = s.handled + m.handled, moved_at = clock_timestamp()
     FROM (SELECT (one ->> 0)::bigint AS segment, (one ->> 1)::bigint AS token,
                  (one ->> 2)::bigint AS from_position, (one ->> 3)::bigint AS to_position,
                  (one ->> 4)::bigint AS handled
           FROM json_array_elements($3::json) AS one) AS m
     WHERE s.projection = $1 AND s.segment = m.segment AND s.owner = $2 AND s.token = m.token
       AND s.position = m.from_position AND s.failure IS NULL
       AND EXISTS (SELECT 1 FROM potter_projections p WHERE p.name = $1 AND p.version = $4 AND
                   (p.state = 'running' OR p.state = 'switching' AND p.switch_until < clock_timestamp()))",
);

const STOP: Sql = Sql::same(
    "UPDATE potter_projection_segments SET failure = $5
     WHERE projection = $1 AND owner = $2 AND segment = $3 AND token = $4",
);

const PARK: Sql = Sql::new(
    "INSERT INTO potter_parked_events
         (projection, global_position, segment, stream_id, event_id, event_type, error, attempts)
     SELECT $1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, $3, $4
     FROM json_each($2) WHERE true
     ON CONFLICT (projection, global_position) DO NOTHING",
    "INSERT INTO potter_parked_events
         (projection, global_position, segment, stream_id, event_id, event_type, error, attempts)
     SELECT $1, (one ->> 0)::bigint, (one ->> 1)::bigint, one ->> 2, (one ->> 3)::uuid, one ->> 4, $3, $4
     FROM json_array_elements($2::json) AS one
     ON CONFLICT (projection, global_position) DO NOTHING",
);

const PARKED_STREAMS: Sql = Sql::new(
    "SELECT DISTINCT stream_id FROM potter_parked_events
     WHERE projection = $1 AND stream_id IN (SELECT value FROM json_each($2))",
    "SELECT DISTINCT stream_id FROM potter_parked_events
     WHERE projection = $1 AND stream_id = ANY (ARRAY(SELECT json_array_elements_text($2::json)))",
);

const LOWEST: Sql = Sql::same(
    "SELECT min(position) AS position, min(failure) AS failure FROM potter_projection_segments
     WHERE projection = $1",
);

impl SqlCheckpoints {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Checkpoints for SqlCheckpoints {
    async fn register(&self, projection: &str, version: u32, segments: Option<u16>) -> Result<u16> {
        let name = checked_name(projection)?;
        let wanted = checked_segments(segments.unwrap_or(WorkerOptions::SEGMENTS))?;
        let found = "SELECT segments, version FROM potter_projections WHERE name = $1";
        let mut tx = self.database.begin().await?;
        tx.execute(REGISTER, values![name, i64::from(wanted), version]).await?;
        let row = tx.fetch_optional(found, values![name]).await?;
        let row = row.ok_or_else(|| super::no_such_projection(name))?;
        same_version(name, version, u32::try_from(row.i64("version")?).unwrap_or(u32::MAX))?;
        let found = small(&row, "segments")?;
        let segments = same_segments(name, segments, found)?;
        tx.execute(REGISTER_SEGMENTS, values![name, i64::from(segments)]).await?;
        tx.commit().await?;
        Ok(segments)
    }

    async fn heartbeat(
        &self,
        worker: WorkerId<'_>,
        partition: Option<Partition>,
        lease: Duration,
    ) -> Result<Membership> {
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX / 2);
        let beat = values![worker.projection, worker.id, partition.is_none(), lease];
        // Also while all connections wait inside of handlers.
        let database = self.database.reserved();
        database.execute(BEAT, beat).await?;
        database.execute(SWEEP, values![worker.projection]).await?;
        let mut membership = Membership::default();
        for row in database.read(LOOK, values![worker.projection]).await? {
            let late = row.opt_bool("late")?.unwrap_or(false);
            membership.state = match ProjectionState::of(&row.text("state")?) {
                ProjectionState::Switching if late => ProjectionState::Running,
                state => state,
            };
            membership.version = Some(u32::try_from(row.i64("version")?).unwrap_or(u32::MAX));
            membership.elastic.extend(row.opt_uuid("worker")?);
        }
        Ok(membership)
    }

    async fn claim(
        &self,
        worker: WorkerId<'_>,
        partition: Option<Partition>,
        at_most: u16,
    ) -> Result<Vec<Claimed>> {
        let partition = partition.unwrap_or(Partition { key: 0, total: 1 });
        let (key, total) = (i64::from(partition.key), i64::from(partition.total));
        let values = values![worker.projection, worker.id, total, key, i64::from(at_most)];
        self.database.write(CLAIM, values).await?.iter().map(claimed).collect()
    }

    async fn owned(&self, worker: WorkerId<'_>) -> Result<Vec<Claimed>> {
        let rows = self.database.read(OWNED, values![worker.projection, worker.id]).await?;
        rows.iter().map(claimed).collect()
    }

    async fn release(&self, worker: WorkerId<'_>, segments: &[u16]) -> Result<()> {
        let values = values![worker.projection, worker.id, Json::of(segments)?];
        self.database.execute(RELEASE, values).await?;
        Ok(())
    }

    async fn leave(&self, worker: WorkerId<'_>) -> Result<()> {
        let mut tx = self.database.begin().await?;
        tx.execute(RELEASE_ALL, values![worker.projection, worker.id]).await?;
        tx.execute(LEAVE, values![worker.projection, worker.id]).await?;
        Ok(tx.commit().await?)
    }

    async fn advance_in(&self, tx: &mut Tx, worker: WorkerId<'_>, moves: &[Move]) -> Result<bool> {
        let moved = tx.execute(ADVANCE, &advance_values(worker, moves)?).await?;
        Ok(moved == moves.len() as u64)
    }

    async fn advance(&self, worker: WorkerId<'_>, moves: &[Move]) -> Result<bool> {
        let mut tx = self.database.begin().await?;
        let moved = self.advance_in(&mut tx, worker, moves).await?;
        if moved {
            tx.commit().await?;
        }
        Ok(moved)
    }

    async fn stop(&self, worker: WorkerId<'_>, at: &Claimed, failure: &str) -> Result<bool> {
        let segment = i64::from(at.segment);
        let values = values![worker.projection, worker.id, segment, at.token, failure];
        Ok(self.database.execute(STOP, values).await? == 1)
    }

    async fn park_in(
        &self,
        tx: &mut Tx,
        projection: &str,
        events: &[(&RecordedEvent, u16)],
        error: &str,
        attempts: u32,
    ) -> Result<()> {
        let rows = events.iter().map(|(event, segment)| {
            let stream = event.stream_id.as_str();
            let id = event.event_id.to_string();
            json!([event.global_position, segment, stream, id, event.event_type])
        });
        let rows = Json::of(&rows.collect::<Vec<_>>())?;
        tx.execute(PARK, values![projection, rows, error, attempts]).await?;
        Ok(())
    }

    async fn parked_streams_in(
        &self,
        tx: &mut Tx,
        projection: &str,
        streams: &[&str],
    ) -> Result<Vec<String>> {
        let rows = tx.fetch_all(PARKED_STREAMS, values![projection, Json::of(streams)?]).await?;
        rows.iter().map(|row| Ok(row.text("stream_id")?)).collect()
    }

    async fn lowest(&self, projection: &str) -> Result<(u64, Option<String>)> {
        let rows = self.database.read(LOWEST, values![projection]).await?;
        let row = rows.first().ok_or_else(|| super::no_such_projection(projection))?;
        let position = row.opt_i64("position")?;
        let position = position.ok_or_else(|| super::no_such_projection(projection))?;
        Ok((position.unsigned_abs(), row.opt_text("failure")?))
    }
}

fn advance_values(worker: WorkerId<'_>, moves: &[Move]) -> Result<Vec<SqlValue>> {
    let moves: Vec<_> = moves
        .iter()
        .map(|one| (one.segment, one.token, signed(one.from), signed(one.to), signed(one.handled)))
        .collect();
    Ok(values![worker.projection, worker.id, Json::of(&moves)?, worker.version].to_vec())
}

fn claimed(row: &Row) -> Result<Claimed> {
    Ok(Claimed {
        segment: small(row, "segment")?,
        position: unsigned(row, "position")?,
        token: row.i64("token")?,
        failure: row.opt_text("failure")?,
    })
}

pub(super) fn small(row: &Row, column: &str) -> Result<u16> {
    u16::try_from(row.i64(column)?).map_err(|source| {
        Error::with_source(ErrorKind::Corrupt, "a stored segment is out of range", source)
    })
}
