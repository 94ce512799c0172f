//! The append of one event as one plain statement: the common case, without the cost of a
//! procedure.
//!
//! It answers only what went well. No row means that the stream was not as expected, a unique
//! violation that an event id was there: then `potter_append` is asked, which tells a repetition
//! from a conflict. Each part needs the row of the part before it, so the shared lock is held
//! before the head moves, and the head is moved before a position is taken.

use potter_core::{Row, values};

use super::call::Call;
use super::locks::Locks;
use crate::error::Result;
use crate::event::Appended;
use crate::store::append::Append;
use crate::store::rows::unsigned;

macro_rules! single {
    ($lock:literal, $head:literal) => {
        concat!(
            "WITH lock AS MATERIALIZED (",
            $lock,
            "), head AS (",
            $head,
            " RETURNING s.version)
             INSERT INTO potter_events
                 (stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
             SELECT $1, head.version, $3, $4, $5::bigint::integer, $6::json, $7::json, $8::bigint::smallint FROM head
             RETURNING version, global_position"
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

// $2 is the expected version; the unused ones keep the parameters the same for all.
macro_rules! statements {
    ($lock:literal) => {
        Statements {
            exact: single!(
                $lock,
                "UPDATE potter_streams s SET version = s.version + 1 FROM lock
                 WHERE s.stream_id = $1 AND s.version = $2::bigint"
            ),
            exists: single!(
                $lock,
                "UPDATE potter_streams s SET version = s.version + 1 FROM lock
                 WHERE s.stream_id = $1 AND $2::bigint < 0"
            ),
            any: single!(
                $lock,
                "INSERT INTO potter_streams AS s (stream_id, version)
                 SELECT $1, 1 FROM lock WHERE $2::bigint < 0
                 ON CONFLICT (stream_id) DO UPDATE SET version = s.version + 1"
            ),
            new: single!(
                $lock,
                "INSERT INTO potter_streams AS s (stream_id, version)
                 SELECT $1, 1 FROM lock WHERE $2::bigint <= 0
                 ON CONFLICT (stream_id) DO NOTHING"
            ),
        }
    };
}

const ADVISORY: Statements = statements!(
    "SELECT pg_advisory_xact_lock_shared(1886352500, 'potter_events'::regclass::oid::integer)"
);
// The row whose turn it is, as in potter_lock_appends. In a SELECT of its own: the clock is read once.
const ROWS: Statements = statements!(
    "SELECT 1 FROM potter_append_locks l
     WHERE l.id = (SELECT (extract(epoch FROM clock_timestamp()) * 20)::bigint % 32) FOR SHARE"
);

/// The statement for a group of one append of one event without tags.
pub(super) fn statement(appends: &[Append], locks: Locks) -> Option<Call> {
    let [append] = appends else { return None };
    let [new] = append.events.as_slice() else { return None };
    if new.tags.is_some() {
        return None;
    }
    let statements = match locks {
        Locks::Advisory => ADVISORY,
        Locks::Rows => ROWS,
    };
    let expected = append.expected.code();
    let statement = match expected {
        -3 => statements.exists,
        -1 => statements.any,
        -2 | 0 => statements.new,
        _ => statements.exact,
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
