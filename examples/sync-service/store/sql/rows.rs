//! Rows to values and back.

use potter_core::{Error, ErrorKind, Result, Row};

use crate::document::Kind;
use crate::protocol::Position;
use crate::store::{Entity, EntityKey, Identity, LogEntry, Notes, Replica, User};

/// All numbers here are below 2^63.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn uint(row: &Row, column: &str) -> Result<u64> {
    let number = row.i64(column)?;
    u64::try_from(number).map_err(|_| corrupt(format!("column {column} is negative")))
}

pub(super) fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what.into())
}

fn position(row: &Row, seq: &str, mark: &str) -> Result<Position> {
    Ok(Position { seq: uint(row, seq)?, mark: uint(row, mark)? })
}

pub(super) fn user(row: &Row) -> Result<User> {
    Ok(User {
        user_id: row.text("user_id")?,
        version: uint(row, "version")?,
        epoch: row.text("epoch")?,
        head: position(row, "head", "head_mark")?,
        horizon: position(row, "horizon", "horizon_mark")?,
    })
}

pub(super) fn notes(notes: &Notes) -> String {
    serde_json::to_string(notes).unwrap_or_else(|_| "{}".to_owned())
}

pub(super) fn replica(row: &Row) -> Result<Replica> {
    let notes = serde_json::from_str(&row.text("notes")?)
        .map_err(|error| corrupt(format!("column notes can't be read: {error}")))?;
    Ok(Replica {
        device_id: row.text("device_id")?,
        incarnation: uint(row, "incarnation")?,
        registered_at: row.time("registered_at")?,
        last_seen: row.time("last_seen")?,
        acked: uint(row, "acked")?,
        last_sequence: uint(row, "last_sequence")?,
        retired: row.bool("retired")?,
        notes,
    })
}

pub(super) fn kind(row: &Row) -> Result<Kind> {
    let name = row.text("kind")?;
    Kind::parse(&name).ok_or_else(|| corrupt(format!("there is no CRDT {name}")))
}

pub(super) fn key(row: &Row) -> Result<EntityKey> {
    Ok(EntityKey { entity_type: row.text("entity_type")?, entity_id: row.text("entity_id")? })
}

pub(super) fn entity(row: &Row) -> Result<Entity> {
    Ok(Entity {
        key: key(row)?,
        kind: kind(row)?,
        state: row.bytes("state")?,
        seq: uint(row, "seq")?,
        updated_at: row.time("updated_at")?,
    })
}

pub(super) fn log_entry(row: &Row) -> Result<LogEntry> {
    Ok(LogEntry {
        position: position(row, "seq", "mark")?,
        key: key(row)?,
        kind: kind(row)?,
        device_id: row.text("device_id")?,
        delta: row.bytes("delta")?,
        at: row.time("at")?,
    })
}

pub(super) fn identity(row: &Row) -> Result<Identity> {
    Ok(Identity {
        scope: row.text("scope")?,
        id: row.text("id")?,
        hash: row.bytes("hash")?,
        answer: row.text("answer")?,
    })
}
