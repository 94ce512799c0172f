//! What a group of appends does to a store with one writer (SQLite, memory): a pure decision.
//!
//! # Invariant
//! The answers and rows are those of running the appends one after the other. What an append
//! writes is known to the ones behind it in the group: heads, event ids and positions are carried
//! on in [`Known`].

use std::collections::HashMap;

use potter_core::Json;
use uuid::Uuid;

use super::append::{Append, Prepared};
use super::condition::{AppendCondition, Batch};
use crate::error::Result;
use crate::event::Appended;
use crate::stream_id::StreamId;

/// What of the store matters to the group; read under the writer's lock.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The versions of the group's streams; none for a stream without events.
    pub(crate) heads: HashMap<StreamId, u64>,
    /// Those of the group's event ids that are in the store.
    pub(crate) events: HashMap<Uuid, KnownEvent>,
    /// The highest position ever given.
    pub(crate) last_position: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct KnownEvent {
    pub(crate) stream: StreamId,
    pub(crate) version: u64,
    pub(crate) global_position: u64,
    pub(crate) event_type: String,
    pub(crate) schema_version: u32,
    pub(crate) payload: Json,
}

/// A row to insert.
#[derive(Debug)]
pub(crate) struct Insert<'a> {
    pub(crate) stream: &'a StreamId,
    pub(crate) version: u64,
    pub(crate) global_position: u64,
    pub(crate) event: &'a Prepared,
}

#[derive(Debug, Default)]
pub(crate) struct Planned<'a> {
    /// One for each append.
    pub(crate) answers: Vec<Result<Appended>>,
    pub(crate) inserts: Vec<Insert<'a>>,
}

pub(crate) fn plan<'a>(appends: &'a [Append], mut known: Known) -> Planned<'a> {
    let mut planned = Planned::default();
    for append in appends {
        let answer = plan_one(append, &mut known, &mut planned);
        planned.answers.push(answer);
    }
    planned
}

/// The same for an append to several streams: all or nothing.
///
/// Repetitions are answered before a condition is looked at: what the first attempt wrote would
/// break it. `broken` looks for that, in the store.
pub(crate) fn plan_batch(
    batch: &Batch,
    mut known: Known,
    broken: Option<u64>,
) -> Result<(Vec<Appended>, Vec<Insert<'_>>)> {
    let is_known = |new: &Prepared| known.events.contains_key(&new.event.event_id);
    let mut events = batch.appends.iter().flat_map(|append| &append.events);
    if events.clone().any(is_known) {
        if !events.all(is_known) {
            return Err(batch.partly_repeated());
        }
        let answers = batch
            .appends
            .iter()
            .map(|append| repeated(append, &known).ok_or_else(|| append.duplicate_event_id()));
        return Ok((batch.answers(answers.collect())?, Vec::new()));
    }
    if let Some(position) = broken {
        return Err(AppendCondition::broken(position));
    }
    let mut planned = Planned::default();
    let mut answers: Vec<Option<Appended>> = vec![None; batch.appends.len()];
    for (place, append) in batch.in_order() {
        let answer = plan_one(append, &mut known, &mut planned)?;
        if let Some(slot) = answers.get_mut(place) {
            *slot = Some(answer);
        }
    }
    let answers = answers.into_iter().flatten().map(Ok).collect();
    Ok((batch.answers(answers)?, planned.inserts))
}

fn plan_one<'a>(
    append: &'a Append,
    known: &mut Known,
    planned: &mut Planned<'a>,
) -> Result<Appended> {
    if append.events.iter().any(|new| known.events.contains_key(&new.event.event_id)) {
        return repeated(append, known).ok_or_else(|| append.duplicate_event_id());
    }
    let current = known.heads.get(&append.stream).copied().unwrap_or(0);
    if !append.expected.fits(current) {
        return Err(append.conflict(current));
    }
    let mut version = current;
    for new in &append.events {
        version += 1;
        known.last_position += 1;
        let event = &new.event;
        let row = KnownEvent {
            stream: append.stream.clone(),
            version,
            global_position: known.last_position,
            event_type: event.event_type.clone(),
            schema_version: event.schema_version,
            payload: event.payload.clone(),
        };
        known.events.insert(event.event_id, row);
        planned.inserts.push(Insert {
            stream: &append.stream,
            version,
            global_position: known.last_position,
            event: new,
        });
    }
    known.heads.insert(append.stream.clone(), version);
    Ok(Appended {
        first_version: current + 1,
        last_version: version,
        last_position: known.last_position,
        duplicate: false,
    })
}

/// The first answer, if exactly these events are there, one after the other.
fn repeated(append: &Append, known: &Known) -> Option<Appended> {
    let mut stored = Vec::with_capacity(append.events.len());
    for new in &append.events {
        stored.push((known.events.get(&new.event.event_id)?, &new.event));
    }
    let first_version = stored.first()?.0.version;
    let (last, _) = stored.last()?;
    let same = stored.iter().zip(first_version..).all(|((old, new), version)| {
        old.stream == append.stream
            && old.version == version
            && old.event_type == new.event_type
            && old.schema_version == new.schema_version
            && old.payload == new.payload
    });
    same.then_some(Appended {
        first_version,
        last_version: last.version,
        last_position: last.global_position,
        duplicate: true,
    })
}
