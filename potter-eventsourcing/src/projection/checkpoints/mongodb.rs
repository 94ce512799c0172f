//! In MongoDB, for subscribers: there is no transaction that a read model could share.
//!
//! # Invariants
//! 1. **A segment's checkpoint is a chain.** Each change of it (a move, another owner, a failure) is a
//!    new document, made from the one before, whose `_id` ends with the next number. `_id` is unique,
//!    so of two changes that were made from the same state one is inserted; the other is refused and
//!    looks again. The state is the document with the highest number. An insert is a compare-and-set
//!    that every server keeps; an update with a condition is not (FerretDB 1 reads, then writes).
//! 2. **Older documents are deleted after a change**, so a worker that slept might insert a number that
//!    was used before. It changes nothing, as it is not the highest; and whoever inserts looks again
//!    before it believes that its change took hold. Numbers belong to one registration of the
//!    projection (`incarnation`): one that was forgotten and made anew has nothing to do with them.
//! 3. **Owner and token** are compared before a change is made from that state; so a worker that lost
//!    its segment can't move it. Leases are on the server's clock, asked for before each use: a lease
//!    is never longer than it says, and who is taken for dead is dead by that clock.
//!
//! A move of several segments is one insert of several documents, and can take hold in part. Then it
//! is answered with `false`: the worker looks at the storage again, and events of the others come
//! again. Pausing does not wait for a batch that is under way.

mod admin;
mod chain;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use mongodb::Collection;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use potter_core::{Tx, new_id};
use uuid::Uuid;

