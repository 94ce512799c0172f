//! A block of events: what is sent at once, and again if need be.

use bytes::Bytes;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;

/// The events above `after`, up to and with `through`, as rows. The same for the same bounds and
/// filter, whenever it is made.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) after: u64,
    pub(super) through: u64,
    pub(super) events: u64,
    rows: Bytes,
}

#[derive(Serialize)]
struct EventRow<'a> {
    global_position: u64,
    stream_id: &'a str,
    stream_type: &'a str,
    version: u64,
    event_id: String,
    event_type: &'a str,
    schema_version: u32,
    payload: &'a str,
    metadata: String,
    tenant: &'a str,
    recorded_at: String,
}

impl Block {
    pub(super) fn new(after: u64, through: u64, events: &[RecordedEvent]) -> Result<Self> {
        let mut rows = Vec::with_capacity(events.len() * 256);
        for event in events {
            let row = EventRow {
                global_position: event.global_position,
                stream_id: event.stream_id.as_str(),
                stream_type: event.stream_type(),
                version: event.version,
                event_id: event.event_id.to_string(),
                event_type: &event.event_type,
                schema_version: event.schema_version,
                // As text: bit for bit.
                payload: event.payload.as_str(),
                metadata: json(&event.metadata)?,
                tenant: event.metadata.tenant.as_deref().unwrap_or_default(),
                recorded_at: event.recorded_at.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
            };
            rows.extend_from_slice(json(&row)?.as_bytes());
            rows.push(b'\n');
        }
        Ok(Self { after, through, events: events.len() as u64, rows: rows.into() })
    }

    /// By this the server knows the block again.
    pub(super) fn token(&self, mirror: &str) -> String {
        format!("{mirror}:{}-{}:{}", self.after, self.through, self.events)
    }

    pub(super) fn rows(&self) -> Bytes {
        self.rows.clone()
    }
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| {
        Error::with_source(ErrorKind::Corrupt, "an event can't be written as JSON", source)
    })
}
