//! What an upload does to a user's entities: a pure function.
//!
//! Invariant: the outcome depends on the batch, what was loaded, and the time, and on nothing else.
//! Operations are taken in their order; one that is refused changes nothing and stops nobody. An
//! operation whose name is known is a duplicate if it is the same operation, and refused if it is
//! another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use chrono::{DateTime, Utc};
use potter_crdt::{ActorId, SkewGuard, Stamp, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::document::{Applied, Author, Document, Kind, Operation, Refused};
use crate::protocol::{ENTITY_BYTES_MAX, Position, digest, random};
use crate::store::{
    Commit, Conflict, Entity, EntityKey, Loaded, LogEntry, OpKey, OpRecord, Replica, User,
};

/// An operation, ready to be applied.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The entity.
    pub key: EntityKey,
    /// Its CRDT.
    pub kind: Kind,
    /// What to do, or why that can't be read.
    pub op: Result<Operation, Refused>,
    /// Its name, if it has one.
    pub name: Option<OpKey>,
    /// What it is, to tell a retry from another operation of that name.
    pub payload: u64,
    /// How large it is, bytes.
    pub bytes: usize,
}

impl Prepared {
    /// Reads one operation of `user`.
    pub fn new(user: &str, key: EntityKey, kind: Kind, raw: &Value) -> Self {
        let bytes = raw.to_string().len();
        let op = Operation::deserialize(raw).map_err(|error| {
            Refused::new("malformed_operation", format!("this is no operation: {error}."))
        });
        let op = op.and_then(|op| match &op.op_id {
            Some(id) if id.is_empty() || id.len() > crate::protocol::ID_BYTES_MAX => {
                Err(Refused::new("invalid_op_id", "an op_id has 1 to 128 bytes."))
            }
            _ => Ok(op),
        });
        Self::of(user, key, kind, op, bytes)
    }

    /// Of an operation that was read.
    pub fn of(
        user: &str,
        key: EntityKey,
        kind: Kind,
        op: Result<Operation, Refused>,
        bytes: usize,
    ) -> Self {
        let id = op.as_ref().ok().and_then(|op| op.op_id.as_deref());
        let name = id.map(|id| {
            let hash = digest(&[user.as_bytes(), id.as_bytes()]);
            let mut name = [0; 16];
            name.copy_from_slice(&hash[..16]);
            name
        });
        let payload = op.as_ref().map_or(0, |op| {
            let hash = digest(&[
                key.entity_type.as_bytes(),
                key.entity_id.as_bytes(),
                kind.name().as_bytes(),
                op.payload().as_bytes(),
            ]);
            let mut half = [0; 8];
            half.copy_from_slice(&hash[..8]);
            u64::from_be_bytes(half) >> 1
        });
        Self { key, kind, op, name, payload, bytes }
    }
}

/// What became of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is in.
    Applied,
    /// It was in already.
    Duplicate,
    /// It is in, under a stamp that was set back: the device's clock is ahead.
    Clamped,
    /// It was set aside; `code` and `detail` say why.
    Rejected,
}

/// The answer to one operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperationResult {
    /// The how-manieth of the upload, from 0.
    pub index: usize,
    /// Its name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op_id: Option<String>,
    /// The entity.
    pub entity_id: String,
    /// What became of it.
    pub status: Status,
    /// Why it was set aside; stable, snake_case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The HTTP status that it would have got alone, if it was set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// The instant under which a clamped write counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_timestamp: Option<String>,
    /// How far the clock was ahead, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clamped_by_ms: Option<u64>,
    /// A later write of the same device is there already: this one is not shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[serde(default)]
    pub superseded: bool,
}

/// Who uploads.
#[derive(Clone, Debug)]
pub struct Uploader<'a> {
    /// The user.
    pub user: &'a User,
    /// The device.
    pub device_id: &'a str,
    /// Its incarnation.
    pub incarnation: u64,
    /// The replica's row, if it is one.
    pub replica: Option<&'a Replica>,
    /// The server's time.
    pub now: DateTime<Utc>,
}

/// What an upload does.
#[derive(Clone, Debug)]
pub struct Ingested {
    /// In the order of the operations.
    pub results: Vec<OperationResult>,
    /// What to write; without the answer's identity.
    pub commit: Commit,
}

/// An entity at work.
struct Working {
    before: Document,
    doc: Document,
    bytes: usize,
    changed: bool,
    order: usize,
}