use super::{
    Checkpoints, Claimed, Membership, Move, Partition, WorkerId, checked_name, checked_segments,
    no_such_projection, same_segments, same_version,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::projection::options::WorkerOptions;
use crate::projection::status::{ProjectionState, SegmentStatus};
use crate::store::mongodb::clock::server_now;
use crate::store::mongodb::connect::Mongo;
use crate::store::mongodb::document::{binary, signed, text, unsigned, uuid};
use crate::store::mongodb::no_transactions;
use chain::Link;

/// A worker whose lease ended this long ago is forgotten.
const LONG_GONE_MS: i64 = 3_600_000;

#[derive(Clone, Debug)]
pub(crate) struct MongoCheckpoints {
    mongo: Mongo,
    projections: Collection<RawDocumentBuf>,
    workers: Collection<RawDocumentBuf>,
    segments: Collection<RawDocumentBuf>,
}

/// What is kept of a projection.
#[derive(Clone, Copy, Debug)]
struct Known {
    incarnation: Uuid,
    version: u32,
    segments: u16,
    state: ProjectionState,
}

impl MongoCheckpoints {
    pub(crate) fn new(mongo: &Mongo) -> Self {
        Self {
            projections: mongo.collection("potter_projections", false),
            workers: mongo.collection("potter_projection_workers", false),
            segments: mongo.collection("potter_projection_segments", false),
            mongo: mongo.clone(),
        }
    }

    async fn documents(
        &self,
        of: &Collection<RawDocumentBuf>,
        filter: Document,
    ) -> Result<Vec<RawDocumentBuf>> {
        let mut cursor = self.mongo.read(of.find(filter)).await?;
        let mut documents = Vec::new();
        while self.mongo.read(cursor.advance()).await? {
            documents.push(cursor.current().to_owned());
        }
        Ok(documents)
    }

    async fn known(&self, projection: &str) -> Result<Option<Known>> {
        let found = self.documents(&self.projections, doc! { "_id": projection }).await?;
        let Some(document) = found.first() else { return Ok(None) };
        Ok(Some(Known {
            incarnation: uuid(document, "incarnation")?,
            version: u32::try_from(unsigned(document, "version")?).unwrap_or(0),
            segments: u16::try_from(unsigned(document, "segments")?).unwrap_or(0),
            state: ProjectionState::of(text(document, "state")?),
        }))
    }

    async fn existing(&self, projection: &str) -> Result<Known> {
        self.known(projection).await?.ok_or_else(|| no_such_projection(projection))
    }

    /// The workers whose lease runs: who, and whether they are elastic.
    async fn live(&self, projection: &str) -> Result<BTreeMap<Uuid, bool>> {
        let now = server_now(&self.mongo).await?;
        let mut live = BTreeMap::new();
        for worker in self.documents(&self.workers, doc! { "projection": projection }).await? {
            if signed(unsigned(&worker, "expires_at")?) > now {
                live.insert(uuid(&worker, "worker")?, worker.get_bool("elastic").unwrap_or(false));
            }
        }
        Ok(live)
    }

    async fn change_own(
        &self,
        worker: WorkerId<'_>,
        segments: Option<&[u16]>,
        change: impl Fn(&mut SegmentStatus),
    ) -> Result<()> {
        let Some(known) = self.known(worker.projection).await? else { return Ok(()) };
        let links = self.links(&known).await?.into_iter();
        let own = links.filter(|link| {
            link.status.owner == Some(worker.id)
                && segments.is_none_or(|segments| segments.contains(&link.status.segment))
        });
        let changes: Vec<_> = own.map(|link| link.next(&change)).collect();
        self.append(&known, &changes).await.map(|_| ())
    }

    async fn now(&self) -> Result<DateTime<Utc>> {
        let now = server_now(&self.mongo).await?;
        Ok(DateTime::from_timestamp_millis(now).unwrap_or_default())
    }
}

fn worker_id(worker: WorkerId<'_>) -> String {
    format!("{}/{}", worker.id, worker.projection)
}

#[async_trait]
impl Checkpoints for MongoCheckpoints {
    async fn register(&self, projection: &str, version: u32, segments: Option<u16>) -> Result<u16> {
        let name = checked_name(projection)?;
        let wanted = checked_segments(segments.unwrap_or(WorkerOptions::SEGMENTS))?;
        if self.known(name).await?.is_none() {
            let first = doc! {
                "_id": name,
                "incarnation": binary(new_id()),
                "version": i64::from(version),
                "segments": i32::from(wanted),
                "state": ProjectionState::Running.as_str(),
            };
            let first = RawDocumentBuf::try_from(&first).map_err(|source| {
                Error::with_source(ErrorKind::Internal, "a projection is no document", source)
            })?;
            match self.mongo.write(self.projections.insert_one(first)).await {
                // Somebody else may have been first.
                Err(error) if error.kind() != ErrorKind::Conflict => return Err(error),
                _ => {}
            }
        }
        let known = self.existing(name).await?;
        same_version(name, version, known.version)?;
        same_segments(name, segments, known.segments)
    }

    async fn heartbeat(
        &self,
        worker: WorkerId<'_>,
        partition: Option<Partition>,
        lease: Duration,
    ) -> Result<Membership> {
        let known = self.existing(worker.projection).await?;
        let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let expires_at = server_now(&self.mongo).await?.saturating_add(lease);
        let beat = doc! { "$set": {
            "projection": worker.projection,
            "worker": binary(worker.id),
            "elastic": partition.is_none(),
            "expires_at": expires_at,
        } };
        let id = doc! { "_id": worker_id(worker) };
        self.mongo.write(self.workers.update_one(id, beat).upsert(true)).await?;
        let live = self.live(worker.projection).await?;
        let elastic = live.into_iter().filter(|(_, elastic)| *elastic).map(|(id, _)| id);
        Ok(Membership {
            elastic: elastic.collect(),
            state: known.state,
            version: Some(known.version),
        })
    }

    async fn claim(
        &self,
        worker: WorkerId<'_>,
        partition: Option<Partition>,
        at_most: u16,
    ) -> Result<Vec<Claimed>> {
        let Partition { key, total } = partition.unwrap_or(Partition { key: 0, total: 1 });
        let known = self.existing(worker.projection).await?;
        // First who owns, then who lives: an owner that joined in between is seen as alive.
        let links = self.links(&known).await?;
        let live = self.live(worker.projection).await?;
        let free = links.into_iter().filter(|link| {
            let owner = link.status.owner;
            link.status.segment % total == key
                && owner.is_none_or(|owner| owner != worker.id && !live.contains_key(&owner))
        });
        let mut changes: Vec<_> = free
            .take(usize::from(at_most))
            .map(|link| {
                link.next(|status| {
                    status.owner = Some(worker.id);
                    status.token += 1;
                })
            })
            .collect();
        let held = self.append(&known, &changes).await?;
        changes.retain(|change| held.contains(&change.status.segment));
        let gone = server_now(&self.mongo).await? - LONG_GONE_MS;
        let gone = doc! { "projection": worker.projection, "expires_at": { "$lt": gone } };
        self.mongo.write(self.workers.delete_many(gone)).await?;
        Ok(changes.iter().map(Link::claimed).collect())
    }

    async fn owned(&self, worker: WorkerId<'_>) -> Result<Vec<Claimed>> {
        let known = self.existing(worker.projection).await?;
        let links = self.links(&known).await?;
        let own = links.iter().filter(|link| link.status.owner == Some(worker.id));
        Ok(own.map(Link::claimed).collect())
    }

    async fn release(&self, worker: WorkerId<'_>, segments: &[u16]) -> Result<()> {
        self.change_own(worker, Some(segments), |status| status.owner = None).await
    }

    async fn leave(&self, worker: WorkerId<'_>) -> Result<()> {
        self.change_own(worker, None, |status| status.owner = None).await?;
        let id = doc! { "_id": worker_id(worker) };
        self.mongo.write(self.workers.delete_one(id)).await.map(|_| ())
    }

    async fn advance_in(&self, _: &mut Tx, _: WorkerId<'_>, _: &[Move]) -> Result<bool> {
        Err(no_transactions())
    }

    async fn advance(&self, worker: WorkerId<'_>, moves: &[Move]) -> Result<bool> {
        let known = self.existing(worker.projection).await?;
        if known.state != ProjectionState::Running || known.version != worker.version {
            return Ok(false);
        }
        let (links, now) = (self.links(&known).await?, self.now().await?);
        let mut changes = Vec::with_capacity(moves.len());
        for one in moves {
            let Some(link) = links.get(usize::from(one.segment)) else { return Ok(false) };
            let status = &link.status;
            let mine = status.owner == Some(worker.id) && status.token == one.token;
            if !mine || status.position != one.from || status.failure.is_some() {
                return Ok(false);
            }
            changes.push(link.clone().next(|status| {
                status.position = one.to;
                status.handled += one.handled;
                status.moved_at = now;
            }));
        }
        let held = self.append(&known, &changes).await?;
        Ok(held.len() == changes.len())
    }

    async fn stop(&self, worker: WorkerId<'_>, at: &Claimed, failure: &str) -> Result<bool> {
        let known = self.existing(worker.projection).await?;
        let links = self.links(&known).await?;
        let Some(link) = links.get(usize::from(at.segment)) else { return Ok(false) };
        if link.status.owner != Some(worker.id) || link.status.token != at.token {
            return Ok(false);
        }
        let stopped = link.clone().next(|status| status.failure = Some(failure.to_owned()));
        Ok(!self.append(&known, &[stopped]).await?.is_empty())
    }

    async fn park_in(
        &self,
        _: &mut Tx,
        _: &str,
        _: &[(&RecordedEvent, u16)],
        _: &str,
        _: u32,
    ) -> Result<()> {
        Err(no_transactions())
    }

    async fn parked_streams_in(&self, _: &mut Tx, _: &str, _: &[&str]) -> Result<Vec<String>> {
        Err(no_transactions())
    }

    async fn lowest(&self, projection: &str) -> Result<(u64, Option<String>)> {
        let known = self.existing(projection).await?;
        let links = self.links(&known).await?;
        let lowest = links.iter().map(|link| link.status.position).min().unwrap_or(0);
        Ok((lowest, links.into_iter().find_map(|link| link.status.failure)))
    }
}
