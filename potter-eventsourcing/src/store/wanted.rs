//! Reading what a filter wants.

use std::collections::BTreeSet;

use potter_core::{Database, Json, Sql, values};

use super::filter::{EventFilter, GROUPS, SegmentSet};
use super::rows::{columns, recorded, signed};
use crate::error::Result;
use crate::event::RecordedEvent;

// What a filter does not name is NULL. $1 and $2: above which position, up to which. $3: groups of
// segments. $8 and $9: segments that are finer than groups. $11: the items of a query.
macro_rules! rest {
    (sqlite) => {
        " AND ($4 IS NULL OR event_type IN (SELECT value FROM json_each($4)))
          AND ($5 IS NULL OR substr(stream_id, 1, instr(stream_id, '-') - 1) IN (SELECT value FROM json_each($5)))
          AND ($6 IS NULL OR (instr($6, '-') = 0 AND substr(stream_id, 1, length($6) + 1) = $6 || '.'))
          AND ($7 IS NULL OR metadata ->> '$.tenant' = $7)
          AND ($8 IS NULL OR segment / $9 IN (SELECT value FROM json_each($8)))"
    };
    (postgres) => {
        " AND ($4::text IS NULL OR event_type = ANY (ARRAY(SELECT json_array_elements_text($4::json))))
          AND ($5::text IS NULL OR split_part(stream_id, '-', 1) = ANY (ARRAY(SELECT json_array_elements_text($5::json))))
          AND ($6::text IS NULL OR (strpos($6, '-') = 0 AND starts_with(stream_id, $6 || '.')))
          AND ($7::text IS NULL OR metadata ->> 'tenant' = $7)
          AND ($8::text IS NULL OR segment / $9 = ANY (ARRAY(SELECT json_array_elements_text($8::json)::bigint)))"
    };
}

macro_rules! wanted {
    ($engine:ident, $which:expr) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM potter_events WHERE global_position > $1 AND global_position <= $2",
            $which,
            rest!($engine),
            " ORDER BY global_position LIMIT $10"
        )
    };
}

const BY_POSITION: Sql =
    Sql::new(wanted!(sqlite, " AND $3 IS NULL"), wanted!(postgres, " AND $3::text IS NULL"));

// With the groups of segments both ends of the window are in the index (segment >> 6,
// global_position). On PostgreSQL each group by itself: with a list of groups it reads all of the
// window by the primary key, as that is in order, and leaves out what is not wanted.
const BY_GROUPS: Sql = Sql::new(
    wanted!(sqlite, " AND (segment >> 6) IN (SELECT value FROM json_each($3))"),
    concat!(
        "SELECT ",
        columns!(),
        " FROM (SELECT json_array_elements_text($3::json)::smallint AS wanted) AS of
          CROSS JOIN LATERAL (
              SELECT * FROM potter_events
              WHERE (segment >> 6) = of.wanted AND global_position > $1 AND global_position <= $2",
        rest!(postgres),
        " ORDER BY global_position LIMIT $10) AS event ORDER BY global_position LIMIT $10"
    ),
);

// Each item by its first tag, from the index (tag, global_position).
const BY_TAGS: Sql = Sql::new(
    wanted!(
        sqlite,
        " AND global_position IN (
              SELECT t.global_position
              FROM json_each($11) AS item
              CROSS JOIN potter_event_tags AS t
                  ON t.tag = item.value ->> '$.tags[0]' AND t.global_position > $1 AND t.global_position <= $2
              WHERE (json_array_length(item.value, '$.types') = 0
                     OR t.event_type IN (SELECT value FROM json_each(item.value, '$.types')))
                AND NOT EXISTS (
                    SELECT 1 FROM json_each(item.value, '$.tags') AS other
                    WHERE NOT EXISTS (SELECT 1 FROM potter_event_tags AS o
                                      WHERE o.tag = other.value AND o.global_position = t.global_position)))
          AND ($3 IS NULL OR (segment >> 6) IN (SELECT value FROM json_each($3)))"
    ),
    wanted!(
        postgres,
        " AND global_position IN (
              SELECT t.global_position
              FROM json_array_elements($11::json) AS item (value)
              CROSS JOIN LATERAL (
                  SELECT e.global_position, e.event_type FROM potter_event_tags AS e
                  WHERE e.tag = item.value #>> '{tags,0}' AND e.global_position > $1 AND e.global_position <= $2) AS t
              WHERE (json_array_length(item.value -> 'types') = 0
                     OR t.event_type = ANY (ARRAY(SELECT json_array_elements_text(item.value -> 'types'))))
                AND NOT EXISTS (
                    SELECT 1 FROM json_array_elements_text(item.value -> 'tags') AS other (tag)
                    WHERE NOT EXISTS (SELECT 1 FROM potter_event_tags AS o
                                      WHERE o.tag = other.tag AND o.global_position = t.global_position)))
          AND ($3::text IS NULL OR (segment >> 6) = ANY (ARRAY(SELECT json_array_elements_text($3::json)::smallint)))"
    ),
);

