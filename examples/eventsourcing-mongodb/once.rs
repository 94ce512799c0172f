//! A request with an `Idempotency-Key` does its work once. There is no transaction here that a table
//! of keys could share with the events, and none is needed: the event's id is made from the key.
//!
//! # Invariant
//! For one key at most one event is ever stored, whatever the request and the stream: ids are unique
//! in the store. A request looks for the event of its key first; if it is there, the answer is made
//! from the state at its version, as it was the first time. If two come at once, one append finds the
//! other's event and starts over. The event's metadata has the hash of the request that it is from,
//! so another request with the same key is told apart. A refusal writes nothing.

use std::time::Duration;

use examples_common::{IdempotencyKey, Problem};
use potter_core::{Backoff, IdempotencyStore, Metadata, derived_id, jitter, new_id};
use potter_eventsourcing::{
    Aggregate, At, ErrorKind, ExpectedVersion, NewEvent, RecordedEvent, Repository,
};
use serde::Serialize;

use crate::api::{problem, refused};
use crate::inventory::{Command, Inventory};

/// The field of the metadata with the hash of the request.
const REQUEST_HASH: &str = "request_hash";

/// The state after a command.
pub(crate) struct Done {
    pub(crate) state: Inventory,
    pub(crate) version: u64,
}

/// Carries a command out, once for each key.
pub(crate) async fn execute(
    inventories: &Repository<Inventory>,
    id: &str,
    command: &Command,
    key: &IdempotencyKey,
    request: &(impl Serialize + Sync),
    metadata: Metadata,
) -> Result<Done, Problem> {
    let hash = IdempotencyStore::request_hash(request)?;
    let event_id = match &key.0 {
        Some(key) => derived_id(&["eventsourcing-mongodb", "idempotency-key", key]),
        None => new_id(),
    };
    let metadata = metadata.with(REQUEST_HASH, &hash);
    let retry = Backoff::exponential(Duration::from_millis(5)).max_attempts(20);
    let mut failed = 0;
    loop {
        if key.0.is_some()
            && let Some(event) =
                inventories.store().event(event_id).await.map_err(|e| problem(&e))?
        {
            return before(inventories, &event, &hash).await;
        }
        let loaded = inventories.load(id).await.map_err(|error| problem(&error))?;
        let mut state = loaded.state;
        let decided = state.decide(command).map_err(|reason| refused(id, &reason))?;
        let [event] = &decided[..] else {
            return Err(Problem::internal(&"a command leads to one event"));
        };
        let new = NewEvent::of(event).map_err(|error| problem(&error))?;
        let new = new.with_id(event_id).with_metadata(metadata.clone());
        let stream = inventories.stream_id(id).map_err(|error| problem(&error))?;
        let expected = ExpectedVersion::Exact(loaded.version);
        let error = match inventories.store().append(&stream, expected, vec![new]).await {
            Ok(appended) if !appended.duplicate => {
                state.evolve(event);
                return Ok(Done { state, version: appended.last_version });
            }
            // Sent again after its answer was lost, or by another process: it is looked up.
            Ok(appended) => {
                return at(inventories, id, appended.last_version).await;
            }
            Err(error) => error,
        };
        let again = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::DuplicateEventId);
        failed += 1;
        match retry.delay(failed, Duration::ZERO, jitter()) {
            Some(wait) if again => tokio::time::sleep(wait).await,
            _ => return Err(problem(&error)),
        }
    }
}

/// The first answer to the key.
async fn before(
    inventories: &Repository<Inventory>,
    event: &RecordedEvent,
    hash: &str,
) -> Result<Done, Problem> {
    if event.metadata.user.get(REQUEST_HASH).map(String::as_str) != Some(hash) {
        let detail = "This Idempotency-Key was used for another request: take a new one.";
        return Err(Problem::unprocessable("idempotency_key_reused", detail));
    }
    at(inventories, event.stream_id.id(), event.version).await
}

async fn at(inventories: &Repository<Inventory>, id: &str, version: u64) -> Result<Done, Problem> {
    let then = inventories.load_at(id, At::Version(version)).await.map_err(|e| problem(&e))?;
    Ok(Done { state: then.state, version })
}