/// Applies a batch.
///
/// # Errors
/// When a stored state can't be read.
pub fn ingest(
    by: &Uploader<'_>,
    operations: &[Prepared],
    loaded: &Loaded,
) -> potter_crdt::Result<Ingested> {
    let now = timestamp(by.now)?;
    let mut guard = SkewGuard::default().resume(last_clamped(by));
    let mut docs: HashMap<&EntityKey, Working> = HashMap::new();
    let mut ops: Vec<OpRecord> = Vec::new();
    let mut known: HashMap<OpKey, u64> = loaded.ops.clone();
    let mut results = Vec::with_capacity(operations.len());
    for (index, prepared) in operations.iter().enumerate() {
        let mut author = Author {
            device: by.device_id,
            incarnation: by.incarnation,
            epoch: &by.user.epoch,
            now,
            guard: &mut guard,
        };
        let done = match prepared.name.and_then(|name| known.get(&name)) {
            Some(payload) if *payload == prepared.payload => Ok(None),
            Some(_) => Err(Refused::new(
                "op_id_reused",
                "this op_id was used for another operation: give each operation its own.",
            )),
            None => apply_one(prepared, &mut author, &mut docs, loaded)?.map(Some),
        };
        if let (Ok(Some(_)), Some(name)) = (&done, prepared.name) {
            known.insert(name, prepared.payload);
            ops.push(OpRecord { key: name, payload: prepared.payload });
        }
        results.push(result(index, prepared, done));
    }
    let mut commit = Commit::of(by.user);
    commit.ops = ops;
    write_changes(&mut commit, docs, by);
    if let Some(replica) = by.replica {
        let mut replica = Replica { last_seen: by.now, ..replica.clone() };
        replica.notes.clamped = guard.last().map(|(claimed, given)| {
            let plain = |stamp: &Stamp| (stamp.at.to_string(), stamp.counter);
            (plain(claimed), plain(given))
        });
        if !commit.log.is_empty() {
            *replica.notes.clock.entry(by.device_id.to_owned()).or_default() += 1;
        }
        commit.replica = Some(replica);
    }
    Ok(Ingested { results, commit })
}

fn apply_one<'a>(
    prepared: &'a Prepared,
    author: &mut Author<'_>,
    docs: &mut HashMap<&'a EntityKey, Working>,
    loaded: &Loaded,
) -> potter_crdt::Result<Result<Applied, Refused>> {
    let op = match &prepared.op {
        Ok(op) => op,
        Err(refused) => return Ok(Err(refused.clone())),
    };
    let order = docs.len();
    let working = match docs.entry(&prepared.key) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let stored = loaded.entities.get(&prepared.key);
            let doc = match stored {
                Some(stored) => Document::from_bytes(stored.kind, &stored.state)?,
                None => Document::new(prepared.kind),
            };
            let bytes = stored.map_or(0, |stored| stored.state.len());
            entry.insert(Working { before: doc.clone(), doc, bytes, changed: false, order })
        }
    };
    let kind = working.doc.kind();
    if kind != prepared.kind {
        let detail = format!(
            "entity {} is a {}, not a {}.",
            prepared.key.entity_id,
            kind.name(),
            prepared.kind.name()
        );
        return Ok(Err(Refused::new("type_mismatch", detail)));
    }
    // What an operation replaces is not known before: near the limit the result is measured.
    let near = working.bytes + prepared.bytes > ENTITY_BYTES_MAX;
    let backup = near.then(|| working.doc.clone());
    let done = working.doc.apply(op, author);
    if let Ok(applied) = &done {
        if let Some(backup) = backup {
            working.bytes = working.doc.to_bytes().len();
            if working.bytes > ENTITY_BYTES_MAX {
                working.doc = backup;
                working.bytes = working.doc.to_bytes().len();
                let detail = format!("an entity has at most {ENTITY_BYTES_MAX} bytes.");
                return Ok(Err(Refused::new("entity_too_large", detail)));
            }
        } else {
            working.bytes += prepared.bytes;
        }
        working.changed |= applied.changed;
    }
    Ok(done)
}

