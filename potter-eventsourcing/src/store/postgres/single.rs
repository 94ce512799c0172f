//! The append to one stream as one plain statement: the common case, without the cost of a
//! procedure.
//!
//! It answers only what went well. No row means that the stream was not as expected, a unique
//! violation that an event id was there: then `potter_append` is asked, which tells a repetition
//! from a conflict. Each part needs the row of the part before it, so the shared lock is held
//! before the head moves, and the head is moved before a position is taken.

use potter_core::{Row, values};

use super::call::{Call, arrays};
use super::locks::Locks;
use crate::error::Result;
use crate::event::Appended;
use crate::store::append::Append;
use crate::store::rows::{signed, unsigned};

/// One event, or as many as the arrays have, in their order.
macro_rules! single {
    (one, $lock:literal, $head:literal) => {
        concat!(
            "WITH lock AS MATERIALIZED (",
            $lock,
            "), head AS (",
            $head,
            " RETURNING s.version)
             INSERT INTO potter_events
                 (stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
             SELECT $1, head.version, $5, $6, $7::bigint::integer, $8::json, $9::json, $4::bigint::smallint
             FROM head
             RETURNING version, global_position"
        )
    };
    (many, $lock:literal, $head:literal) => {
        concat!(
            "WITH lock AS MATERIALIZED (",
            $lock,
            "), head AS (",
            $head,
            " RETURNING s.version), inserted AS (
                 INSERT INTO potter_events
                     (stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
                 SELECT $1, head.version - $3::bigint + n.ordinal, n.event_id, n.event_type,
                        n.schema_version, n.payload::json, n.metadata::json, $4::bigint::smallint
                 FROM head CROSS JOIN
                      unnest($5::uuid[], $6::text[], $7::integer[], $8::text[], $9::text[])
                      WITH ORDINALITY
                      AS n (event_id, event_type, schema_version, payload, metadata, ordinal)
                 ORDER BY n.ordinal
                 RETURNING version, global_position)
             SELECT max(version) AS version, max(global_position) AS global_position
             FROM inserted HAVING count(*) > 0"
        )
    };
}

/// The statements for each kind of expected version.
struct Statements {
    exact: &'static str,
    exists: &'static str,
    any: &'static str,
    new: &'static str,
}

// $2 is the expected version, $3 the number of events; the unused ones keep the parameters the same
// for all.
macro_rules! statements {
    ($events:ident, $lock:literal) => {
        Statements {
            exact: single!(
                $events,
                $lock,
                "UPDATE potter_streams s SET version = s.version + $3::bigint FROM lock
                 WHERE s.stream_id = $1 AND s.version = $2::bigint"
            ),
            exists: single!(
                $events,
                $lock,
                "UPDATE potter_streams s SET version = s.version + $3::bigint FROM lock
                 WHERE s.stream_id = $1 AND $2::bigint < 0"
            ),
            any: single!(
                $events,
                $lock,
                "INSERT INTO potter_streams AS s (stream_id, version)
                 SELECT $1, $3::bigint FROM lock WHERE $2::bigint < 0
                 ON CONFLICT (stream_id) DO UPDATE SET version = s.version + excluded.version"
            ),
            new: single!(
                $events,
                $lock,
                "INSERT INTO potter_streams AS s (stream_id, version)
                 SELECT $1, $3::bigint FROM lock WHERE $2::bigint <= 0
                 ON CONFLICT (stream_id) DO NOTHING"
            ),
        }
    };
    ($lock:literal) => {
        [statements!(one, $lock), statements!(many, $lock)]
    };
}

const ADVISORY: [Statements; 2] = statements!(
    "SELECT pg_advisory_xact_lock_shared(1886352500, 'potter_events'::regclass::oid::integer)"
);
// The row whose turn it is, as in potter_lock_appends. In a SELECT of its own: the clock is read once.
const ROWS: [Statements; 2] = statements!(
    "SELECT 1 FROM potter_append_locks l
     WHERE l.id = (SELECT (extract(epoch FROM clock_timestamp()) * 20)::bigint % 32) FOR SHARE"
);

/// The statement for a group of one append without tags.
pub(super) fn statement(appends: &[Append], locks: Locks) -> Option<Call> {
    let [append] = appends else { return None };
    if append.is_tagged() {
        return None;
    }
    let [one, many] = match locks {
        Locks::Advisory => ADVISORY,
        Locks::Rows => ROWS,
    };
    let statements = if append.events.len() == 1 { one } else { many };
    let expected = append.expected.code();
    let statement = match expected {
        -3 => statements.exists,
        -1 => statements.any,
        -2 | 0 => statements.new,
        _ => statements.exact,
    };
    let mut values = values![
        append.stream.as_str(),
        expected,
        signed(append.events.len() as u64),
        i64::from(append.stream.segment()),
    ]
    .to_vec();
    match append.events.as_slice() {
        [new] => values.extend_from_slice(values![
            new.event.event_id,
            new.event.event_type.as_str(),
            new.event.schema_version,
            &new.event.payload,
            &new.metadata,
        ]),
        events => values.extend(arrays(events.iter())),
    }
    Some((statement, values))
}

/// What it answered, if it appended.
pub(super) fn appended(appends: &[Append], rows: &[Row]) -> Result<Option<Appended>> {
    let ([append], Some(row)) = (appends, rows.first()) else { return Ok(None) };
    let last_version = unsigned(row, "version")?;
    Ok(Some(Appended {
        first_version: last_version + 1 - append.events.len() as u64,
        last_version,
        last_position: unsigned(row, "global_position")?,
        duplicate: false,
    }))
}
