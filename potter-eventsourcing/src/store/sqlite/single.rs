//! The append of one event: the common case, with two statements.
//!
//! It answers only what went well. A head that is not as expected, or an event id that is there
//! already, is left to the way for groups, which tells a repetition from a conflict; what was moved
//! until then is moved back.

use potter_core::{Tx, values};

use crate::error::Result;
use crate::event::Appended;
use crate::store::append::Append;
use crate::store::rows::unsigned;

const EXACT: &str = "UPDATE potter_streams SET version = version + 1
     WHERE stream_id = $1 AND version = $2 RETURNING version";
const EXISTS: &str = "UPDATE potter_streams SET version = version + 1
     WHERE stream_id = $1 AND $2 < 0 RETURNING version";
const ANY: &str = "INSERT INTO potter_streams (stream_id, version) SELECT $1, 1 WHERE $2 < 0
     ON CONFLICT (stream_id) DO UPDATE SET version = version + 1 RETURNING version";
const NEW: &str = "INSERT INTO potter_streams (stream_id, version) SELECT $1, 1 WHERE $2 <= 0
     ON CONFLICT (stream_id) DO NOTHING RETURNING version";

// No row when the id is there: the caller's transaction goes on either way.
const EVENT: &str = "INSERT INTO potter_events
         (stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
     SELECT $1, $2, $3, $4, $5, $6, $7, $8
     WHERE NOT EXISTS (SELECT 1 FROM potter_events WHERE event_id = $3)
     RETURNING global_position";

const BACK: &str = "UPDATE potter_streams SET version = version - 1 WHERE stream_id = $1";
const FORGET: &str = "DELETE FROM potter_streams WHERE stream_id = $1 AND version = 0";

/// Appends a group of one append of one event, if it is one and nothing is in its way.
pub(super) async fn append(tx: &mut Tx, appends: &[Append]) -> Result<Option<Appended>> {
    let [append] = appends else { return Ok(None) };
    let [new] = append.events.as_slice() else { return Ok(None) };
    let expected = append.expected.code();
    let move_head = match expected {
        -3 => EXISTS,
        -1 => ANY,
        -2 | 0 => NEW,
        _ => EXACT,
    };
    let stream = append.stream.as_str();
    let Some(head) = tx.fetch_optional(move_head, values![stream, expected]).await? else {
        return Ok(None);
    };
    let version = unsigned(&head, "version")?;
    let inserted = tx
        .fetch_optional(
            EVENT,
            values![
                stream,
                head.i64("version")?,
                new.event.event_id,
                new.event.event_type.as_str(),
                new.event.schema_version,
                &new.event.payload,
                &new.metadata,
                i64::from(append.stream.segment()),
            ],
        )
        .await?;
    let Some(row) = inserted else {
        tx.execute(BACK, values![stream]).await?;
        tx.execute(FORGET, values![stream]).await?;
        return Ok(None);
    };
    let last_position = unsigned(&row, "global_position")?;
    Ok(Some(Appended {
        first_version: version,
        last_version: version,
        last_position,
        duplicate: false,
    }))
}
