//! A message on its way out.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::error::Result;
use crate::id::new_id;
use crate::json::Json;
use crate::metadata::Metadata;

/// A message in the outbox and on the bus. Its `id` is the same on every delivery: consumers
/// recognise a repetition by it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutboxMessage {
    /// The message's identity.
    pub id: Uuid,
    /// The kind of thing that it tells of ("order"): the topic, for most buses.
    pub aggregate_type: String,
    /// Which one ("order-42"): messages of one are delivered in order.
    pub aggregate_id: String,
    /// What happened ("order.completed").
    pub event_type: String,
    /// The details.
    pub payload: Json,
    /// Correlation id, trace and the like, as text.
    pub headers: BTreeMap<String, String>,
}

impl OutboxMessage {
    /// A message with a new id and no headers.
    ///
    /// # Errors
    /// `InvalidInput` when the payload can't be written as JSON.
    pub fn new<T: Serialize + ?Sized>(
        aggregate_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        event_type: impl Into<String>,
        payload: &T,
    ) -> Result<Self> {
        Ok(Self {
            id: new_id(),
            aggregate_type: aggregate_type.into(),
            aggregate_id: aggregate_id.into(),
            event_type: event_type.into(),
            payload: Json::of(payload)?,
            headers: BTreeMap::new(),
        })
    }

    /// Sets the id: a stable one makes the message recognisable when its writer runs twice.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Adds the headers `correlation_id`, `causation_id`, `tenant` and `traceparent`.
    #[must_use]
    pub fn with_metadata(mut self, metadata: &Metadata) -> Self {
        for (name, value) in [
            ("correlation_id", &metadata.correlation_id),
            ("causation_id", &metadata.causation_id),
            ("tenant", &metadata.tenant),
            ("traceparent", &metadata.traceparent),
        ] {
            if let Some(value) = value {
                self.headers.insert(name.to_owned(), value.clone());
            }
        }
        self
    }
}