fn result(
    index: usize,
    prepared: &Prepared,
    done: Result<Option<Applied>, Refused>,
) -> OperationResult {
    let mut result = OperationResult {
        index,
        op_id: prepared.op.as_ref().ok().and_then(|op| op.op_id.clone()),
        entity_id: prepared.key.entity_id.clone(),
        status: Status::Applied,
        code: None,
        detail: None,
        status_code: None,
        effective_timestamp: None,
        clamped_by_ms: None,
        superseded: false,
    };
    match done {
        Ok(None) => result.status = Status::Duplicate,
        Ok(Some(applied)) => {
            result.superseded = applied.superseded;
            if applied.repeated {
                result.status = Status::Duplicate;
            }
            if let Some(by) = applied.clamped_by {
                result.status = Status::Clamped;
                result.clamped_by_ms = Some(u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
                result.effective_timestamp = applied.stamp.map(|stamp| stamp.at.to_string());
            }
        }
        Err(refused) => {
            result.status = Status::Rejected;
            let conflict = matches!(refused.code, "op_id_reused" | "actor_reused");
            result.status_code = Some(if conflict { 409 } else { 422 });
            result.code = Some(refused.code.to_owned());
            result.detail = Some(refused.detail);
        }
    }
    result
}

/// Numbers what changed, and notes where values stand side by side.
fn write_changes(commit: &mut Commit, docs: HashMap<&EntityKey, Working>, by: &Uploader<'_>) {
    let mut changed: Vec<_> = docs.into_iter().filter(|(_, working)| working.changed).collect();
    changed.sort_unstable_by_key(|(_, working)| working.order);
    let mark = random();
    for (key, working) in changed {
        let Ok(delta) = working.doc.delta_against(&working.before) else { continue };
        let seq = commit.after.head.seq + 1;
        commit.after.head = Position { seq, mark };
        let kind = working.doc.kind();
        commit.log.push(LogEntry {
            position: commit.after.head,
            key: key.clone(),
            kind,
            device_id: by.device_id.to_owned(),
            delta: delta.to_bytes(),
            at: by.now,
        });
        commit.conflicts.extend(conflicts(key, &working, by));
        commit.entities.push(Entity {
            key: key.clone(),
            kind,
            state: working.doc.to_bytes(),
            seq,
            updated_at: by.now,
        });
    }
}

fn conflicts(key: &EntityKey, working: &Working, by: &Uploader<'_>) -> Vec<Conflict> {
    let now = working.doc.conflicts();
    let before = working.before.conflicts();
    let conflict = |entry: &Option<String>, siblings, open: bool| Conflict {
        id: conflict_id(&by.user.user_id, key, entry.as_deref()),
        user_id: by.user.user_id.clone(),
        key: key.clone(),
        kind: working.doc.kind(),
        entry: entry.clone(),
        siblings,
        status: if open { "open" } else { "superseded" },
        detected_at: by.now,
        resolved_at: (!open).then_some(by.now),
        resolution: (!open).then(|| format!("a write of device {} saw them all", by.device_id)),
    };
    let ended = before.iter().filter(|(entry, _)| now.iter().all(|(other, _)| other != entry));
    let ended: Vec<_> =
        ended.map(|(entry, siblings)| conflict(entry, siblings.clone(), false)).collect();
    let same = |entry, siblings| before.iter().any(|(e, s)| e == entry && s == siblings);
    let open = now.iter().filter(|(entry, siblings)| !same(entry, siblings));
    open.map(|(entry, siblings)| conflict(entry, siblings.clone(), true)).chain(ended).collect()
}

/// The same for each conflict at one place.
pub fn conflict_id(user: &str, key: &EntityKey, entry: Option<&str>) -> uuid::Uuid {
    let place = if entry.is_some() { "entry" } else { "whole" };
    let parts = ["conflict", user, &key.entity_type, &key.entity_id, place];
    potter_core::derived_id(&[&parts[..], &[entry.unwrap_or_default()]].concat())
}

/// An instant as `potter-crdt` has it.
///
/// # Errors
/// Outside of the years 0 to 9999.
pub fn timestamp(at: DateTime<Utc>) -> potter_crdt::Result<Timestamp> {
    // Microseconds: what databases keep.
    let nanos = at.timestamp_subsec_micros() * 1_000;
    Timestamp::from_unix(at.timestamp(), nanos.min(999_999_999))
}

fn last_clamped(by: &Uploader<'_>) -> Option<(Stamp, Stamp)> {
    let (claimed, given) = by.replica?.notes.clamped.as_ref()?;
    let stamp = |(at, counter): &(String, u32)| -> Option<Stamp> {
        let node = ActorId::new(by.device_id).ok()?;
        Some(Stamp { at: Timestamp::parse(at).ok()?, counter: *counter, node })
    };
    Some((stamp(claimed)?, stamp(given)?))
}
