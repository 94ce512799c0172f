//! An append before it reaches a database: what it expects, what is checked, and how refusals
//! are worded.

use std::collections::HashSet;

use potter_core::Json;

use super::options::StoreOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::event::NewEvent;
use crate::personal::refuse_clear;
use crate::query::{TAGS_MAX, is_name};
use crate::stream_id::StreamId;

/// How a stream must be for an append to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExpectedVersion {
    /// It does not matter.
    Any,
    /// It has no event.
    NoStream,
    /// It has an event.
    StreamExists,
    /// Its last event has this version; 0 is the same as `NoStream`.
    Exact(u64),
}

impl ExpectedVersion {
    pub(crate) fn fits(self, current: u64) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => current == 0,
            Self::StreamExists => current > 0,
            Self::Exact(version) => current == version,
        }
    }

    /// The code that `potter_append` takes.
    pub(crate) fn code(self) -> i64 {
        match self {
            Self::Any => -1,
            Self::NoStream => -2,
            Self::StreamExists => -3,
            Self::Exact(version) => i64::try_from(version).unwrap_or(i64::MAX),
        }
    }
}

/// A checked append.
#[derive(Clone, Debug)]
pub(crate) struct Append {
    pub(crate) stream: StreamId,
    pub(crate) expected: ExpectedVersion,
    pub(crate) events: Vec<Prepared>,
}

/// A checked event.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) event: NewEvent,
    pub(crate) metadata: Json,
    /// The tags as an array, if there are any.
    pub(crate) tags: Option<Json>,
}

impl Prepared {
    fn bytes(&self) -> usize {
        let tags = self.tags.as_ref().map_or(0, |tags| tags.as_str().len());
        self.event.payload.as_str().len() + self.metadata.as_str().len() + tags
    }
}

impl Append {
    pub(crate) fn new(
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
        options: &StoreOptions,
    ) -> Result<Self> {
        if events.is_empty() {
            return Err(invalid(stream, "it has no event"));
        }
        if events.len() > options.events_max {
            let what = format!("it has {} events, {} at most", events.len(), options.events_max);
            return Err(limit(stream, &what));
        }
        let mut ids = HashSet::with_capacity(events.len());
        let mut prepared = Vec::with_capacity(events.len());
        for event in events {
            if !ids.insert(event.event_id) {
                return Err(invalid(stream, "an event id is in it twice"));
            }
            let metadata = check(stream, &event, options)?;
            let tags = (!event.tags.is_empty()).then(|| Json::of(&event.tags)).transpose()?;
            prepared.push(Prepared { event, metadata, tags });
        }
        let bytes: usize = prepared.iter().map(Prepared::bytes).sum();
        if bytes > options.append_bytes_max {
            let what = format!("it has {bytes} bytes, {} at most", options.append_bytes_max);
            return Err(limit(stream, &what));
        }
        Ok(Self { stream: stream.clone(), expected, events: prepared })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.events.iter().map(Prepared::bytes).sum()
    }

    pub(crate) fn is_tagged(&self) -> bool {
        self.events.iter().any(|new| new.tags.is_some())
    }

    pub(crate) fn conflict(&self, current: u64) -> Error {
        let stream = &self.stream;
        let expected = match self.expected {
            ExpectedVersion::Any => "anything".to_owned(),
            ExpectedVersion::NoStream => "no event".to_owned(),
            ExpectedVersion::StreamExists => "an event".to_owned(),
            ExpectedVersion::Exact(version) => format!("version {version}"),
        };
        let message = format!(
            "stream {stream} is at version {current}, expected was {expected}: load it and decide again"
        );
        Error::new(ErrorKind::Conflict, message)
    }

    pub(crate) fn duplicate_event_id(&self) -> Error {
        let stream = &self.stream;
        let message = format!(
            "an event id of this append to stream {stream} was used before for another event, \
             or for only a part of this append"
        );
        Error::new(ErrorKind::DuplicateEventId, message)
    }
}

fn check(stream: &StreamId, event: &NewEvent, options: &StoreOptions) -> Result<Json> {
    let event_type = &event.event_type;
    if !is_name(event_type) {
        return Err(invalid(stream, "an event type has 1 to 255 bytes and no NUL character"));
    }
    if event.schema_version == 0 || i32::try_from(event.schema_version).is_err() {
        return Err(invalid(stream, "a schema version is 1 or more, below 2^31"));
    }
    if event.tags.len() > TAGS_MAX {
        let what = format!("{event_type} has {} tags, {TAGS_MAX} at most", event.tags.len());
        return Err(limit(stream, &what));
    }
    if !event.tags.iter().all(|tag| is_name(tag)) {
        return Err(invalid(stream, "a tag has 1 to 255 bytes and no NUL character"));
    }
    refuse_clear(&event.payload)?;
    let metadata = Json::of(&event.metadata)?;
    for (what, json) in [("payload", &event.payload), ("metadata", &metadata)] {
        let (bytes, max) = (json.as_str().len(), options.payload_bytes_max);
        if bytes > max {
            let what = format!("the {what} of {event_type} has {bytes} bytes, {max} at most");
            return Err(limit(stream, &what));
        }
    }
    Ok(metadata)
}

fn invalid(stream: &StreamId, what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("append to stream {stream} refused: {what}"))
}

fn limit(stream: &StreamId, what: &str) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("append to stream {stream} refused: {what}"))
}
