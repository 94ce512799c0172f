//! The statements that append: one for an append alone, three for a group.
//!
//! A group reads the heads and what is there of its event ids, decides (`plan`, pure), and
//! inserts. Rows travel as one JSON text: the number of statements does not grow with them.

use potter_core::{Json, SqlValue, Tx, values};
use serde_json::json;

use crate::error::Result;
use crate::event::Appended;
use crate::store::append::{Append, Prepared};
use crate::store::condition::{AppendCondition, Batch};
use crate::store::plan::{Insert, Known, KnownEvent, plan, plan_batch};
use crate::store::rows::{signed, unsigned};
use crate::stream_id::StreamId;

/// Inserts all or nothing: nothing when the version is not the expected one or an id is there.
pub(super) const ALONE: &str = "INSERT INTO potter_events
        (stream_id, version, event_id, event_type, schema_version, payload, metadata, tags, segment)
     SELECT $2, head.version + 1 + new.key, new.value ->> 0, new.value ->> 1, new.value ->> 2,
            new.value ->> 3, new.value ->> 4, new.value ->> 5, $3
     FROM (SELECT coalesce(max(version), 0) AS version FROM potter_events WHERE stream_id = $2) AS head
     CROSS JOIN json_each($1) AS new
     WHERE CASE $4 WHEN -1 THEN true WHEN -2 THEN head.version = 0 WHEN -3 THEN head.version > 0
                   ELSE head.version = $4 END
       AND NOT EXISTS (SELECT 1 FROM json_each($1) AS id
                       CROSS JOIN potter_events AS e ON e.event_id = id.value ->> 0)
     ORDER BY new.key
     RETURNING version, global_position";

const HEADS: &str = "SELECT NULL AS stream_id, seq AS version FROM sqlite_sequence WHERE name = 'potter_events'
     UNION ALL
     SELECT wanted.value,
            (SELECT coalesce(max(e.version), 0) FROM potter_events AS e WHERE e.stream_id = wanted.value)
     FROM json_each($1) AS wanted";

const SEEN: &str = "SELECT e.event_id, e.stream_id, e.version, e.global_position, e.event_type,
            e.schema_version, e.payload
     FROM json_each($1) AS wanted CROSS JOIN potter_events AS e ON e.event_id = wanted.value";

const INSERT: &str = "INSERT INTO potter_events
        (global_position, stream_id, version, segment, event_id, event_type, schema_version, payload, metadata, tags)
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
            value ->> 6, value ->> 7, value ->> 8, value ->> 9
     FROM json_each($1) ORDER BY key";

// By the index of tags where an item has one, else through the log behind the position.
const BROKEN: &str = "WITH item AS MATERIALIZED (
         SELECT value ->> '$.tags[0]' AS tag, value -> '$.tags' AS tags, value -> '$.types' AS types,
                json_array_length(value, '$.types') AS typed
         FROM json_each($1))
     SELECT min(position) AS position FROM (
         SELECT t.global_position AS position
         FROM item CROSS JOIN potter_event_tags AS t ON t.tag = item.tag AND t.global_position > $2
         WHERE (item.typed = 0 OR t.event_type IN (SELECT value FROM json_each(item.types)))
           AND NOT EXISTS (
               SELECT 1 FROM json_each(item.tags) AS other
               WHERE NOT EXISTS (SELECT 1 FROM potter_event_tags AS o
                                 WHERE o.tag = other.value AND o.global_position = t.global_position))
         UNION ALL
         SELECT e.global_position
         FROM item CROSS JOIN potter_events AS e ON item.tag IS NULL AND e.global_position > $2
         WHERE item.typed = 0 OR e.event_type IN (SELECT value FROM json_each(item.types)))
     WHERE position NOT IN (SELECT value FROM json_each($3))";

pub(super) fn alone_values(append: &Append) -> Result<Vec<SqlValue>> {
    let rows: Vec<_> = append
        .events
        .iter()
        .map(|Prepared { event, metadata, tags }| {
            json!([
                event.event_id.to_string(),
                event.event_type,
                event.schema_version,
                event.payload.as_str(),
                metadata.as_str(),
                tags.as_ref().map(Json::as_str),
            ])
        })
        .collect();
    Ok(values![
        Json::of(&rows)?,
        append.stream.as_str(),
        i32::from(append.stream.segment()),
        append.expected.code(),
    ]
    .to_vec())
}

pub(super) async fn append(tx: &mut Tx, appends: &[Append]) -> Result<Vec<Result<Appended>>> {
    let known = known(tx, appends).await?;
    let planned = plan(appends, known);
    insert(tx, &planned.inserts).await?;
    Ok(planned.answers)
}

/// An append to several streams, all or nothing.
pub(super) async fn append_batch(tx: &mut Tx, batch: &Batch) -> Result<Vec<Appended>> {
    let known = known(tx, &batch.appends).await?;
    let broken = broken(tx, &batch.condition).await?;
    let (answers, inserts) = plan_batch(batch, known, broken)?;
    insert(tx, &inserts).await?;
    Ok(answers)
}

/// The first event that breaks the condition.
async fn broken(tx: &mut Tx, condition: &AppendCondition) -> Result<Option<u64>> {
    if condition.is_none() {
        return Ok(None);
    }
    let values = values![
        Json::of(condition.query.items())?,
        signed(condition.after),
        Json::of(&condition.seen)?,
    ];
    let rows = tx.fetch_all(BROKEN, values).await?;
    Ok(rows
        .first()
        .map(|row| row.opt_i64("position"))
        .transpose()?
        .flatten()
        .map(i64::unsigned_abs))
}

async fn insert(tx: &mut Tx, inserts: &[Insert<'_>]) -> Result<()> {
    if !inserts.is_empty() {
        let rows: Vec<_> = inserts.iter().map(row).collect();
        tx.execute(INSERT, values![Json::of(&rows)?]).await?;
    }
    Ok(())
}

async fn known(tx: &mut Tx, appends: &[Append]) -> Result<Known> {
    let mut known = Known::default();
    let streams: Vec<_> = appends.iter().map(|append| append.stream.as_str()).collect();
    for row in tx.fetch_all(HEADS, values![Json::of(&streams)?]).await? {
        let version = unsigned(&row, "version")?;
        match row.opt_text("stream_id")? {
            Some(stream) => {
                known.heads.insert(StreamId::parse(stream)?, version);
            }
            None => known.last_position = version,
        }
    }
    let ids: Vec<_> = appends
        .iter()
        .flat_map(|append| &append.events)
        .map(|new| new.event.event_id.to_string())
        .collect();
    for row in tx.fetch_all(SEEN, values![Json::of(&ids)?]).await? {
        let event = KnownEvent {
            stream: StreamId::parse(row.text("stream_id")?)?,
            version: unsigned(&row, "version")?,
            global_position: unsigned(&row, "global_position")?,
            event_type: row.text("event_type")?,
            schema_version: u32::try_from(row.i64("schema_version")?).unwrap_or(0),
            payload: row.json("payload")?,
        };
        known.events.insert(row.uuid("event_id")?, event);
    }
    Ok(known)
}

fn row(insert: &Insert<'_>) -> serde_json::Value {
    let event = &insert.event.event;
    json!([
        insert.global_position,
        insert.stream.as_str(),
        insert.version,
        insert.stream.segment(),
        event.event_id.to_string(),
        event.event_type,
        event.schema_version,
        event.payload.as_str(),
        insert.event.metadata.as_str(),
        insert.event.tags.as_ref().map(Json::as_str),
    ])
}
