//! Aggregates in a store: load, decide, append, and again if someone else was first.

mod fold;
mod outcome;
mod snapshots;
mod time_travel;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::TryStreamExt;
use potter_core::{Backoff, Metadata, Tx, derived_id, jitter};
use tokio::time::Instant;
use uuid::Uuid;

pub use outcome::{ExecuteError, Executed, Loaded};

use crate::aggregate::Aggregate;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::store::{EventStore, ExpectedVersion, ReadOptions};
use crate::stream_id::StreamId;
use crate::upcast::{UnknownEvents, Upcasters};
use fold::{Fold, Shapes};
use snapshots::{Kept, SnapshotUse};
pub use time_travel::{At, TimelineEntry, WhatIf};

/// The aggregates of type `A` in an event store. Cheap to clone.
pub struct Repository<A> {
    store: Arc<dyn EventStore>,
    retry: Backoff,
    snapshots: Option<SnapshotUse<A>>,
    shapes: Shapes,
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
        Self { store, retry, snapshots: None, shapes: Shapes::default(), aggregate: PhantomData }
    }

    /// How a command that meets a conflict is tried again.
    #[must_use]
    pub fn retry(mut self, retry: Backoff) -> Self {
        self.retry = retry;
        self
    }

    /// Reads old events in the shape of today.
    #[must_use]
    pub fn upcasters(mut self, upcasters: Upcasters) -> Self {
        self.shapes.upcasters = Arc::new(upcasters);
        self
    }

    /// What is done with events that the code does not know, after upcasting. They are refused
    /// unless it says otherwise.
    #[must_use]
    pub fn unknown_events(mut self, policy: UnknownEvents) -> Self {
        self.shapes.unknown = policy;
        self
    }

    fn new_fold<'a>(&self, stream: &'a StreamId, key: Option<&'a str>) -> Fold<'a, A> {
        Fold::new(stream, key, self.shapes.clone())
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
    /// `UnknownEvent` or `Corrupt` when an event can't be decoded, `Unavailable` when the database
    /// is.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>> {
        let stream = self.stream_id(id)?;
        let fold = self.fold(None, &stream, None, None).await?;
        if let Some(using) = &self.snapshots {
            using.keep(&fold, &stream);
        }
        Ok(fold.loaded)
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
        let folded = self.fold_for(tx.as_deref_mut(), stream, key).await?;
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
        let (base, since) = (folded.base, folded.since);
        let decided = decide(stream, key, folded.loaded, command, metadata)?;
        let last_id = decided.new.last().map(|new| new.event_id);
        let appended = match tx.as_deref_mut() {
            _ if decided.new.is_empty() => None,
            Some(tx) => Some(self.store.append_in(tx, stream, decided.expected, decided.new).await),
            None => Some(self.store.append(stream, decided.expected, decided.new).await),
        };
        let appended: Option<Appended> = appended.transpose()?;
        if base > 0 && key.is_some() && appended.is_some_and(|appended| appended.duplicate) {
            // It ran at the same time, and a snapshot hides it: the next attempt looks for it.
            let message = format!("the command on {stream} was carried out meanwhile");
            return Err(Error::new(ErrorKind::Conflict, message).into());
        }
        if let (Some(appended), Some(event_id)) = (appended, last_id) {
            let (state, version, now) = (&decided.state, appended.last_version, Utc::now());
            self.keep(tx, &Kept { stream, state, version, event_id, now, base, since });
        }
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

    /// Saves the state after a command, if it is due: once it is committed.
    fn keep(&self, tx: Option<&mut Tx>, kept: &Kept<'_, A>) {
        let Some(using) = &self.snapshots else { return };
        let Some(snapshot) = using.due(kept) else { return };
        match tx {
            Some(tx) => {
                let keeper = using.snapshots.keeper();
                tx.on_commit(move || keeper.save_soon(snapshot));
            }
            None => using.snapshots.save_soon(snapshot),
        }
    }

    /// The aggregate for a command. One with a key must find its first time, which a snapshot
    /// hides: so that is looked for first, or, in a transaction of the caller's, all events are
    /// read.
    async fn fold_for<'a>(
        &self,
        tx: Option<&mut Tx>,
        stream: &'a StreamId,
        key: Option<&'a str>,
    ) -> Result<Fold<'a, A>> {
        if let (Some(first), None, Some(_)) = (key, &tx, &self.snapshots) {
            let before = self.store.event(event_id(stream, first, 0)).await?;
            if before.is_none() {
                return self.fold(None, stream, None, None).await;
            }
        }
        self.fold(tx, stream, key, None).await
    }

    /// The events of the stream, up to and with version `until`, summed up.
    async fn fold<'a>(
        &self,
        mut tx: Option<&mut Tx>,
        stream: &'a StreamId,
        key: Option<&'a str>,
        until: Option<u64>,
    ) -> Result<Fold<'a, A>> {
        let mut fold = self.new_fold(stream, key);
        if let (None, Some(using)) = (key, &self.snapshots)
            && let Some((state, snapshot)) = using.newest(tx.as_deref_mut(), stream, until).await
        {
            let version = snapshot.version;
            fold.begin_with(state, version, snapshot.taken_at);
            // With the event that it ends with, to see that this is its stream.
            let options = ReadOptions::forwards().from_version(version);
            let its_last = Some((version, snapshot.event_id));
            if self.read_tail(&mut fold, tx.as_deref_mut(), options, until, its_last).await? {
                return Ok(fold);
            }
            tracing::warn!(%stream, version, "a snapshot is ahead of its stream, or of another one: the events are read");
            fold = self.new_fold(stream, key);
        }
        self.read_into(&mut fold, tx, ReadOptions::forwards(), until).await?;
        Ok(fold)
    }

    async fn read_into(
        &self,
        fold: &mut Fold<'_, A>,
        tx: Option<&mut Tx>,
        options: ReadOptions,
        until: Option<u64>,
    ) -> Result<()> {
        self.read_tail(fold, tx, options, until, None).await.map(|_| ())
    }

    /// Reads on. `its_last` is the event that the fold has in it already: `false` when that is not
    /// what the stream has there.
    async fn read_tail(
        &self,
        fold: &mut Fold<'_, A>,
        tx: Option<&mut Tx>,
        mut options: ReadOptions,
        until: Option<u64>,
        its_last: Option<(u64, Uuid)>,
    ) -> Result<bool> {
        let from = options.from_version.unwrap_or(1);
        options.limit = until.map(|until| (until + 1).saturating_sub(from));
        let mut expected = its_last;
        let mut take = |fold: &mut Fold<'_, A>, event: &RecordedEvent| match expected.take() {
            Some(last) if last != (event.version, event.event_id) => Ok(false),
            Some(_) => {
                fold.last = Some((event.event_id, event.recorded_at));
                Ok(true)
            }
            None => fold.apply(event).map(|()| true),
        };
        let mut read = 0_u64;
        let Some(tx) = tx else {
            let mut events = self.store.read_stream(fold.stream, options);
            while let Some(event) = events.try_next().await? {
                read += 1;
                if !take(fold, &event)? {
                    return Ok(false);
                }
            }
            return Ok(read > 0 || its_last.is_none());
        };
        loop {
            let asked = options.page();
            let page = self.store.read_stream_in(tx, fold.stream, options).await?;
            for event in &page {
                read += 1;
                if !take(fold, event)? {
                    return Ok(false);
                }
            }
            let version = fold.loaded.version;
            if (page.len() as u64) < asked || until == Some(version) {
                return Ok(read > 0 || its_last.is_none());
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
        Self {
            store: Arc::clone(&self.store),
            retry: self.retry.clone(),
            snapshots: self.snapshots.clone(),
            shapes: self.shapes.clone(),
            aggregate: PhantomData,
        }
    }
}

impl<A> fmt::Debug for Repository<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("retry", &self.retry).finish_non_exhaustive()
    }
}
