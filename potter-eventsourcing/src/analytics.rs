//! Questions about the history as a whole: how many events, of which types, where and when.
//!
//! Answered from the log itself by SQL, or, with the feature `clickhouse`, from its mirror in
//! ClickHouse. Both answer the same for the same positions. On SQLite and PostgreSQL a question
//! reads every event of its slice; what is asked often belongs in a read model.

mod sql;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use potter_core::{Database, Engine};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::stream_id::StreamId;

/// Which part of the log is asked about. The default: all of it.
///
/// Times become positions by [`EventStore::position_at`](crate::EventStore::position_at): so an
/// answer is the same wherever it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slice {
    /// Only events above this position.
    pub after: u64,
    /// Only events up to and with this position.
    pub until: Option<u64>,
    /// Only events of streams of this type.
    pub stream_type: Option<String>,
    /// Only events of this type.
    pub event_type: Option<String>,
}

impl Slice {
    /// All of the log.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only events above this position.
    #[must_use]
    pub fn after(mut self, position: u64) -> Self {
        self.after = position;
        self
    }

    /// Only events up to and with this position.
    #[must_use]
    pub fn until(mut self, position: u64) -> Self {
        self.until = Some(position);
        self
    }

    /// Only events of streams of this type.
    #[must_use]
    pub fn stream_type(mut self, stream_type: impl Into<String>) -> Self {
        self.stream_type = Some(stream_type.into());
        self
    }

    /// Only events of this type.
    #[must_use]
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }
}

/// How wide a bucket of time is; each begins at a whole one in UTC, weeks on Mondays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Bucket {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week.
    Week,
}

impl Bucket {
    /// How long it is.
    pub fn width(self) -> Duration {
        Duration::from_secs(match self {
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
        })
    }

    pub(crate) fn micros(self) -> i64 {
        i64::try_from(self.width().as_micros()).unwrap_or(i64::MAX)
    }

    /// When the first one began, after 1970 (a Thursday).
    pub(crate) fn origin_micros(self) -> i64 {
        if self == Self::Week { 4 * 86_400 * 1_000_000 } else { 0 }
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// How many events.
    pub events: u64,
    /// In how many streams.
    pub streams: u64,
    /// The position of the last of them; 0 when there is none.
    pub last_position: u64,
    /// When the earliest was recorded.
    pub first_at: Option<DateTime<Utc>>,
    /// When the latest was.
    pub last_at: Option<DateTime<Utc>>,
}

/// How much there is of one event type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EventTypeTotals {
    /// The type.
    pub event_type: String,
    /// How many events.
    pub events: u64,
    /// In how many streams.
    pub streams: u64,
    /// When the earliest was recorded.
    pub first_at: DateTime<Utc>,
    /// When the latest was.
    pub last_at: DateTime<Utc>,
}

/// How much there is of one type of stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StreamTypeTotals {
    /// The type.
    pub stream_type: String,
    /// How many streams.
    pub streams: u64,
    /// How many events are in them.
    pub events: u64,
    /// The highest version of one of them.
    pub version_max: u64,
}

impl StreamTypeTotals {
    /// Events in a stream, on average.
    pub fn events_per_stream(&self) -> f64 {
        if self.streams == 0 { 0.0 } else { self.events as f64 / self.streams as f64 }
    }
}

/// How much there is of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StreamTotals {
    /// The stream.
    pub stream_id: StreamId,
    /// How many events.
    pub events: u64,
    /// The version of the last of them.
    pub version: u64,
    /// When the latest was recorded.
    pub last_at: DateTime<Utc>,
}

/// What was recorded in one bucket of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BucketTotals {
    /// When it begins.
    pub start: DateTime<Utc>,
    /// How many events.
    pub events: u64,
    /// In how many streams.
    pub streams: u64,
}

/// Answers questions about a log.
#[async_trait]
pub trait EventAnalytics: fmt::Debug + Send + Sync + 'static {
    /// What answers: `sqlite`, `postgres`, `clickhouse`.
    fn source(&self) -> &'static str;

    /// How much there is.
    ///
    /// # Errors
    /// `Unavailable` when the database is, as in all of these.
    async fn totals(&self, slice: &Slice) -> Result<Totals>;

    /// By event type, the most frequent first, `limit` at most.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    async fn by_event_type(&self, slice: &Slice, limit: u32) -> Result<Vec<EventTypeTotals>>;

    /// By type of stream, the one with the most events first, `limit` at most.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    async fn by_stream_type(&self, slice: &Slice, limit: u32) -> Result<Vec<StreamTypeTotals>>;

    /// The streams with the most events, `limit` at most.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    async fn busiest_streams(&self, slice: &Slice, limit: u32) -> Result<Vec<StreamTotals>>;

    /// The newest `limit` buckets in which anything was recorded, the earliest first.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    async fn over_time(
        &self,
        slice: &Slice,
        bucket: Bucket,
        limit: u32,
    ) -> Result<Vec<BucketTotals>>;
}

/// Answers from the log in `database`.
///
/// # Errors
/// `Unsupported` in memory: it has no SQL.
pub fn event_analytics(database: &Database) -> Result<impl EventAnalytics + Clone + use<>> {
    if database.engine() == Engine::Memory {
        let message = "the memory database takes no SQL: fold over the log instead";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(sql::SqlAnalytics::new(database.clone()))
}

/// The start of a bucket, as a time.
pub(crate) fn bucket_start(micros: i64) -> Result<DateTime<Utc>> {
    let none = || Error::new(ErrorKind::Corrupt, "a time in the log is out of range");
    DateTime::from_timestamp_micros(micros).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_begin_on_mondays() {
        let monday: DateTime<Utc> = "2026-11-23T00:00:00Z".parse().unwrap();
        let (width, origin) = (Bucket::Week.micros(), Bucket::Week.origin_micros());
        assert_eq!((monday.timestamp_micros() - origin) % width, 0);
    }
}
