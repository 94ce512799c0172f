//! On SQLite and PostgreSQL.

use async_trait::async_trait;
use potter_core::{Database, Row, Sql, SqlValue, Tx, new_id, values};
use uuid::Uuid;

use super::{NewSnapshot, Snapshot, SnapshotStore};
use crate::error::Result;
use crate::personal::refuse_clear;
use crate::store::rows::{signed, unsigned};
use crate::stream_id::StreamId;

#[derive(Debug)]
pub(super) struct SqlSnapshots {
    database: Database,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, stream_id, version, schema_version, event_id, state, taken_at
             FROM potter_snapshots ",
            $rest
        )
    };
}

const SAVE: Sql = Sql::new(
    "INSERT INTO potter_snapshots (id, stream_id, version, schema_version, event_id, state)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (stream_id, schema_version, version)
     DO UPDATE SET event_id = excluded.event_id, state = excluded.state, taken_at = excluded.taken_at",
    "INSERT INTO potter_snapshots (id, stream_id, version, schema_version, event_id, state)
     VALUES ($1, $2, $3, $4, $5, $6::json)
     ON CONFLICT (stream_id, schema_version, version)
     DO UPDATE SET event_id = excluded.event_id, state = excluded.state, taken_at = excluded.taken_at",
);

const THIN_OUT: &str = "DELETE FROM potter_snapshots WHERE stream_id = $1 AND schema_version = $2
       AND version <= (SELECT version FROM potter_snapshots
                       WHERE stream_id = $1 AND schema_version = $2
                       ORDER BY version DESC LIMIT 1 OFFSET $3)";

const LATEST: &str = select!(
    "WHERE stream_id = $1 AND schema_version = $2 AND version <= $3 ORDER BY version DESC LIMIT 1"
);
const ALL: &str =
    select!("ORDER BY stream_id, version DESC, schema_version DESC LIMIT $1 OFFSET $2");
const OF_STREAM: &str =
    select!("WHERE stream_id = $3 ORDER BY version DESC, schema_version DESC LIMIT $1 OFFSET $2");

impl SqlSnapshots {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

fn latest_values(stream: &StreamId, schema_version: u32, at_most: u64) -> Vec<SqlValue> {
    values![stream.as_str(), schema_version, signed(at_most)].to_vec()
}

#[async_trait]
impl SnapshotStore for SqlSnapshots {
    async fn save(&self, snapshot: NewSnapshot, keep: u32) -> Result<()> {
        refuse_clear(&snapshot.state)?;
        let NewSnapshot { stream_id, version, schema_version, event_id, state } = snapshot;
        let stream = stream_id.as_str();
        let mut tx = self.database.begin().await?;
        let row = values![new_id(), stream, signed(version), schema_version, event_id, &state];
        tx.execute(SAVE, row).await?;
        tx.execute(THIN_OUT, values![stream, schema_version, keep]).await?;
        Ok(tx.commit().await?)
    }

    async fn latest(
        &self,
        stream: &StreamId,
        schema_version: u32,
        at_most: u64,
    ) -> Result<Option<Snapshot>> {
        let values = latest_values(stream, schema_version, at_most);
        self.database.read(LATEST, &values).await?.first().map(snapshot).transpose()
    }

    async fn latest_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        schema_version: u32,
        at_most: u64,
    ) -> Result<Option<Snapshot>> {
        let values = latest_values(stream, schema_version, at_most);
        tx.fetch_optional(LATEST, &values).await?.as_ref().map(snapshot).transpose()
    }

    async fn list(
        &self,
        stream: Option<&StreamId>,
        offset: u64,
        limit: u32,
    ) -> Result<Vec<Snapshot>> {
        let (limit, offset) = (i64::from(limit), signed(offset));
        let rows = match stream {
            Some(stream) => {
                self.database.read(OF_STREAM, values![limit, offset, stream.as_str()]).await?
            }
            None => self.database.read(ALL, values![limit, offset]).await?,
        };
        rows.iter().map(snapshot).collect()
    }

    async fn delete(&self, id: Uuid) -> Result<bool> {
        let statement = "DELETE FROM potter_snapshots WHERE id = $1";
        Ok(self.database.execute(statement, values![id]).await? > 0)
    }

    async fn delete_before(&self, stream: &StreamId, before: u64) -> Result<u64> {
        let statement = "DELETE FROM potter_snapshots WHERE stream_id = $1 AND version < $2";
        Ok(self.database.execute(statement, values![stream.as_str(), signed(before)]).await?)
    }
}

fn snapshot(row: &Row) -> Result<Snapshot> {
    Ok(Snapshot {
        id: row.uuid("id")?,
        stream_id: StreamId::parse(row.text("stream_id")?)?,
        version: unsigned(row, "version")?,
        schema_version: u32::try_from(row.i64("schema_version")?).unwrap_or(0),
        event_id: row.uuid("event_id")?,
        state: row.json("state")?,
        taken_at: row.time("taken_at")?,
    })
}
