//! What is done from time to time: retire silent replicas, trim the log, reclaim garbage, forget old
//! ids.
//!
//! Invariants: the horizon never passes what a live replica has acknowledged, and it is committed
//! before the log behind it is deleted: who reads in between is told `cursor_expired`, and never gets
//! a log with a hole. An entity is reclaimed only if its last change is acknowledged by all live
//! replicas. Ids are kept twice as long as a replica may be silent, so a device that may still upload
//! finds its own.

use std::time::Duration;

use chrono::TimeDelta;
use potter_core::{Error, ErrorKind, Result};
use tokio_util::sync::CancellationToken;

use crate::document::Document;
use crate::protocol::Position;
use crate::service::SyncService;
use crate::store::{Commit, Entity, User};

const USERS_PAGE: u64 = 200;
const ENTITIES_PAGE: u64 = 200;

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upkept {
    /// Replicas that were retired.
    pub retired: u64,
    /// Changes that were trimmed from logs.
    pub trimmed: u64,
    /// Things that were dropped from entities.
    pub reclaimed: u64,
    /// Ids that were forgotten.
    pub forgotten: u64,
}

/// One round over all users.
///
/// # Errors
/// Those of the store; the next round goes on.
pub async fn upkeep(service: &SyncService) -> Result<Upkept> {
    let store = service.store();
    let silence = TimeDelta::from_std(service.options().retire_after).unwrap_or(TimeDelta::MAX);
    let long_ago = |by: TimeDelta| service.now().checked_sub_signed(by).unwrap_or_default();
    let mut done = Upkept { retired: store.retire(long_ago(silence)).await?, ..Upkept::default() };
    done.forgotten = store.forget(long_ago(silence + silence)).await?;
    let mut after: Option<String> = None;
    loop {
        let users = store.users(after.as_deref(), USERS_PAGE).await?;
        let Some(last) = users.last() else { return Ok(done) };
        after = Some(last.user_id.clone());
        for user in &users {
            let stable = store.least_acked(&user.user_id).await?.unwrap_or(user.head.seq);
            done.trimmed += trim(service, user, stable).await?;
            done.reclaimed += reclaim(service, user, stable).await?;
        }
    }
}

/// Rounds until it is stopped.
pub async fn run(service: SyncService, every: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.cancelled() => return,
        }
        match upkeep(&service).await {
            Ok(done) if done == Upkept::default() => {}
            Ok(Upkept { retired, trimmed, reclaimed, forgotten }) => {
                tracing::info!(retired, trimmed, reclaimed, forgotten, "upkeep");
            }
            Err(error) => tracing::warn!(%error, "upkeep failed; it is tried again"),
        }
    }
}

async fn trim(service: &SyncService, user: &User, stable: u64) -> Result<u64> {
    let store = service.store();
    let from = user.horizon.seq;
    if stable <= from {
        return Ok(0);
    }
    let mark = match stable {
        _ if stable == user.head.seq => Some(user.head.mark),
        _ => store.mark(&user.user_id, stable).await?,
    };
    let Some(mark) = mark else {
        return Err(Error::new(ErrorKind::Corrupt, format!("change {stable} is not in the log")));
    };
    let mut commit = Commit::of(user);
    commit.after.horizon = Position { seq: stable, mark };
    if !store.commit(&commit).await? {
        return Ok(0); // somebody writes for this user: next time
    }
    store.trim(&user.user_id, stable).await?;
    Ok(stable - from)
}

/// One commit an entity: an entity that changes meanwhile is left for the next round.
async fn reclaim(service: &SyncService, user: &User, stable: u64) -> Result<u64> {
    let store = service.store();
    let (mut reclaimed, mut after) = (0, None);
    loop {
        let page = store.entities(&user.user_id, after.as_ref(), ENTITIES_PAGE).await?;
        let Some(last) = page.last() else { return Ok(reclaimed) };
        after = Some(last.key.clone());
        for entity in page.into_iter().filter(|entity| entity.seq <= stable) {
            let unreadable = |error: potter_crdt::Error| {
                Error::new(ErrorKind::Corrupt, format!("entity {}: {error}", entity.key.entity_id))
            };
            let mut document =
                Document::from_bytes(entity.kind, &entity.state).map_err(unreadable)?;
            let dropped = document.reclaim() as u64;
            if dropped == 0 {
                continue;
            }
            let Some(now) = store.user(&user.user_id).await? else { return Ok(reclaimed) };
            // What was read must still be so under the version that the commit is made from.
            let keys = [entity.key.clone()];
            let again = store.load(&user.user_id, "", &[], &[], &keys).await?;
            if again.entities.get(&entity.key).map(|again| again.seq) != Some(entity.seq) {
                continue;
            }
            let mut commit = Commit::of(&now);
            commit.entities = vec![Entity { state: document.to_bytes(), ..entity }];
            if store.commit(&commit).await? {
                reclaimed += dropped;
            }
        }
    }
}
