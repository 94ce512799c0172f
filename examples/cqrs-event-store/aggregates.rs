//! Accounts and orders behind one face, for the routes that take any of them.

use std::fmt;

use async_trait::async_trait;
use potter_core::Json;
use potter_eventsourcing::{
    Aggregate, At, Difference, Repository, Result, Snapshottable, TimelineEntry, WhatIf,
};
use serde_json::Value;

/// An aggregate at a version.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Its fields.
    pub data: Value,
    /// The version of the last event in it; 0 when there is none.
    pub version: u64,
}

/// What the routes ask of a repository, whatever its aggregate.
#[async_trait]
pub trait Aggregates: fmt::Debug + Send + Sync {
    /// As it was.
    async fn load_at(&self, id: &str, at: At) -> Result<State>;
    /// Its events from a version on, with what each did.
    async fn timeline(&self, id: &str, from: u64, limit: u64) -> Result<Vec<TimelineEntry>>;
    /// As it would be without the events of these versions.
    async fn without(&self, id: &str, versions: &[u64]) -> Result<Value>;
    /// Keeps its state; answers at which version.
    async fn take_snapshot(&self, id: &str) -> Result<Option<u64>>;
    /// What differs between the state from the newest snapshot and that from all events.
    async fn verify_snapshot(&self, id: &str) -> Result<Vec<Difference>>;
}

fn value<A: Snapshottable>(state: &A) -> Result<Value> {
    Ok(Json::of(state)?.get()?)
}

#[async_trait]
impl<A> Aggregates for Repository<A>
where
    A: Snapshottable + Aggregate,
    A::Event: Clone,
{
    async fn load_at(&self, id: &str, at: At) -> Result<State> {
        let loaded = self.load_at(id, at).await?;
        Ok(State { data: value(&loaded.state)?, version: loaded.version })
    }

    async fn timeline(&self, id: &str, from: u64, limit: u64) -> Result<Vec<TimelineEntry>> {
        self.timeline(id, from, limit).await
    }

    async fn without(&self, id: &str, versions: &[u64]) -> Result<Value> {
        let changed = versions.iter().fold(WhatIf::new(), |what, version| what.without(*version));
        value(&self.what_if(id, &changed).await?)
    }

    async fn take_snapshot(&self, id: &str) -> Result<Option<u64>> {
        self.take_snapshot(id).await
    }

    async fn verify_snapshot(&self, id: &str) -> Result<Vec<Difference>> {
        self.verify_snapshot(id).await
    }
}
