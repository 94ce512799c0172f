//! The transactional outbox: messages are written in the transaction of the change that they
//! tell of, and a relay hands them to a message bus.
//!
//! # Invariants
//! 1. A message is published if and only if its transaction committed: at least once.
//! 2. Messages of one aggregate are published in the order of their `seq`, as long as the
//!    writers of that aggregate are serialised (by its version or a row lock), as they are when
//!    it is event sourced: enqueue after the statement that serialises them. Between aggregates
//!    there is no order. A repetition (below) may come after later messages.
//!
//! Sequence numbers are handed out in another order than transactions commit, so a cursor
//! (`seq > last`) would pass over a row that commits late. The relay has no cursor: it reads the
//! lowest rows that are there, and deletes each one after the bus took it. Two relays at once
//! would publish out of order; so a relay holds a [`Lease`](crate::Lease) and its token is
//! checked in the transaction that deletes. A relay that was paused after publishing deletes
//! nothing when it wakes up; its successor has published the same rows again, with the same ids.
//!
//! The columns are those of Debezium's outbox event router, so change data capture can take the
//! relay's place. The pattern: Richardson, "Transactional outbox".

mod in_process;
mod memory;
mod message;
mod relay;

pub use in_process::{InProcessBus, MessageHandler};
pub use message::OutboxMessage;
pub use relay::{MessageBus, Relay, RelayOptions, Relayed};

use crate::database::{Row, Sql, Tx};
use crate::error::{Error, ErrorKind, Result};
use crate::json::Json;
use crate::values;

/// Writes to the outbox, and looks after what could not be delivered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outbox;

/// The largest payload, in bytes of JSON.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The largest headers, in bytes of JSON.
const HEADERS_BYTES_MAX: usize = 64 << 10;

const ENQUEUE: Sql = Sql::new(
    "INSERT INTO potter_outbox (id, aggregatetype, aggregateid, type, payload, headers)
     VALUES ($1, $2, $3, $4, $5, $6)",
    "INSERT INTO potter_outbox (id, aggregatetype, aggregateid, type, payload, headers)
     VALUES ($1, $2, $3, $4, $5::jsonb, $6::jsonb)",
);

impl Outbox {
    /// Writes a message that is delivered after `tx` commits, and never if it does not.
    ///
    /// # Errors
    /// `InvalidInput` when a name is empty, longer than 255 bytes or has a NUL character;
    /// `LimitExceeded` when the payload is over 1 MiB or the headers are over 64 KiB; `Conflict`
    /// when a message with this id is in the outbox.
    pub async fn enqueue(self, tx: &mut Tx, message: &OutboxMessage) -> Result<()> {
        validate(message)?;
        let headers = Json::of(&message.headers)?;
        limit("payload", &message.payload, PAYLOAD_BYTES_MAX)?;
        limit("headers", &headers, HEADERS_BYTES_MAX)?;
        if let Some(memory) = tx.memory() {
            return memory::enqueue(memory, message);
        }
        tx.execute(
            ENQUEUE,
            values![
                message.id,
                &message.aggregate_type,
                &message.aggregate_id,
                &message.event_type,
                &message.payload,
                headers
            ],
        )
        .await?;
        Ok(())
    }

    /// How many messages wait (first) and how many were given up as dead (second).
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn depth(self, tx: &mut Tx) -> Result<(u64, u64)> {
        if let Some(memory) = tx.memory() {
            return Ok(memory::depth(memory));
        }
        let row = tx
            .fetch_optional(
                "SELECT count(CASE WHEN NOT dead THEN 1 END) AS waiting, count(CASE WHEN dead THEN 1 END) AS dead
                 FROM potter_outbox",
                &[],
            )
            .await?;
        let row = row.ok_or_else(|| Error::new(ErrorKind::Corrupt, "no count of the outbox"))?;
        Ok((row.i64("waiting")?.unsigned_abs(), row.i64("dead")?.unsigned_abs()))
    }

    /// The messages that were given up, oldest first, at most `limit`, each with its last error.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn dead(self, tx: &mut Tx, limit: u32) -> Result<Vec<(OutboxMessage, String)>> {
        if let Some(memory) = tx.memory() {
            return Ok(memory::dead(memory, limit));
        }
        let rows = tx
            .fetch_all(
                "SELECT id, aggregatetype, aggregateid, type, payload, headers, last_error
                 FROM potter_outbox WHERE dead ORDER BY seq LIMIT $1",
                values![limit],
            )
            .await?;
        rows.iter()
            .map(|row| Ok((message_of(row)?, row.opt_text("last_error")?.unwrap_or_default())))
            .collect()
    }

    /// Puts a dead message back to be delivered; answers whether there was one.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn revive(self, tx: &mut Tx, id: uuid::Uuid) -> Result<bool> {
        if let Some(memory) = tx.memory() {
            return Ok(memory::revive(memory, id));
        }
        let revived = tx
            .execute(
                Sql::new(
                    "UPDATE potter_outbox SET dead = 0, attempts = 0, available_at = 0 WHERE id = $1 AND dead",
                    "UPDATE potter_outbox SET dead = false, attempts = 0, available_at = '-infinity' WHERE id = $1 AND dead",
                ),
                values![id],
            )
            .await?;
        Ok(revived == 1)
    }
}

fn validate(message: &OutboxMessage) -> Result<()> {
    for (what, text) in [
        ("aggregate type", &message.aggregate_type),
        ("aggregate id", &message.aggregate_id),
        ("event type", &message.event_type),
    ] {
        if text.is_empty() || text.len() > 255 || text.contains('\0') {
            let message = format!("the {what} of an outbox message has 1 to 255 bytes, no NUL");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
    }
    Ok(())
}

fn limit(what: &str, json: &Json, bytes_max: usize) -> Result<()> {
    let bytes = json.as_str().len();
    if bytes > bytes_max {
        let message = format!(
            "the {what} of an outbox message: {bytes} bytes, where {bytes_max} are allowed"
        );
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(())
}

fn message_of(row: &Row) -> Result<OutboxMessage> {
    Ok(OutboxMessage {
        id: row.uuid("id")?,
        aggregate_type: row.text("aggregatetype")?,
        aggregate_id: row.text("aggregateid")?,
        event_type: row.text("type")?,
        payload: row.json("payload")?,
        headers: row.json("headers")?.get()?,
    })
}
