//! How far behind a projection is.

use chrono::{DateTime, Utc};
use potter_core::{Database, Engine, Sql, values};

use super::status::{ProjectionStatus, SegmentStatus};
use crate::SEGMENTS;
use crate::error::Result;
use crate::store::rows::{signed, unsigned};
use crate::store::{EventFilter, EventStore};

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
    database: &Database,
    projection: &str,
    segments: &[SegmentStatus],
) -> Result<(u64, Option<DateTime<Utc>>)> {
    let max = ProjectionStatus::LAG_EVENTS_MAX;
    let Some(lowest) = segments.iter().map(|segment| segment.position).min() else {
        return Ok((0, None));
    };
    let count = u16::try_from(segments.len()).unwrap_or(SEGMENTS).max(1);
    let width = i64::from(SEGMENTS / count);
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
