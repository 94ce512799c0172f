//! Questions about the history, answered by the mirror.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ClickHouse;
use crate::analytics::{
    Bucket, BucketTotals, EventAnalytics, EventTypeTotals, Slice, StreamTotals, StreamTypeTotals,
    Totals, bucket_start,
};
use crate::error::Result;
use crate::stream_id::StreamId;

#[derive(Clone, Debug)]
pub(super) struct ClickHouseAnalytics(ClickHouse);

/// The columns that the questions have; times are microseconds since 1970.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    event_type: String,
    stream_type: String,
    stream_id: String,
    events: u64,
    streams: u64,
    version_max: u64,
    last_position: u64,
    first_at: i64,
    last_at: i64,
    start: i64,
}

const FIRST_AT: &str = "toUnixTimestamp64Micro(min(recorded_at)) AS first_at";
const LAST_AT: &str = "toUnixTimestamp64Micro(max(recorded_at)) AS last_at";

impl ClickHouseAnalytics {
    pub(super) fn new(clickhouse: ClickHouse) -> Self {
        Self(clickhouse)
    }

    /// `what` of the slice, `rest` behind its condition.
    async fn ask<T: DeserializeOwned>(
        &self,
        what: &str,
        slice: &Slice,
        rest: &str,
    ) -> Result<Vec<T>> {
        let mut parameters = vec![
            ("after", slice.after.to_string()),
            ("until", slice.until.unwrap_or(u64::MAX).to_string()),
        ];
        let mut condition =
            "global_position > {after:UInt64} AND global_position <= {until:UInt64}".to_owned();
        if let Some(event_type) = &slice.event_type {
            condition.push_str(" AND event_type = {event_type:String}");
            parameters.push(("event_type", event_type.clone()));
        }
        if let Some(stream_type) = &slice.stream_type {
            condition.push_str(" AND stream_type = {stream_type:String}");
            parameters.push(("stream_type", stream_type.clone()));
        }
        let statement = format!("SELECT {what} FROM {{events}} WHERE {condition} {rest}");
        self.0.read(&statement, &parameters).await
    }
}

fn time(micros: i64) -> Result<DateTime<Utc>> {
    bucket_start(micros)
}

#[async_trait]
impl EventAnalytics for ClickHouseAnalytics {
    fn source(&self) -> &'static str {
        "clickhouse"
    }

    async fn totals(&self, slice: &Slice) -> Result<Totals> {
        let what = format!(
            "count() AS events, uniqExact(stream_id) AS streams,
             max(global_position) AS last_position, {FIRST_AT}, {LAST_AT}"
        );
        let rows: Vec<Row> = self.ask(&what, slice, "").await?;
        let Some(row) = rows.first().filter(|row| row.events > 0) else {
            return Ok(Totals::default());
        };
        Ok(Totals {
            events: row.events,
            streams: row.streams,
            last_position: row.last_position,
            first_at: Some(time(row.first_at)?),
            last_at: Some(time(row.last_at)?),
        })
    }

    async fn by_event_type(&self, slice: &Slice, limit: u32) -> Result<Vec<EventTypeTotals>> {
        let what = format!(
            "event_type, count() AS events, uniqExact(stream_id) AS streams, {FIRST_AT}, {LAST_AT}"
        );
        let rest = format!("GROUP BY event_type ORDER BY events DESC, event_type LIMIT {limit}");
        let rows: Vec<Row> = self.ask(&what, slice, &rest).await?;
        rows.into_iter()
            .map(|row| {
                Ok(EventTypeTotals {
                    event_type: row.event_type,
                    events: row.events,
                    streams: row.streams,
                    first_at: time(row.first_at)?,
                    last_at: time(row.last_at)?,
                })
            })
            .collect()
    }

    async fn by_stream_type(&self, slice: &Slice, limit: u32) -> Result<Vec<StreamTypeTotals>> {
        let what = "stream_type, count() AS events, uniqExact(stream_id) AS streams,
             max(version) AS version_max";
        let rest = format!("GROUP BY stream_type ORDER BY events DESC, stream_type LIMIT {limit}");
        let rows: Vec<Row> = self.ask(what, slice, &rest).await?;
        let totals = |row: Row| StreamTypeTotals {
            stream_type: row.stream_type,
            streams: row.streams,
            events: row.events,
            version_max: row.version_max,
        };
        Ok(rows.into_iter().map(totals).collect())
    }

    async fn busiest_streams(&self, slice: &Slice, limit: u32) -> Result<Vec<StreamTotals>> {
        let what = format!("stream_id, count() AS events, max(version) AS version_max, {LAST_AT}");
        let rest = format!("GROUP BY stream_id ORDER BY events DESC, stream_id LIMIT {limit}");
        let rows: Vec<Row> = self.ask(&what, slice, &rest).await?;
        rows.into_iter()
            .map(|row| {
                Ok(StreamTotals {
                    stream_id: StreamId::parse(row.stream_id)?,
                    events: row.events,
                    version: row.version_max,
                    last_at: time(row.last_at)?,
                })
            })
            .collect()
    }

    async fn over_time(
        &self,
        slice: &Slice,
        bucket: Bucket,
        limit: u32,
    ) -> Result<Vec<BucketTotals>> {
        let (width, origin) = (bucket.micros(), bucket.origin_micros());
        let what = format!(
            "intDiv(toUnixTimestamp64Micro(recorded_at) - {origin}, {width}) * {width} + {origin} AS start,
             count() AS events, uniqExact(stream_id) AS streams"
        );
        let rest = format!("GROUP BY start ORDER BY start DESC LIMIT {limit}");
        let rows: Vec<Row> = self.ask(&what, slice, &rest).await?;
        let totals = |row: &Row| {
            let (events, streams) = (row.events, row.streams);
            Ok(BucketTotals { start: bucket_start(row.start)?, events, streams })
        };
        rows.iter().rev().map(totals).collect()
    }
}
