//! From events to state.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Loaded, event_id};
use crate::aggregate::Aggregate;
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::stream_id::StreamId;
use crate::upcast::{UnknownEvents, Upcasters};

/// Sums up events, and recognises those that a command with a key has led to before.
pub(super) struct Fold<'a, A: Aggregate> {
    pub(super) stream: &'a StreamId,
    key: Option<&'a str>,
    pub(super) loaded: Loaded<A>,
    /// The events of the command with the key.
    pub(super) done: Vec<A::Event>,
    /// How many stored ones those are.
    done_count: usize,
    /// Version and position of the last of them.
    pub(super) done_at: Option<(u64, u64)>,
    /// The version of the snapshot that it began with; 0 without one.
    pub(super) base: u64,
    /// When that was taken; without one, when the first event was recorded.
    pub(super) since: Option<DateTime<Utc>>,
    /// The last event.
    pub(super) last: Option<(Uuid, DateTime<Utc>)>,
    shapes: Shapes,
}

/// How stored events become events of the domain.
#[derive(Clone, Debug, Default)]
pub(super) struct Shapes {
    pub(super) upcasters: Arc<Upcasters>,
    pub(super) unknown: UnknownEvents,
}

impl<'a, A: Aggregate> Fold<'a, A> {
    pub(super) fn new(stream: &'a StreamId, key: Option<&'a str>, shapes: Shapes) -> Self {
        let loaded = Loaded { state: A::default(), version: 0 };
        let (done, done_at, base, since, last) = (Vec::new(), None, 0, None, None);
        Self { stream, key, loaded, done, done_count: 0, done_at, base, since, last, shapes }
    }

    /// Begins with the state of a snapshot.
    pub(super) fn begin_with(&mut self, state: A, version: u64, taken_at: DateTime<Utc>) {
        self.loaded = Loaded { state, version };
        self.base = version;
        self.since = Some(taken_at);
    }

    /// The events of the domain that a stored one stands for.
    pub(super) fn decode(&self, recorded: &RecordedEvent) -> Result<Vec<A::Event>> {
        let mut events = Vec::with_capacity(1);
        for one in self.shapes.upcasters.shape(recorded)?.iter() {
            match one.decode::<A::Event>() {
                Ok(event) => events.push(event),
                Err(error)
                    if error.kind() == ErrorKind::UnknownEvent
                        && self.shapes.unknown == UnknownEvents::Skip =>
                {
                    tracing::debug!(stream = %one.stream_id, version = one.version, event_type = one.event_type, "an unknown event is passed over");
                }
                Err(source) => {
                    let message = format!(
                        "event {} of stream {} can't be read: {source}",
                        one.version, one.stream_id
                    );
                    return Err(Error::with_source(source.kind(), message, source));
                }
            }
        }
        Ok(events)
    }

    pub(super) fn apply(&mut self, recorded: &RecordedEvent) -> Result<()> {
        let events = self.decode(recorded)?;
        for event in &events {
            self.loaded.state.evolve(event);
        }
        self.loaded.version = recorded.version;
        self.since.get_or_insert(recorded.recorded_at);
        self.last = Some((recorded.event_id, recorded.recorded_at));
        if let Some(key) = self.key
            && recorded.event_id == event_id(self.stream, key, self.done_count)
        {
            self.done_count += 1;
            self.done.extend(events);
            self.done_at = Some((recorded.version, recorded.global_position));
        }
        Ok(())
    }
}
