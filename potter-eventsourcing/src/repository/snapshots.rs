//! A repository's use of snapshots.

use std::fmt;

use chrono::{DateTime, Utc};
use potter_core::{Json, Tx};
use serde_json::Value;
use uuid::Uuid;

use super::Repository;
use super::fold::Fold;
use crate::aggregate::Aggregate;
use crate::diff::{Difference, differences};
use crate::error::Result;
use crate::snapshot::{NewSnapshot, Snapshot, SnapshotMoment, Snapshots, Snapshottable};
use crate::store::ReadOptions;
use crate::stream_id::StreamId;

/// What a repository knows about the states of `A`. Functions, so that aggregates that are not
/// kept need not be `Serialize`.
pub(super) struct SnapshotUse<A> {
    pub(super) snapshots: Snapshots,
    schema_version: u32,
    encode: fn(&A) -> potter_core::Result<Json>,
    decode: fn(&Json) -> potter_core::Result<A>,
}

impl<A> Clone for SnapshotUse<A> {
    fn clone(&self) -> Self {
        Self { snapshots: self.snapshots.clone(), ..*self }
    }
}

impl<A> fmt::Debug for SnapshotUse<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshots.fmt(f)
    }
}

/// A state to keep.
pub(super) struct Kept<'a, A> {
    pub(super) stream: &'a StreamId,
    pub(super) state: &'a A,
    pub(super) version: u64,
    pub(super) event_id: Uuid,
    pub(super) now: DateTime<Utc>,
    /// Version and time of the snapshot before.
    pub(super) base: u64,
    pub(super) since: Option<DateTime<Utc>>,
}

impl<A: Aggregate> SnapshotUse<A> {
    /// The newest usable snapshot at or below `until`. What goes wrong costs time, nothing else.
    pub(super) async fn newest(
        &self,
        tx: Option<&mut Tx>,
        stream: &StreamId,
        until: Option<u64>,
    ) -> Option<(A, Snapshot)> {
        let (store, at_most) = (self.snapshots.store(), until.unwrap_or(u64::MAX));
        let found = match tx {
            Some(tx) => store.latest_in(tx, stream, self.schema_version, at_most).await,
            None => store.latest(stream, self.schema_version, at_most).await,
        };
        let snapshot = match found {
            Ok(snapshot) => snapshot?,
            Err(error) => {
                tracing::warn!(%stream, %error, "a snapshot can't be read: the events are");
                return None;
            }
        };
        match (self.decode)(&snapshot.state) {
            Ok(state) => Some((state, snapshot)),
            Err(error) => {
                let version = snapshot.version;
                tracing::warn!(%stream, version, %error, "a snapshot can't be decoded: the events are read");
                None
            }
        }
    }

    /// The snapshot, if one is due.
    pub(super) fn due(&self, kept: &Kept<'_, A>) -> Option<NewSnapshot> {
        let moment = SnapshotMoment {
            version: kept.version,
            last_version: kept.base,
            since: kept.since,
            now: kept.now,
        };
        if kept.version == 0 || !self.snapshots.is_due(&moment) {
            return None;
        }
        match (self.encode)(kept.state) {
            Ok(state) => Some(NewSnapshot::new(
                kept.stream.clone(),
                kept.version,
                kept.event_id,
                self.schema_version,
                state,
            )),
            Err(error) => {
                tracing::warn!(stream = %kept.stream, %error, "a state can't be written as a snapshot");
                None
            }
        }
    }

    /// Saves what was folded, if it is due.
    pub(super) fn keep(&self, fold: &Fold<'_, A>, stream: &StreamId) {
        let Some((event_id, now)) = fold.last else { return };
        let (state, version) = (&fold.loaded.state, fold.loaded.version);
        let (base, since) = (fold.base, fold.since);
        let kept = Kept { stream, state, version, event_id, now, base, since };
        if let Some(snapshot) = self.due(&kept) {
            self.snapshots.save_soon(snapshot);
        }
    }
}

impl<A: Snapshottable> Repository<A> {
    /// Loads from snapshots, and takes them when they are due.
    #[must_use]
    pub fn with_snapshots(mut self, snapshots: Snapshots) -> Self {
        self.snapshots = Some(SnapshotUse {
            snapshots,
            schema_version: A::SNAPSHOT_VERSION,
            encode: |state| Json::of(state),
            decode: Json::get,
        });
        self
    }

    /// Takes a snapshot of the aggregate as it is now, due or not; `None` when nothing happened
    /// to it yet, or the repository has no snapshots.
    ///
    /// # Errors
    /// As [`load`](Self::load), and when it can't be saved.
    pub async fn take_snapshot(&self, id: &str) -> Result<Option<u64>> {
        let Some(using) = &self.snapshots else { return Ok(None) };
        let stream = self.stream_id(id)?;
        let fold = self.fold(None, &stream, None, None).await?;
        let Some((event_id, _)) = fold.last else { return Ok(None) };
        let (version, state) = (fold.loaded.version, Json::of(&fold.loaded.state)?);
        let snapshot = NewSnapshot::new(stream, version, event_id, A::SNAPSHOT_VERSION, state);
        using.snapshots.store().save(snapshot, Snapshots::KEEP).await?;
        Ok(Some(version))
    }

    /// Compares the state from the newest snapshot and the events behind it with the state from
    /// all events: no difference, unless `decide` or `evolve` changed without a new
    /// [`SNAPSHOT_VERSION`](Snapshottable::SNAPSHOT_VERSION), or the state leaves something out of
    /// its JSON.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn verify_snapshot(&self, id: &str) -> Result<Vec<Difference>> {
        let stream = self.stream_id(id)?;
        let with = self.fold(None, &stream, None, None).await?.loaded;
        let mut all = self.new_fold(&stream, None);
        let options = ReadOptions::forwards().limit(with.version);
        self.read_into(&mut all, None, options, Some(with.version)).await?;
        let value = |state: &A| Json::of(state)?.get::<Value>();
        Ok(differences(&value(&all.loaded.state)?, &value(&with.state)?))
    }
}
