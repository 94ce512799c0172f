//! Events: to be appended, and as they were recorded.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use potter_core::{Json, Metadata};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain_event::DomainEvent;
use crate::error::Result;
use crate::stream_id::StreamId;

/// An event to append.
///
/// Its `event_id` is what makes a repeated append harmless: keep the `NewEvent` (or the id) for
/// the retry, do not make a new one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NewEvent {
    /// The event's identity, unique in the store.
    pub event_id: Uuid,
    /// What happened (`order.placed`): 1 to 255 bytes.
    pub event_type: String,
    /// The shape of the payload: 1 or more.
    pub schema_version: u32,
    /// The details, kept bit for bit.
    pub payload: Json,
    /// Who caused it, for whom. Not compared when an append is repeated.
    pub metadata: Metadata,
    /// What it is about beside its stream (`course:7`, `student:3`): what an
    /// [`EventQuery`](crate::EventQuery) finds it by. 32 at most, 1 to 255 bytes each. Not compared
    /// when an append is repeated.
    pub tags: BTreeSet<String>,
}

impl NewEvent {
    /// An event with a new id, schema version 1 and no metadata.
    ///
    /// # Errors
    /// `InvalidInput` when the payload can't be written as JSON.
    pub fn new<T: Serialize + ?Sized>(event_type: impl Into<String>, payload: &T) -> Result<Self> {
        Ok(Self::from_json(event_type, Json::of(payload)?))
    }

    /// The same with a payload that is JSON text already.
    pub fn from_json(event_type: impl Into<String>, payload: Json) -> Self {
        Self {
            event_id: potter_core::new_id(),
            event_type: event_type.into(),
            schema_version: 1,
            payload,
            metadata: Metadata::new(),
            tags: BTreeSet::new(),
        }
    }

    /// The event of a domain, with its type and schema version.
    ///
    /// # Errors
    /// `InvalidInput` when it can't be written as JSON.
    pub fn of<E: DomainEvent>(event: &E) -> Result<Self> {
        let mut new = Self::from_json(event.event_type(), event.encode()?);
        new.schema_version = event.schema_version();
        Ok(new)
    }

    /// Sets the id: a derived one (see [`potter_core::derived_id`]) makes the append repeatable
    /// by a process that has forgotten the first attempt.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.event_id = id;
        self
    }

    /// Sets the schema version.
    #[must_use]
    pub fn with_schema_version(mut self, version: u32) -> Self {
        self.schema_version = version;
        self
    }

    /// Sets the metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Sets the tags.
    ///
    /// ```
    /// use potter_eventsourcing::NewEvent;
    ///
    /// let joined = NewEvent::new("student.joined", &())?.with_tags(["course:7", "student:3"]);
    /// # Ok::<(), potter_eventsourcing::Error>(())
    /// ```
    #[must_use]
    pub fn with_tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }
}

/// An event as the store has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecordedEvent {
    /// The event's identity.
    pub event_id: Uuid,
    /// The stream that it is in.
    pub stream_id: StreamId,
    /// Its place in the stream: 1, 2, 3, … without a gap.
    pub version: u64,
    /// Its place among all events: growing, with gaps.
    pub global_position: u64,
    /// What happened.
    pub event_type: String,
    /// The shape of the payload.
    pub schema_version: u32,
    /// The details, bit for bit as they were appended.
    pub payload: Json,
    /// Who caused it, for whom.
    pub metadata: Metadata,
    /// What it is about beside its stream.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// When, on the database's clock. It says when it was written, not in which order: that is
    /// what `global_position` is for.
    pub recorded_at: DateTime<Utc>,
}

impl RecordedEvent {
    /// The type of its stream.
    pub fn stream_type(&self) -> &str {
        self.stream_id.stream_type()
    }

    /// Reads it as an event of a domain.
    ///
    /// # Errors
    /// `UnknownEvent` when the type or schema version is not one of `E`, `Corrupt` when the payload
    /// is not.
    pub fn decode<E: DomainEvent>(&self) -> Result<E> {
        E::decode(&self.event_type, self.schema_version, &self.payload)
    }
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The version of the first of the appended events.
    pub first_version: u64,
    /// The version of the last: what to expect next, if nobody else appends.
    pub last_version: u64,
    /// The global position of the last.
    pub last_position: u64,
    /// The same events had been appended before; nothing was written now.
    pub duplicate: bool,
}
