//! What people who run subscribers do.

use std::time::Duration;

use async_trait::async_trait;
use mongodb::bson::doc;
use potter_core::Tx;

use super::{Known, MongoCheckpoints};
use crate::error::Result;
use crate::projection::checkpoints::{CheckpointsAdmin, Registered};
use crate::projection::parked::ParkedEvent;
use crate::projection::status::{ProjectionState, SegmentStatus};
use crate::store::mongodb::document::{binary, text};
use crate::store::mongodb::no_transactions;

#[async_trait]
impl CheckpointsAdmin for MongoCheckpoints {
    async fn projections(&self) -> Result<Vec<String>> {
        let all = self.documents(&self.projections, doc! {}).await?;
        let mut names = Vec::with_capacity(all.len());
        for one in &all {
            names.push(text(one, "_id")?.to_owned());
        }
        names.sort();
        Ok(names)
    }

    async fn registered(&self, projection: &str) -> Result<Option<Registered>> {
        let Some(known) = self.known(projection).await? else { return Ok(None) };
        let at_work = !self.live(projection).await?.is_empty();
        let Known { state, version, segments, .. } = known;
        Ok(Some(Registered { state, version, segments, at_work }))
    }

    async fn segments(&self, projection: &str) -> Result<Vec<SegmentStatus>> {
        let Some(known) = self.known(projection).await? else { return Ok(Vec::new()) };
        Ok(self.links(&known).await?.into_iter().map(|link| link.status).collect())
    }

    async fn set_state(
        &self,
        projection: &str,
        state: ProjectionState,
        _: Option<Duration>,
    ) -> Result<bool> {
        let change = doc! { "$set": { "state": state.as_str() } };
        let update = self.projections.update_one(doc! { "_id": projection }, change);
        Ok(self.mongo.write(update).await?.matched_count > 0)
    }

    async fn lock_in(&self, _: &mut Tx, _: &str) -> Result<Vec<(u16, u64)>> {
        Err(no_transactions())
    }

    async fn restart_in(&self, _: &mut Tx, _: &str, _: u32) -> Result<()> {
        Err(no_transactions())
    }

    async fn adopt_in(&self, _: &mut Tx, _: &str, _: &str) -> Result<()> {
        Err(no_transactions())
    }

    async fn clear_failures(&self, projection: &str) -> Result<u64> {
        let Some(known) = self.known(projection).await? else { return Ok(0) };
        let links = self.links(&known).await?.into_iter();
        let stopped = links.filter(|link| link.status.failure.is_some());
        let changes: Vec<_> = stopped
            .map(|link| {
                link.next(|status| {
                    status.failure = None;
                    status.token += 1;
                })
            })
            .collect();
        Ok(self.append(&known, &changes).await?.len() as u64)
    }

    async fn forget_in(&self, _: &mut Tx, _: &str) -> Result<()> {
        Err(no_transactions())
    }

    async fn forget(&self, projection: &str) -> Result<()> {
        let Some(known) = self.known(projection).await? else { return Ok(()) };
        // The registration first: what is left of a broken attempt belongs to nothing.
        let registration = doc! { "_id": projection, "incarnation": binary(known.incarnation) };
        self.mongo.write(self.projections.delete_many(registration)).await?;
        let segments = doc! { "incarnation": binary(known.incarnation) };
        self.mongo.write(self.segments.delete_many(segments)).await?;
        let workers = doc! { "projection": projection };
        self.mongo.write(self.workers.delete_many(workers)).await.map(|_| ())
    }

    async fn parked(&self, _: &str, _: u64, _: u64) -> Result<Vec<ParkedEvent>> {
        Ok(Vec::new())
    }

    async fn parked_count(&self, _: &str) -> Result<u64> {
        Ok(0)
    }

    async fn parked_of_stream_in(&self, _: &mut Tx, _: &str, _: &str) -> Result<Vec<ParkedEvent>> {
        Err(no_transactions())
    }

    async fn unpark_in(&self, _: &mut Tx, _: &str, _: &[u64]) -> Result<u64> {
        Err(no_transactions())
    }
}
