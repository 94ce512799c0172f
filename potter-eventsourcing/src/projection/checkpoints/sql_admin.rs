//! On SQLite and PostgreSQL: what people who run projections do.

use std::time::Duration;

use async_trait::async_trait;
use potter_core::{Json, Row, Sql, Tx, values};

use super::sql::{SqlCheckpoints, now, small};
use super::{CheckpointsAdmin, Registered};
use crate::error::Result;
use crate::projection::parked::ParkedEvent;
use crate::projection::status::{ProjectionState, SegmentStatus};
use crate::store::rows::{signed, unsigned};
use crate::stream_id::StreamId;

const REGISTERED: Sql = Sql::new(
    concat!(
        "SELECT state, version, segments,
                (SELECT count(*) FROM potter_projection_workers
                 WHERE projection = $1 AND expires_at > ",
        now!(),
        ") AS workers
         FROM potter_projections WHERE name = $1"
    ),
    "SELECT state, version, segments,
            (SELECT count(*) FROM potter_projection_workers
             WHERE projection = $1 AND expires_at > clock_timestamp()) AS workers
     FROM potter_projections WHERE name = $1",
);

const ADOPT: [&str; 6] = [
    "UPDATE potter_projections SET state = 'running', switch_until = NULL,
            version = (SELECT n.version FROM potter_projections n WHERE n.name = $2)
     WHERE name = $1",
    "UPDATE potter_projection_segments AS s
     SET position = n.position, handled = n.handled, failure = n.failure, moved_at = n.moved_at,
         token = s.token + 1
     FROM potter_projection_segments AS n
     WHERE s.projection = $1 AND n.projection = $2 AND n.segment = s.segment",
    "DELETE FROM potter_parked_events WHERE projection = $1 AND $2 IS NOT NULL",
    "UPDATE potter_parked_events SET projection = $1 WHERE projection = $2",
    "DELETE FROM potter_projection_segments WHERE projection = $2 AND $1 IS NOT NULL",
    "DELETE FROM potter_projections WHERE name = $2 AND $1 IS NOT NULL",
];

const SEGMENTS: Sql = Sql::same(
    "SELECT segment, position, handled, owner, token, failure, moved_at
     FROM potter_projection_segments WHERE projection = $1 ORDER BY segment",
);

const SET_STATE: Sql = Sql::new(
    concat!(
        "UPDATE potter_projections SET state = $2, switch_until = ",
        now!(),
        " + $3 WHERE name = $1"
    ),
    "UPDATE potter_projections SET state = $2,
            switch_until = clock_timestamp() + $3 * interval '1 microsecond' WHERE name = $1",
);

// In one order, so that two who lock everything can't wait for each other.
const LOCK: Sql = Sql::new(
    "SELECT segment, position FROM potter_projection_segments WHERE projection = $1 ORDER BY segment",
    "SELECT segment, position FROM potter_projection_segments WHERE projection = $1 ORDER BY segment
     FOR UPDATE",
);

const RESTART: [&str; 3] = [
    "UPDATE potter_projections SET version = $2 WHERE name = $1",
    "UPDATE potter_projection_segments SET position = 0, handled = 0, failure = NULL, token = token + 1
     WHERE projection = $1 AND $2 > 0",
    "DELETE FROM potter_parked_events WHERE projection = $1 AND $2 > 0",
];

macro_rules! parked {
    ($rest:literal) => {
        concat!(
            "SELECT global_position, segment, stream_id, event_id, event_type, error, attempts, parked_at
             FROM potter_parked_events ",
            $rest
        )
    };
}

const PARKED_PAGE: Sql = Sql::same(parked!(
    "WHERE projection = $1 AND global_position > $2 ORDER BY global_position LIMIT $3"
));

const PARKED_OF_STREAM: Sql = Sql::new(
    parked!("WHERE projection = $1 AND stream_id = $2 ORDER BY global_position"),
    parked!("WHERE projection = $1 AND stream_id = $2 ORDER BY global_position FOR UPDATE"),
);

const UNPARK: Sql = Sql::new(
    "DELETE FROM potter_parked_events
     WHERE projection = $1 AND global_position IN (SELECT value FROM json_each($2))",
    "DELETE FROM potter_parked_events WHERE projection = $1
       AND global_position = ANY (ARRAY(SELECT json_array_elements_text($2::json)::bigint))",
);

#[async_trait]
impl CheckpointsAdmin for SqlCheckpoints {
    async fn projections(&self) -> Result<Vec<String>> {
        let statement = "SELECT name FROM potter_projections ORDER BY name LIMIT 10000";
        let rows = self.database.read(statement, &[]).await?;
        rows.iter().map(|row| Ok(row.text("name")?)).collect()
    }

    async fn registered(&self, projection: &str) -> Result<Option<Registered>> {
        let rows = self.database.read(REGISTERED, values![projection]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Registered {
            state: ProjectionState::of(&row.text("state")?),
            version: u32::try_from(row.i64("version")?).unwrap_or(u32::MAX),
            segments: small(row, "segments")?,
            at_work: row.i64("workers")? > 0,
        }))
    }

    async fn segments(&self, projection: &str) -> Result<Vec<SegmentStatus>> {
        let rows = self.database.read(SEGMENTS, values![projection]).await?;
        rows.iter().map(segment_status).collect()
    }

    async fn set_state(
        &self,
        projection: &str,
        state: ProjectionState,
        at_most: Option<Duration>,
    ) -> Result<bool> {
        let micros = at_most.map(|time| i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 2));
        let values = values![projection, state.as_str(), micros];
        if self.database.execute(SET_STATE, values).await? == 0 {
            return Ok(false);
        }
        // Whoever looked at the state before holds a segment until the end of its transaction.
        let mut tx = self.database.begin().await?;
        self.lock_in(&mut tx, projection).await?;
        tx.rollback().await?;
        Ok(true)
    }

    async fn lock_in(&self, tx: &mut Tx, projection: &str) -> Result<Vec<(u16, u64)>> {
        let rows = tx.fetch_all(LOCK, values![projection]).await?;
        rows.iter().map(|row| Ok((small(row, "segment")?, unsigned(row, "position")?))).collect()
    }

    async fn restart_in(&self, tx: &mut Tx, projection: &str, version: u32) -> Result<()> {
        for statement in RESTART {
            tx.execute(statement, values![projection, version]).await?;
        }
        Ok(())
    }

    async fn adopt_in(&self, tx: &mut Tx, from: &str, to: &str) -> Result<()> {
        for statement in ADOPT {
            tx.execute(statement, values![to, from]).await?;
        }
        Ok(())
    }

    async fn clear_failures(&self, projection: &str) -> Result<u64> {
        let statement = "UPDATE potter_projection_segments SET failure = NULL, token = token + 1
             WHERE projection = $1 AND failure IS NOT NULL";
        Ok(self.database.execute(statement, values![projection]).await?)
    }

    async fn forget_in(&self, tx: &mut Tx, projection: &str) -> Result<()> {
        for statement in [
            "DELETE FROM potter_projection_segments WHERE projection = $1",
            "DELETE FROM potter_projection_workers WHERE projection = $1",
            "DELETE FROM potter_parked_events WHERE projection = $1",
            "DELETE FROM potter_projections WHERE name = $1",
        ] {
            tx.execute(statement, values![projection]).await?;
        }
        Ok(())
    }

    async fn parked(&self, projection: &str, after: u64, limit: u64) -> Result<Vec<ParkedEvent>> {
        let values = values![projection, signed(after), signed(limit)];
        self.database.read(PARKED_PAGE, values).await?.iter().map(parked_event).collect()
    }

    async fn parked_count(&self, projection: &str) -> Result<u64> {
        let statement = "SELECT count(*) AS parked FROM potter_parked_events WHERE projection = $1";
        let rows = self.database.read(statement, values![projection]).await?;
        rows.first().map_or(Ok(0), |row| unsigned(row, "parked"))
    }

    async fn parked_of_stream_in(
        &self,
        tx: &mut Tx,
        projection: &str,
        stream: &str,
    ) -> Result<Vec<ParkedEvent>> {
        let rows = tx.fetch_all(PARKED_OF_STREAM, values![projection, stream]).await?;
        rows.iter().map(parked_event).collect()
    }

    async fn unpark_in(&self, tx: &mut Tx, projection: &str, positions: &[u64]) -> Result<u64> {
        let positions: Vec<_> = positions.iter().map(|position| signed(*position)).collect();
        Ok(tx.execute(UNPARK, values![projection, Json::of(&positions)?]).await?)
    }
}

fn segment_status(row: &Row) -> Result<SegmentStatus> {
    Ok(SegmentStatus {
        segment: small(row, "segment")?,
        position: unsigned(row, "position")?,
        handled: unsigned(row, "handled")?,
        owner: row.opt_uuid("owner")?,
        token: row.i64("token")?,
        failure: row.opt_text("failure")?,
        moved_at: row.time("moved_at")?,
    })
}

fn parked_event(row: &Row) -> Result<ParkedEvent> {
    Ok(ParkedEvent {
        global_position: unsigned(row, "global_position")?,
        segment: small(row, "segment")?,
        stream_id: StreamId::parse(row.text("stream_id")?)?,
        event_id: row.uuid("event_id")?,
        event_type: row.text("event_type")?,
        error: row.text("error")?,
        attempts: u32::try_from(row.i64("attempts")?).unwrap_or(u32::MAX),
        parked_at: row.time("parked_at")?,
    })
}
