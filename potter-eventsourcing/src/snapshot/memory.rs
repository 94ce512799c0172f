//! In memory.

use async_trait::async_trait;
use potter_core::{Database, MemoryTable, MemoryTx, Tx, new_id};
use uuid::Uuid;

use super::{NewSnapshot, Snapshot, SnapshotStore};
use crate::error::{Error, ErrorKind, Result};
use crate::personal::refuse_clear;
use crate::stream_id::StreamId;

#[derive(Debug)]
pub(super) struct MemorySnapshots {
    database: Database,
}

struct Snapshots;

impl MemoryTable for Snapshots {
    /// Stream, schema version, version.
    type Key = (StreamId, u32, u64);
    type Row = Snapshot;
}

fn memory(tx: &mut Tx) -> Result<&mut MemoryTx> {
    let wrong = || Error::new(ErrorKind::Config, "the transaction is not in memory");
    tx.memory().ok_or_else(wrong)
}

impl MemorySnapshots {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl SnapshotStore for MemorySnapshots {
    async fn save(&self, snapshot: NewSnapshot, keep: u32) -> Result<()> {
        refuse_clear(&snapshot.state)?;
        let NewSnapshot { stream_id, version, schema_version, event_id, state } = snapshot;
        let mut tx = self.database.begin().await?;
        let memory = memory(&mut tx)?;
        let (id, taken_at) = (new_id(), memory.now());
        let key = (stream_id.clone(), schema_version, version);
        let row = Snapshot { id, stream_id, version, schema_version, event_id, state, taken_at };
        memory.put::<Snapshots>(key.clone(), row);
        let (stream, schema, _) = key;
        let range = (stream.clone(), schema, 0)..=(stream, schema, u64::MAX);
        let rows = memory.rows::<Snapshots>();
        let old = rows.range(range).rev().skip(keep as usize);
        let old: Vec<_> = old.map(|(key, _)| key.clone()).collect();
        for key in old {
            memory.remove::<Snapshots>(&key);
        }
        Ok(tx.commit().await?)
    }

    async fn latest(
        &self,
        stream: &StreamId,
        schema_version: u32,
        at_most: u64,
    ) -> Result<Option<Snapshot>> {
        let mut tx = self.database.begin().await?;
        self.latest_in(&mut tx, stream, schema_version, at_most).await
    }

    async fn latest_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        schema_version: u32,
        at_most: u64,
    ) -> Result<Option<Snapshot>> {
        let key = |version| (stream.clone(), schema_version, version);
        let rows = memory(tx)?.rows::<Snapshots>();
        Ok(rows.range(key(0)..=key(at_most)).next_back().map(|(_, row)| row.clone()))
    }

    async fn list(
        &self,
        stream: Option<&StreamId>,
        offset: u64,
        limit: u32,
    ) -> Result<Vec<Snapshot>> {
        let mut tx = self.database.begin().await?;
        let rows = memory(&mut tx)?.rows::<Snapshots>().values();
        let mut rows: Vec<_> =
            rows.filter(|row| stream.is_none_or(|stream| row.stream_id == *stream)).collect();
        rows.sort_by(|a, b| a.stream_id.cmp(&b.stream_id).then(b.version.cmp(&a.version)));
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(rows.into_iter().skip(offset).take(limit as usize).cloned().collect())
    }

    async fn delete(&self, id: Uuid) -> Result<bool> {
        self.delete_where(|row| row.id == id).await.map(|deleted| deleted > 0)
    }

    async fn delete_before(&self, stream: &StreamId, before: u64) -> Result<u64> {
        self.delete_where(|row| row.stream_id == *stream && row.version < before).await
    }
}

impl MemorySnapshots {
    async fn delete_where(&self, doomed: impl Fn(&Snapshot) -> bool + Send) -> Result<u64> {
        let mut tx = self.database.begin().await?;
        let memory = memory(&mut tx)?;
        let rows = memory.rows::<Snapshots>().iter();
        let keys: Vec<_> =
            rows.filter(|(_, row)| doomed(row)).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            memory.remove::<Snapshots>(key);
        }
        tx.commit().await?;
        Ok(keys.len() as u64)
    }
}
