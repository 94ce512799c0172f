//! Appending to several streams at once, on a condition over tags: the dynamic consistency
//! boundary (Sara Pellegrini, "Killing the aggregate"; the specification at dcb.events).
//!
//! # Invariant
//! When an append under a condition is committed, no event that its query wants is in the store
//! but those that the decision saw: none above `after`, those in `seen` excepted. `after` is a
//! final position, so nothing can still appear at or below it.
//!
//! What could break it is an event that is committed between the look and the append's commit. So
//! each store keeps those away that write what the query wants until the append has ended, and
//! looks only then:
//!
//! - one writer at a time (memory, SQLite): the look is in the append's transaction;
//! - PostgreSQL: every append takes a shared lock on each tag of its events; an append under a
//!   condition takes an exclusive one on one tag of each item of its query (whoever writes what
//!   the item wants has that tag), or on the whole store for an item without a tag. Locks are
//!   taken in one order, before the streams'. The look is a later statement than the locks, so it
//!   sees what those before have committed: that needs READ COMMITTED.

use std::collections::BTreeSet;

use super::append::{Append, ExpectedVersion};
use super::options::StoreOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::query::EventQuery;
use crate::stream_id::StreamId;

/// How many events a decision may depend on.
pub(crate) const MATCHING_MAX: usize = 100_000;
/// How many streams one append may be for.
const STREAMS_MAX: usize = 1_000;

/// Events for one of the streams of an append to several.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StreamAppend {
    /// The stream.
    pub stream: StreamId,
    /// How it must be.
    pub expected: ExpectedVersion,
    /// What happened.
    pub events: Vec<NewEvent>,
}

impl StreamAppend {
    /// `events` for `stream`, if it is as `expected`.
    pub fn new(stream: StreamId, expected: ExpectedVersion, events: Vec<NewEvent>) -> Self {
        Self { stream, expected, events }
    }
}

/// What must hold for an append to be taken, beside the expected versions: no event that `query`
/// wants was added after a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendCondition {
    pub(crate) query: EventQuery,
    pub(crate) after: u64,
    pub(crate) seen: BTreeSet<u64>,
}

impl AppendCondition {
    /// Always holds.
    pub fn none() -> Self {
        Self::default()
    }

    /// No event that `query` wants is there at all.
    pub fn no_event(query: EventQuery) -> Self {
        Self::no_event_after(query, 0)
    }

    /// No event that `query` wants is there above `after`: a position that
    /// [`EventStore::read_matching`](super::EventStore::read_matching) or
    /// [`read_page`](super::EventStore::read_page) gave, or a safe position.
    pub fn no_event_after(query: EventQuery, after: u64) -> Self {
        Self { query, after, seen: BTreeSet::new() }
    }

    /// The query.
    pub fn query(&self) -> &EventQuery {
        &self.query
    }

    /// Does it always hold?
    pub fn is_none(&self) -> bool {
        self.query.items().is_empty()
    }

    /// Does an event that is in the store break it? For stores of your own.
    pub fn is_broken_by(&self, event: &RecordedEvent) -> bool {
        event.global_position > self.after
            && !self.seen.contains(&event.global_position)
            && self.query.matches(event)
    }

    /// The position above which a store must look for what breaks it.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// The answer when it does not hold. For stores of your own.
    pub fn broken(position: u64) -> Error {
        let message = format!(
            "an event that the append's condition names was added at position {position}: read \
             what the decision depends on again and decide again"
        );
        Error::new(ErrorKind::Conflict, message)
    }
}

/// What a query found, and the condition that nothing was added since.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Matching {
    /// The events, in the order of their positions.
    pub events: Vec<RecordedEvent>,
    /// Up to here everything is final.
    pub position: u64,
    query: EventQuery,
}

impl Matching {
    /// For stores of your own: what `query` wants above some position, in order. Up to `position`
    /// it is final; events above it are among those that are committed.
    pub fn new(query: EventQuery, events: Vec<RecordedEvent>, position: u64) -> Self {
        Self { events, position, query }
    }

    /// That no event which the query wants has come since.
    pub fn condition(&self) -> AppendCondition {
        let beyond = self.events.iter().map(|event| event.global_position);
        AppendCondition {
            query: self.query.clone(),
            after: self.position,
            seen: beyond.filter(|position| *position > self.position).collect(),
        }
    }
}

/// A checked append to several streams: sorted by stream, as every lock is taken in that order.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// In the order of the streams.
    pub(crate) appends: Vec<Append>,
    /// For each in the caller's order, where it is in `appends`.
    pub(crate) order: Vec<usize>,
    pub(crate) condition: AppendCondition,
}

impl Batch {
    pub(crate) fn new(
        parts: Vec<StreamAppend>,
        condition: AppendCondition,
        options: &StoreOptions,
    ) -> Result<Self> {
        condition.query.check()?;
        if parts.is_empty() {
            return Err(invalid("it has no stream"));
        }
        if parts.len() > STREAMS_MAX {
            let what = format!("it has {} streams, {STREAMS_MAX} at most", parts.len());
            return Err(limit(&what));
        }
        let mut appends = Vec::with_capacity(parts.len());
        for part in parts {
            appends.push(Append::new(&part.stream, part.expected, part.events, options)?);
        }
        let (events, bytes) = appends.iter().fold((0, 0), |(events, bytes), append| {
            (events + append.events.len(), bytes + append.bytes())
        });
        if events > options.events_max {
            return Err(limit(&format!("it has {events} events, {} at most", options.events_max)));
        }
        if bytes > options.append_bytes_max {
            let max = options.append_bytes_max;
            return Err(limit(&format!("it has {bytes} bytes, {max} at most")));
        }
        let mut ids = std::collections::HashSet::with_capacity(events);
        if !appends.iter().flat_map(|one| &one.events).all(|new| ids.insert(new.event.event_id)) {
            return Err(invalid("an event id is in it twice"));
        }
        let mut sorted: Vec<usize> = (0..appends.len()).collect();
        sorted.sort_by(|a, b| appends[*a].stream.cmp(&appends[*b].stream));
        let mut order = vec![0; appends.len()];
        for (place, was) in sorted.iter().enumerate() {
            order[*was] = place;
        }
        appends.sort_by(|a, b| a.stream.cmp(&b.stream));
        if appends.windows(2).any(|two| two[0].stream == two[1].stream) {
            return Err(invalid("a stream is in it twice: put its events into one part"));
        }
        Ok(Self { appends, order, condition })
    }

    /// The appends in the caller's order.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (usize, &Append)> {
        self.order.iter().filter_map(|place| Some((*place, self.appends.get(*place)?)))
    }

    /// All or nothing: the answers in the caller's order, or why there is nothing.
    pub(crate) fn answers(&self, answers: Vec<Result<Appended>>) -> Result<Vec<Appended>> {
        let answers = answers.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(self.order.iter().filter_map(|place| answers.get(*place).copied()).collect())
    }

    /// A part of it was appended before, and another part was not.
    pub(crate) fn partly_repeated(&self) -> Error {
        let message = "a part of this append to several streams was appended before, and another \
                       part was not";
        Error::new(ErrorKind::DuplicateEventId, message)
    }
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("append to several streams refused: {what}"))
}

fn limit(what: &str) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("append to several streams refused: {what}"))
}
