//! The outbox on the memory database.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::OutboxMessage;
use super::relay::Pending;
use crate::clock::after;
use crate::database::{MemoryTable, MemoryTx};
use crate::error::{Error, ErrorKind, Result};

struct Messages;

#[derive(Clone)]
struct Stored {
    message: OutboxMessage,
    attempts: u32,
    available_at: DateTime<Utc>,
    last_error: Option<String>,
    dead: bool,
}

impl MemoryTable for Messages {
    type Key = i64;
    type Row = Stored;
}

/// Never reused, as an AUTOINCREMENT column.
struct LastSeq;

impl MemoryTable for LastSeq {
    type Key = ();
    type Row = i64;
}

pub(super) fn enqueue(memory: &mut MemoryTx, message: &OutboxMessage) -> Result<()> {
    if memory.rows::<Messages>().values().any(|stored| stored.message.id == message.id) {
        let message = format!("the outbox has a message with the id {} already", message.id);
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let seq = memory.get::<LastSeq>(&()).copied().unwrap_or(0) + 1;
    memory.put::<LastSeq>((), seq);
    let stored = Stored {
        message: message.clone(),
        attempts: 0,
        available_at: DateTime::UNIX_EPOCH,
        last_error: None,
        dead: false,
    };
    memory.put::<Messages>(seq, stored);
    Ok(())
}

pub(super) fn depth(memory: &mut MemoryTx) -> (u64, u64) {
    let dead = memory.rows::<Messages>().values().filter(|stored| stored.dead).count() as u64;
    (memory.rows::<Messages>().len() as u64 - dead, dead)
}

pub(super) fn dead(memory: &mut MemoryTx, limit: u32) -> Vec<(OutboxMessage, String)> {
    let rows = memory.rows::<Messages>().values().filter(|stored| stored.dead);
    rows.take(limit as usize)
        .map(|stored| (stored.message.clone(), stored.last_error.clone().unwrap_or_default()))
        .collect()
}

pub(super) fn revive(memory: &mut MemoryTx, id: Uuid) -> bool {
    let found =
        memory.rows::<Messages>().iter().find(|(_, stored)| stored.dead && stored.message.id == id);
    let Some((seq, mut stored)) = found.map(|(seq, stored)| (*seq, stored.clone())) else {
        return false;
    };
    stored.dead = false;
    stored.attempts = 0;
    stored.available_at = DateTime::UNIX_EPOCH;
    memory.put::<Messages>(seq, stored);
    true
}

pub(super) fn pending(memory: &mut MemoryTx, limit: u32) -> Vec<Pending> {
    let now = memory.now();
    let mut blocked = std::collections::HashSet::new();
    let mut pending = Vec::new();
    for (seq, stored) in memory.rows::<Messages>().iter().filter(|(_, stored)| !stored.dead) {
        let aggregate = (&stored.message.aggregate_type, &stored.message.aggregate_id);
        if stored.available_at > now {
            blocked.insert(aggregate);
        }
        if !blocked.contains(&aggregate) && pending.len() < limit as usize {
            pending.push(Pending {
                seq: *seq,
                attempts: stored.attempts,
                message: stored.message.clone(),
            });
        }
    }
    pending
}

pub(super) fn delete(memory: &mut MemoryTx, seqs: &[i64]) {
    for seq in seqs {
        memory.remove::<Messages>(seq);
    }
}

pub(super) fn fail(
    memory: &mut MemoryTx,
    seq: i64,
    error: &str,
    wait: Option<std::time::Duration>,
) {
    let now = memory.now();
    if let Some(mut stored) = memory.get::<Messages>(&seq).cloned() {
        stored.attempts += 1;
        stored.last_error = Some(error.to_owned());
        match wait {
            Some(wait) => stored.available_at = after(now, wait),
            None => stored.dead = true,
        }
        memory.put::<Messages>(seq, stored);
    }
}
