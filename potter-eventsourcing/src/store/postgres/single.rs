//! The append of one event as one plain statement: the common case, without the cost of a
//! procedure.
//!
//! It answers only what went well. No row means that the stream was not as expected, a unique
//! violation that an event id was there: then `potter_append` is asked, which tells a repetition
//! from a conflict. Each part needs the row of the part before it, so the shared lock is held
//! before the head moves, and the head is moved before a position is taken.

use potter_core::{Row, SqlValue, values};

use crate::error::Result;
use crate::event::Appended;
use crate::store::append::Append;
use crate::store::rows::unsigned;

macro_rules! single {
    ($head:literal) => {
        concat!(
            "WITH lock AS MATERIALIZED (
                 SELECT pg_advisory_xact_lock_shared(1886352500, 'potter_events'::regclass::oid::integer)
             ), head AS (",
            $head,
            " RETURNING s.version)
             INSERT INTO potter_events
                 (stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
             SELECT $1, head.version, $3, $4, $5::bigint::integer, $6::json, $7::json, $8::bigint::smallint FROM head
             RETURNING version, global_position"
        )
    };
}

// $2 is the expected version; the unused ones keep the parameters the same for all.
const EXACT: &str = single!(
    "UPDATE potter_streams s SET version = s.version + 1 FROM lock WHERE s.stream_id = $1 AND s.version = $2::bigint"
);
const EXISTS: &str = single!(
    "UPDATE potter_streams s SET version = s.version + 1 FROM lock WHERE s.stream_id = $1 AND $2::bigint < 0"
);
const ANY: &str = single!(
    "INSERT INTO potter_streams AS s (stream_id, version) SELECT $1, 1 FROM lock WHERE $2::bigint < 0
     ON CONFLICT (stream_id) DO UPDATE SET version = s.version + 1"
);
const NEW: &str = single!(
    "INSERT INTO potter_streams AS s (stream_id, version) SELECT $1, 1 FROM lock WHERE $2::bigint <= 0
     ON CONFLICT (stream_id) DO NOTHING"
);

/// The statement for a group of one append of one event.
pub(super) fn statement(appends: &[Append]) -> Option<(&'static str, Vec<SqlValue>)> {
    let [append] = appends else { return None };
    let [new] = append.events.as_slice() else { return None };
    let expected = append.expected.code();
    let statement = match expected {
        -3 => EXISTS,
        -1 => ANY,
        -2 | 0 => NEW,
        _ => EXACT,
    };
    let values = values![
        append.stream.as_str(),
        expected,
        new.event.event_id,
        new.event.event_type.as_str(),
        new.event.schema_version,
        &new.event.payload,
        &new.metadata,
        i64::from(append.stream.segment()),
    ];
    Some((statement, values.to_vec()))
}

/// What it answered, if it appended.
pub(super) fn appended(rows: &[Row]) -> Result<Option<Appended>> {
    let Some(row) = rows.first() else { return Ok(None) };
    let version = unsigned(row, "version")?;
    let last_position = unsigned(row, "global_position")?;
    Ok(Some(Appended {
        first_version: version,
        last_version: version,
        last_position,
        duplicate: false,
    }))
}
