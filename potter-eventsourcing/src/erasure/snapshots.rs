//! Snapshots whose personal data is encrypted.

use std::sync::Arc;

use async_trait::async_trait;
use potter_core::Tx;
use uuid::Uuid;

use super::{Vault, open, seal};
use crate::error::Result;
use crate::snapshot::{NewSnapshot, Snapshot, SnapshotStore};
use crate::stream_id::StreamId;

#[derive(Debug)]
pub(super) struct ErasableSnapshots {
    store: Arc<dyn SnapshotStore>,
    vault: Vault,
}

impl ErasableSnapshots {
    pub(super) fn new(store: Arc<dyn SnapshotStore>, vault: Vault) -> Self {
        Self { store, vault }
    }

    async fn opened(
        &self,
        tx: Option<&mut Tx>,
        mut snapshots: Vec<Snapshot>,
    ) -> Result<Vec<Snapshot>> {
        let keys = self.vault.keys_to_open(tx, snapshots.iter().map(|one| &one.state)).await?;
        for snapshot in &mut snapshots {
            let place = place(&snapshot.stream_id, snapshot.version, snapshot.event_id);
            snapshot.state = open(&snapshot.state, &keys, &place)?;
        }
        Ok(snapshots)
    }
}

fn place(stream: &StreamId, version: u64, event_id: Uuid) -> String {
    format!("snapshot|{stream}|{version}|{event_id}")
}

#[async_trait]
impl SnapshotStore for ErasableSnapshots {
    async fn save(&self, mut snapshot: NewSnapshot, keep: u32) -> Result<()> {
        let keys = self.vault.keys_to_seal(None, [&snapshot.state]).await?;
        let place = place(&snapshot.stream_id, snapshot.version, snapshot.event_id);
        snapshot.state = seal(&snapshot.state, &keys, &place)?;
        self.store.save(snapshot, keep).await
    }

    async fn latest(
        &self,
        stream: &StreamId,
        schema_version: u32,
        at_most: u64,
    ) -> Result<Option<Snapshot>> {
        let found = self.store.latest(stream, schema_version, at_most).await?;
        Ok(self.opened(None, found.into_iter().collect()).await?.pop())
    }

    async fn latest_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        schema_version: u32,
        at_most: u64,
    ) -> Result<Option<Snapshot>> {
        let found = self.store.latest_in(tx, stream, schema_version, at_most).await?;
        Ok(self.opened(Some(tx), found.into_iter().collect()).await?.pop())
    }

    async fn list(
        &self,
        stream: Option<&StreamId>,
        offset: u64,
        limit: u32,
    ) -> Result<Vec<Snapshot>> {
        let found = self.store.list(stream, offset, limit).await?;
        self.opened(None, found).await
    }

    async fn delete(&self, id: Uuid) -> Result<bool> {
        self.store.delete(id).await
    }

    async fn delete_before(&self, stream: &StreamId, before: u64) -> Result<u64> {
        self.store.delete_before(stream, before).await
    }
}
