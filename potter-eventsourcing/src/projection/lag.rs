//! How far behind a projection is.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use potter_core::{Database, Engine, Sql, values};

use super::status::{ProjectionStatus, SegmentStatus};
use crate::SEGMENTS;
use crate::error::Result;
use crate::store::rows::{signed, unsigned};
use crate::store::{EventFilter, EventStore, SegmentSet};

// From the segment that is furthest behind on; those that were looked at by their own segment do
// not count.
const WAITING: Sql = Sql::same(
    "SELECT count(*) AS waiting, min(recorded_at) AS oldest FROM (
         SELECT e.recorded_at FROM potter_events e
         JOIN potter_projection_segments s ON s.projection = $1 AND s.segment = e.segment / $2
         WHERE e.global_position > $3 AND e.global_position > s.position
         ORDER BY e.global_position LIMIT $4) AS waiting",
);

/// The events that wait, and the oldest one's time.
pub(super) async fn waiting(
    store: &dyn EventStore,
    database: Option<&Database>,
    projection: &str,
    segments: &[SegmentStatus],
) -> Result<(u64, Option<DateTime<Utc>>)> {
    let max = ProjectionStatus::LAG_EVENTS_MAX;
    let Some(lowest) = segments.iter().map(|segment| segment.position).min() else {
        return Ok((0, None));
    };
    let count = u16::try_from(segments.len()).unwrap_or(SEGMENTS).max(1);
    let width = i64::from(SEGMENTS / count);
    let Some(database) = database else {
        return waiting_by_segments(store, segments, count).await;
    };
    if database.engine() != Engine::Memory {
        let values = values![projection, width, signed(lowest), signed(max)];
        let rows = database.read(WAITING, values).await?;
        let Some(row) = rows.first() else { return Ok((0, None)) };
        return Ok((unsigned(row, "waiting")?, row.opt_time("oldest")?));
    }
    let page = store.read_page(lowest, &EventFilter::all(), max).await?;
    let behind = page.events.iter().filter(|event| {
        let segment = event.stream_id.segment() / (SEGMENTS / count);
        segments.iter().any(|one| one.segment == segment && one.position < event.global_position)
    });
    let times: Vec<_> = behind.map(|event| event.recorded_at).collect();
    Ok((times.len() as u64, times.into_iter().min()))
}

/// By the store's own counting: once for each position that segments are at.
async fn waiting_by_segments(
    store: &dyn EventStore,
    segments: &[SegmentStatus],
    count: u16,
) -> Result<(u64, Option<DateTime<Utc>>)> {
    let mut at: BTreeMap<u64, Vec<u16>> = BTreeMap::new();
    for segment in segments {
        at.entry(segment.position).or_default().push(segment.segment);
    }
    let head = store.head_position().await?;
    let (mut waiting, mut oldest) = (0, None);
    for (position, members) in at {
        let filter = EventFilter::all().segments(SegmentSet::new(count, members)?);
        waiting += store.count(position, head, &filter).await?;
        let first = store.read_page(position, &filter, 1).await?;
        let first = first.events.first().map(|event| event.recorded_at);
        oldest = oldest.into_iter().chain(first).min();
    }
    Ok((waiting.min(ProjectionStatus::LAG_EVENTS_MAX), oldest))
}
