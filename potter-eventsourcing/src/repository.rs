//! Aggregates in a store: load, decide, append, and again if someone else was first.

mod fold;
mod outcome;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use potter_core::{Backoff, Metadata, Tx, derived_id, jitter};
use tokio::time::Instant;
use uuid::Uuid;

pub use outcome::{ExecuteError, Executed, Loaded};

use crate::aggregate::Aggregate;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent};
use crate::store::{EventStore, ExpectedVersion, ReadOptions};
use crate::stream_id::StreamId;
use fold::Fold;

/// The aggregates of type `A` in an event store. Cheap to clone.
pub struct Repository<A> {
    store: Arc<dyn EventStore>,
    retry: Backoff,
    aggregate: PhantomData<fn() -> A>,
}

type Outcome<A> = Result<Executed<A>, ExecuteError<<A as Aggregate>::Error>>;

/// What a command was decided to do, not yet stored.
struct Decided<A: Aggregate> {
    expected: ExpectedVersion,
    new: Vec<NewEvent>,
    events: Vec<A::Event>,
    state: A,
}

impl<A: Aggregate> Repository<A> {
    /// The aggregates in `store`. A command that meets a conflict is tried 5 times in all, with
    /// waits from 5 to 200 ms.
    pub fn new(store: Arc<dyn EventStore>) -> Self {
        let retry = Backoff::exponential(Duration::from_millis(5))
            .cap(Duration::from_millis(200))
            .max_attempts(5);
        Self { store, retry, aggregate: PhantomData }
    }

    /// How a command that meets a conflict is tried again.
    #[must_use]
    pub fn retry(mut self, retry: Backoff) -> Self {
        self.retry = retry;
        self
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn EventStore> {
        &self.store
    }

    /// The stream of the aggregate `id`.
    ///
    /// # Errors
    /// `InvalidInput` when the id is empty or too long.
    pub fn stream_id(&self, id: &str) -> Result<StreamId> {
        StreamId::new(A::TYPE, id)
    }

    /// The aggregate as it is; the default state at version 0 when nothing happened to it yet.
    ///
    /// # Errors
    /// `Corrupt` when an event can't be decoded, `Unavailable` when the database is.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>> {
        let stream = self.stream_id(id)?;
        Ok(self.fold(None, &stream, None, None).await?.loaded)
    }

