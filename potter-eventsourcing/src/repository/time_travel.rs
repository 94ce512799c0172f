//! Aggregates as they were, and as they might be. Nothing is written.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use potter_core::Json;
use serde::Serialize;
use serde_json::Value;

use super::{Loaded, Repository};
use crate::aggregate::Aggregate;
use crate::diff::{Difference, differences};
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::store::ReadOptions;
use crate::stream_id::StreamId;

/// A moment in the life of an aggregate.
///
/// A time stands for a version: that of the last event before the first one that was recorded
/// later. So a later time is never an earlier version, also where a clock was set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Behind the event of this version; 0 is before everything.
    Version(u64),
    /// At this time, on the database's clock.
    Time(DateTime<Utc>),
}

/// An event, and what it did.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TimelineEntry {
    /// The event.
    pub event: RecordedEvent,
    /// The state behind it.
    pub state: Json,
    /// What it changed.
    pub changes: Vec<Difference>,
}

/// Changes to a history that did not happen.
///
/// ```
/// # use potter_eventsourcing::WhatIf;
/// # fn example<E>(deposited: E, closed: E) -> WhatIf<E> {
/// // What if the third event had been another one, the fourth had not happened, and at the end
/// // the account had been closed?
/// WhatIf::new().replace(3, deposited).without(4).then(closed)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct WhatIf<E> {
    edits: Vec<(u64, Edit<E>)>,
    then: Vec<E>,
}

#[derive(Clone, Debug)]
enum Edit<E> {
    Without,
    Replace(E),
    After(E),
}

impl<E> Default for WhatIf<E> {
    fn default() -> Self {
        Self { edits: Vec::new(), then: Vec::new() }
    }
}

impl<E> WhatIf<E> {
    /// The history as it was.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves out the event of `version`.
    #[must_use]
    pub fn without(mut self, version: u64) -> Self {
        self.edits.push((version, Edit::Without));
        self
    }

    /// Puts `event` in the place of that of `version`.
    #[must_use]
    pub fn replace(mut self, version: u64, event: E) -> Self {
        self.edits.push((version, Edit::Replace(event)));
        self
    }

    /// Adds `event` behind that of `version`; 0 is before the first.
    #[must_use]
    pub fn after(mut self, version: u64, event: E) -> Self {
        self.edits.push((version, Edit::After(event)));
        self
    }

    /// Adds `event` at the end.
    #[must_use]
    pub fn then(mut self, event: E) -> Self {
        self.then.push(event);
        self
    }

    fn of(&self, version: u64) -> impl Iterator<Item = &Edit<E>> {
        self.edits.iter().filter(move |(at, _)| *at == version).map(|(_, edit)| edit)
    }
}

impl<A: Aggregate> Repository<A> {
    /// The aggregate as it was.
    ///
    /// # Errors
    /// `NotFound` when there is no such stream, it never had that version, or the time is before
    /// its first event; each says which.
    pub async fn load_at(&self, id: &str, at: At) -> Result<Loaded<A>> {
        let stream = self.stream_id(id)?;
        let time = match at {
            At::Version(0) => return Ok(Loaded { state: A::default(), version: 0 }),
            At::Version(version) => {
                let fold = self.fold(None, &stream, None, Some(version)).await?;
                let found = fold.loaded.version;
                return if found == version {
                    Ok(fold.loaded)
                } else {
                    Err(no_such_version(&stream, version, found))
                };
            }
            At::Time(time) => time,
        };
        let mut fold = self.new_fold(&stream, None);
        let mut events = self.store().read_stream(&stream, ReadOptions::forwards());
        while let Some(event) = events.try_next().await? {
            if event.recorded_at > time {
                if fold.loaded.version == 0 {
                    return Err(before_the_first(&stream, time, event.recorded_at));
                }
                break;
            }
            fold.apply(&event)?;
        }
        if fold.loaded.version == 0 {
            return Err(no_such_version(&stream, 1, 0));
        }
        Ok(fold.loaded)
    }

    /// The aggregate as it would be with another history.
    ///
    /// # Errors
    /// `NotFound` when there is no event of a version that is named.
    pub async fn what_if(&self, id: &str, changed: &WhatIf<A::Event>) -> Result<A> {
        let stream = self.stream_id(id)?;
        let mut state = A::default();
        let add = |state: &mut A, version: u64| {
            for edit in changed.of(version) {
                if let Edit::After(event) = edit {
                    state.evolve(event);
                }
            }
        };
        add(&mut state, 0);
        let (mut version, decoder) = (0, self.new_fold(&stream, None));
        let mut events = self.store().read_stream(&stream, ReadOptions::forwards());
        while let Some(event) = events.try_next().await? {
            version = event.version;
            let edit = changed.of(version).find(|edit| !matches!(edit, Edit::After(_)));
            match edit {
                Some(Edit::Replace(other)) => state.evolve(other),
                Some(_) => {}
                None => {
                    for event in decoder.decode(&event)? {
                        state.evolve(&event);
                    }
                }
            }
            add(&mut state, version);
        }
        if let Some((beyond, _)) = changed.edits.iter().find(|(at, _)| *at > version) {
            return Err(no_such_version(&stream, *beyond, version));
        }
        for event in &changed.then {
            state.evolve(event);
        }
        Ok(state)
    }
}

impl<A: Aggregate + Serialize> Repository<A> {
    /// The events of versions from `from_version` on, `limit` at most, with the state behind each
    /// and what it changed.
    ///
    /// # Errors
    /// `NotFound` when there is no such stream.
    pub async fn timeline(
        &self,
        id: &str,
        from_version: u64,
        limit: u64,
    ) -> Result<Vec<TimelineEntry>> {
        let stream = self.stream_id(id)?;
        let mut fold = self.new_fold(&stream, None);
        let mut entries = Vec::new();
        let mut before = value(&fold.loaded.state)?;
        let mut events = self.store().read_stream(&stream, ReadOptions::forwards());
        while let Some(event) = events.try_next().await? {
            if entries.len() as u64 >= limit {
                break;
            }
            let wanted = event.version >= from_version;
            fold.apply(&event)?;
            if !wanted && event.version + 1 < from_version {
                continue;
            }
            let after = value(&fold.loaded.state)?;
            if wanted {
                let changes = differences(&before, &after);
                entries.push(TimelineEntry { event, state: Json::of(&after)?, changes });
            }
            before = after;
        }
        if fold.loaded.version == 0 {
            return Err(no_such_version(&stream, 1, 0));
        }
        Ok(entries)
    }

    /// What changed between two moments, field by field.
    ///
    /// # Errors
    /// As [`load_at`](Self::load_at).
    pub async fn compare(&self, id: &str, from: At, to: At) -> Result<Vec<Difference>> {
        let (from, to) = (self.load_at(id, from).await?, self.load_at(id, to).await?);
        Ok(differences(&value(&from.state)?, &value(&to.state)?))
    }
}

fn value<A: Serialize>(state: &A) -> Result<Value> {
    Ok(Json::of(state)?.get()?)
}

fn no_such_version(stream: &StreamId, version: u64, found: u64) -> Error {
    let message = match found {
        0 => format!("there is no stream {stream}"),
        _ => format!("stream {stream} is at version {found}: there is no version {version}"),
    };
    Error::new(ErrorKind::NotFound, message)
}

fn before_the_first(stream: &StreamId, time: DateTime<Utc>, first: DateTime<Utc>) -> Error {
    let (time, first) = (time.to_rfc3339(), first.to_rfc3339());
    let message = format!("{time} is before the first event of stream {stream}, of {first}");
    Error::new(ErrorKind::NotFound, message)
}