/// What the filter wants of the positions above `after`, up to and with `until`. A query with an
/// item without a tag may let too much through: [`EventFilter::matches`] is for the caller to ask.
pub(crate) async fn page(
    database: &Database,
    (after, until): (u64, u64),
    filter: &EventFilter,
    limit: u64,
) -> Result<Vec<RecordedEvent>> {
    let query = filter.query.as_ref();
    let tagged = query.filter(|query| query.is_tagged());
    let query_types = query.filter(|query| !query.is_tagged()).and_then(|query| query.types());
    let types = filter.event_types.as_ref().or(query_types.as_ref());
    let groups = filter.segments.as_ref().map(SegmentSet::groups);
    let groups = groups.filter(|groups| groups.len() < usize::from(GROUPS));
    let finer = filter.segments.as_ref().filter(|segments| segments.is_finer_than_groups());
    let json = |set: Option<&BTreeSet<String>>| set.map(Json::of).transpose();
    let mut values = values![
        signed(after),
        signed(until),
        groups.as_ref().map(Json::of).transpose()?,
        json(types)?,
        json(filter.stream_types.as_ref())?,
        filter.context.clone(),
        filter.tenant.clone(),
        finer.map(|set| Json::of(&set.members().collect::<Vec<_>>())).transpose()?,
        finer.map_or(1, |set| i64::from(crate::SEGMENTS / set.count())),
        signed(limit),
    ]
    .to_vec();
    let statement = match (tagged, groups) {
        (Some(query), _) => {
            values.push(Json::of(query.items())?.into());
            BY_TAGS
        }
        (None, Some(_)) => BY_GROUPS,
        (None, None) => BY_POSITION,
    };
    database.read(statement, &values).await?.iter().map(recorded).collect()
}

/// Pages through the windows that are final, wider and wider until something is found.
pub(crate) async fn filtered(
    database: &Database,
    after: u64,
    safe: u64,
    filter: &EventFilter,
    limit: u64,
) -> Result<(Vec<RecordedEvent>, u64)> {
    const WINDOW_MIN: u64 = 1024;
    const WINDOWS: u32 = 8;
    let groups =
        filter.segments.as_ref().map_or(u64::from(GROUPS), |set| set.groups().len() as u64);
    if groups == 0 {
        return Ok((Vec::new(), safe.max(after)));
    }
    let query = filter.query.as_ref();
    let tagged = query.is_some_and(|query| query.is_tagged());
    // An index finds what has a tag, however few of the log that are.
    let (growth, window_max) = if tagged { (16, u64::MAX) } else { (4, 1 << 18) };
    let spread = limit.saturating_mul(u64::from(GROUPS)) / groups;
    let mut window = spread.clamp(WINDOW_MIN, 1 << 18);
    let mut after = after;
    for _ in 0..WINDOWS {
        if after >= safe {
            break;
        }
        let until = safe.min(after.saturating_add(window));
        let mut events = page(database, (after, until), filter, limit).await?;
        let full = events.len() as u64 >= limit;
        let last = events.last().map_or(until, |event| event.global_position);
        after = if full { last } else { until };
        if query.is_some() && !tagged {
            events.retain(|event| filter.matches(event));
        }
        if full || !events.is_empty() {
            return Ok((events, after));
        }
        window = window.saturating_mul(growth).min(window_max);
    }
    Ok((Vec::new(), after))
}