    /// The same inside the caller's transaction, own appends included.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_in(&self, tx: &mut Tx, id: &str) -> Result<Loaded<A>> {
        let stream = self.stream_id(id)?;
        Ok(self.fold(Some(tx), &stream, None, None).await?.loaded)
    }

    /// Loads the aggregate, lets it decide, and appends what happens, expecting that nobody else
    /// did in between; otherwise all of it again. `metadata` goes to every event.
    ///
    /// # Errors
    /// `Rejected` with the aggregate's reason; `Store` with `Conflict` when all attempts met
    /// one, with `Unknown` when it stayed open whether the events are there.
    pub async fn execute(&self, id: &str, command: &A::Command, metadata: Metadata) -> Outcome<A> {
        self.retried(id, None, command, &metadata).await
    }

    /// The same once for each `key`: a command that comes again (a redelivery, a retry by a
    /// process that has forgotten the first attempt) is answered as the first time, with the
    /// state of then. A command that was refused, or had nothing to do, leaves no trace and is
    /// decided anew.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn execute_once(
        &self,
        id: &str,
        key: &str,
        command: &A::Command,
        metadata: Metadata,
    ) -> Outcome<A> {
        self.retried(id, Some(key), command, &metadata).await
    }

    /// Loads, decides and appends inside the caller's transaction: the events are there if and
    /// only if it commits. No retry: the transaction is not ours to begin again.
    ///
    /// # Errors
    /// As [`execute`](Self::execute). After `Rejected`, and after a `Conflict` that says at
    /// which version the stream is, the transaction is still usable.
    pub async fn execute_in(
        &self,
        tx: &mut Tx,
        id: &str,
        command: &A::Command,
        metadata: Metadata,
    ) -> Outcome<A> {
        let stream = self.stream_id(id)?;
        self.once(Some(tx), &stream, None, command, &metadata).await
    }

    /// The same once for each `key`, as [`execute_once`](Self::execute_once).
    ///
    /// # Errors
    /// As [`execute_in`](Self::execute_in).
    pub async fn execute_once_in(
        &self,
        tx: &mut Tx,
        id: &str,
        key: &str,
        command: &A::Command,
        metadata: Metadata,
    ) -> Outcome<A> {
        let stream = self.stream_id(id)?;
        self.once(Some(tx), &stream, Some(key), command, &metadata).await
    }

    async fn retried(
        &self,
        id: &str,
        key: Option<&str>,
        command: &A::Command,
        metadata: &Metadata,
    ) -> Outcome<A> {
        let stream = self.stream_id(id)?;
        let began = Instant::now();
        let mut failed = 0;
        loop {
            let error = match self.once(None, &stream, key, command, metadata).await {
                Err(ExecuteError::Store(error)) if worth_another(&error, key) => error,
                settled => return settled,
            };
            failed += 1;
            let Some(wait) = self.retry.delay(failed, began.elapsed(), jitter()) else {
                return Err(error.into());
            };
            tracing::debug!(%stream, failed, ?wait, "a command met a conflict, trying again");
            tokio::time::sleep(wait).await;
        }
    }

    async fn once(
        &self,
        mut tx: Option<&mut Tx>,
        stream: &StreamId,
        key: Option<&str>,
        command: &A::Command,
        metadata: &Metadata,
    ) -> Outcome<A> {
        let folded = self.fold(tx.as_deref_mut(), stream, key, None).await?;
        if let Some((version, last_position)) = folded.done_at {
            let then = self.fold(tx, stream, None, Some(version)).await?;
            return Ok(Executed {
                state: then.loaded.state,
                version,
                events: folded.done,
                last_position: Some(last_position),
                duplicate: true,
            });
        }
        let decided = decide(stream, key, folded.loaded, command, metadata)?;
        let appended = match tx {
            _ if decided.new.is_empty() => None,
            Some(tx) => Some(self.store.append_in(tx, stream, decided.expected, decided.new).await),
            None => Some(self.store.append(stream, decided.expected, decided.new).await),
        };
        let appended: Option<Appended> = appended.transpose()?;
        Ok(Executed {
            state: decided.state,
            version: match (appended, decided.expected) {
                (Some(appended), _) => appended.last_version,
                (None, ExpectedVersion::Exact(version)) => version,
                (None, _) => 0,
            },
            events: decided.events,
            last_position: appended.map(|appended| appended.last_position),
            duplicate: appended.is_some_and(|appended| appended.duplicate),
        })
    }

    /// The events of the stream, up to and with version `until`, summed up.
    async fn fold<'a>(
        &self,
        tx: Option<&mut Tx>,
        stream: &'a StreamId,
        key: Option<&'a str>,
        until: Option<u64>,
    ) -> Result<Fold<'a, A>> {
        let mut fold = Fold::new(stream, key);
        let mut options = ReadOptions { limit: until, ..ReadOptions::forwards() };
        let Some(tx) = tx else {
            let mut events = self.store.read_stream(stream, options);
            while let Some(event) = events.try_next().await? {
                fold.apply(&event)?;
            }
            return Ok(fold);
        };
        loop {
            let asked = options.page();
            let page = self.store.read_stream_in(tx, stream, options).await?;
            for event in &page {
                fold.apply(event)?;
            }
            let version = fold.loaded.version;
            if (page.len() as u64) < asked || until == Some(version) {
                return Ok(fold);
            }
            options = options.from_version(version + 1);
            options.limit = until.map(|until| until - version);
        }
    }
}

fn decide<A: Aggregate>(
    stream: &StreamId,
    key: Option<&str>,
    loaded: Loaded<A>,
    command: &A::Command,
    metadata: &Metadata,
) -> Result<Decided<A>, ExecuteError<A::Error>> {
    let Loaded { mut state, version } = loaded;
    let events = state.decide(command).map_err(ExecuteError::Rejected)?;
    let mut new = Vec::with_capacity(events.len());
    for event in &events {
        let mut one = NewEvent::of(event)?.with_metadata(metadata.clone());
        if let Some(key) = key {
            one.event_id = event_id(stream, key, new.len());
        }
        new.push(one);
        state.evolve(event);
    }
    Ok(Decided { expected: ExpectedVersion::Exact(version), new, events, state })
}

/// The id of the event at `index` of those that the command with this key leads to.
fn event_id(stream: &StreamId, key: &str, index: usize) -> Uuid {
    derived_id(&[stream.as_str(), key, &index.to_string()])
}

/// With a key, a duplicate id is the same command that ran at the same time and decided on
/// another state: the next attempt finds what it did.
fn worth_another(error: &Error, key: Option<&str>) -> bool {
    error.is_conflict() || (key.is_some() && error.kind() == ErrorKind::DuplicateEventId)
}

impl<A> Clone for Repository<A> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), retry: self.retry.clone(), aggregate: PhantomData }
    }
}

impl<A> fmt::Debug for Repository<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("retry", &self.retry).finish_non_exhaustive()
    }
}
