//! Events that were set aside.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::stream_id::StreamId;

/// An event that a projection could not apply and was told to set aside.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ParkedEvent {
    /// Its place among all events; with the projection's name it names the entry.
    pub global_position: u64,
    /// The segment of the projection that it belongs to.
    pub segment: u16,
    /// Its stream.
    pub stream_id: StreamId,
    /// Its id.
    pub event_id: Uuid,
    /// What happened.
    pub event_type: String,
    /// Why it was set aside.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was set aside.
    pub parked_at: DateTime<Utc>,
}
