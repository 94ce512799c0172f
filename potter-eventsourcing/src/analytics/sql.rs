//! On SQLite and PostgreSQL, from the log itself.

use async_trait::async_trait;
use potter_core::{Database, Engine, Row, Sql, SqlValue, values};

use super::{
    Bucket, BucketTotals, EventAnalytics, EventTypeTotals, Slice, StreamTotals, StreamTypeTotals,
    Totals, bucket_start,
};
use crate::error::Result;
use crate::store::rows::{signed, unsigned};
use crate::stream_id::StreamId;

#[derive(Clone, Debug)]
pub(super) struct SqlAnalytics {
    database: Database,
}

/// The slice is $1 to $4.
macro_rules! from_slice {
    ($what:literal, $stream_type:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM (SELECT global_position, stream_id, version, event_type, recorded_at, ",
            $stream_type,
            " AS stream_type FROM potter_events
               WHERE global_position > $1 AND global_position <= $2) AS e
             WHERE ($3 IS NULL OR event_type = $3) AND ($4 IS NULL OR stream_type = $4) ",
            $rest
        )
    };
}

macro_rules! statement {
    ($what:literal, $rest:literal) => {
        Sql::new(
            from_slice!($what, "substr(stream_id, 1, instr(stream_id, '-') - 1)", $rest),
            from_slice!($what, "split_part(stream_id, '-', 1)", $rest),
        )
    };
}

const TOTALS: Sql = statement!(
    "count(*) AS events, count(DISTINCT stream_id) AS streams,
     coalesce(max(global_position), 0) AS last_position,
     min(recorded_at) AS first_at, max(recorded_at) AS last_at",
    ""
);
const BY_EVENT_TYPE: Sql = statement!(
    "event_type, count(*) AS events, count(DISTINCT stream_id) AS streams,
     min(recorded_at) AS first_at, max(recorded_at) AS last_at",
    "GROUP BY event_type ORDER BY events DESC, event_type LIMIT $5"
);
const BY_STREAM_TYPE: Sql = statement!(
    "stream_type, count(DISTINCT stream_id) AS streams, count(*) AS events,
     max(version) AS version_max",
    "GROUP BY stream_type ORDER BY events DESC, stream_type LIMIT $5"
);
const BUSIEST: Sql = statement!(
    "stream_id, count(*) AS events, max(version) AS version, max(recorded_at) AS last_at",
    "GROUP BY stream_id ORDER BY events DESC, stream_id LIMIT $5"
);
const OVER_TIME: Sql = Sql::new(
    from_slice!(
        "(recorded_at - $6) / $5 * $5 + $6 AS start, count(*) AS events,
         count(DISTINCT stream_id) AS streams",
        "substr(stream_id, 1, instr(stream_id, '-') - 1)",
        "GROUP BY 1 ORDER BY 1 DESC LIMIT $7"
    ),
    from_slice!(
        "((extract(epoch FROM recorded_at) * 1000000)::bigint - $6) / $5 * $5 + $6 AS start,
         count(*) AS events, count(DISTINCT stream_id) AS streams",
        "split_part(stream_id, '-', 1)",
        "GROUP BY 1 ORDER BY 1 DESC LIMIT $7"
    ),
);

impl SqlAnalytics {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    async fn read(&self, statement: Sql, slice: &Slice, more: &[SqlValue]) -> Result<Vec<Row>> {
        let (after, until) = (signed(slice.after), signed(slice.until.unwrap_or(u64::MAX)));
        let (event_type, stream_type) = (slice.event_type.clone(), slice.stream_type.clone());
        let mut values = values![after, until, event_type, stream_type].to_vec();
        values.extend_from_slice(more);
        Ok(self.database.read(statement, &values).await?)
    }
}

#[async_trait]
impl EventAnalytics for SqlAnalytics {
    fn source(&self) -> &'static str {
        if self.database.engine() == Engine::Sqlite { "sqlite" } else { "postgres" }
    }

    async fn totals(&self, slice: &Slice) -> Result<Totals> {
        let rows = self.read(TOTALS, slice, &[]).await?;
        let Some(row) = rows.first() else { return Ok(Totals::default()) };
        Ok(Totals {
            events: unsigned(row, "events")?,
            streams: unsigned(row, "streams")?,
            last_position: unsigned(row, "last_position")?,
            first_at: row.opt_time("first_at")?,
            last_at: row.opt_time("last_at")?,
        })
    }

    async fn by_event_type(&self, slice: &Slice, limit: u32) -> Result<Vec<EventTypeTotals>> {
        let rows = self.read(BY_EVENT_TYPE, slice, values![limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(EventTypeTotals {
                    event_type: row.text("event_type")?,
                    events: unsigned(row, "events")?,
                    streams: unsigned(row, "streams")?,
                    first_at: row.time("first_at")?,
                    last_at: row.time("last_at")?,
                })
            })
            .collect()
    }

    async fn by_stream_type(&self, slice: &Slice, limit: u32) -> Result<Vec<StreamTypeTotals>> {
        let rows = self.read(BY_STREAM_TYPE, slice, values![limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(StreamTypeTotals {
                    stream_type: row.text("stream_type")?,
                    streams: unsigned(row, "streams")?,
                    events: unsigned(row, "events")?,
                    version_max: unsigned(row, "version_max")?,
                })
            })
            .collect()
    }

    async fn busiest_streams(&self, slice: &Slice, limit: u32) -> Result<Vec<StreamTotals>> {
        let rows = self.read(BUSIEST, slice, values![limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(StreamTotals {
                    stream_id: StreamId::parse(row.text("stream_id")?)?,
                    events: unsigned(row, "events")?,
                    version: unsigned(row, "version")?,
                    last_at: row.time("last_at")?,
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
        let more = values![bucket.micros(), bucket.origin_micros(), limit];
        let rows = self.read(OVER_TIME, slice, more).await?;
        let bucket = |row: &Row| {
            Ok(BucketTotals {
                start: bucket_start(row.i64("start")?)?,
                events: unsigned(row, "events")?,
                streams: unsigned(row, "streams")?,
            })
        };
        rows.iter().rev().map(bucket).collect()
    }
}
