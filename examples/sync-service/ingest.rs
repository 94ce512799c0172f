//! What uploads do to a user's entities: a pure function.
//!
//! Invariant: the outcome depends on the batches, what was loaded, and the time, and on nothing else.
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

/// Applies a batch, alone.
///
/// # Errors
/// When a stored state can't be read.
pub fn ingest(
    by: &Uploader<'_>,
    operations: &[Prepared],
    loaded: &Loaded,
) -> potter_crdt::Result<Ingested> {
    let mut group = Ingest::new(by.user, loaded);
    let (results, replica) = group.batch(by, operations)?;
    group.commit.replicas.extend(replica);
    Ok(Ingested { results, commit: group.finish() })
}

/// Batches of one user at work, to be written by one commit.
///
/// Invariant: what a batch answers, and what is written for it, is what it would be if the batches
/// were committed one after the other, in their order; only the mark is one for all of them. A batch
/// that fails changes nothing, and those after it see nothing of it.
#[derive(Debug)]
pub struct Ingest<'a> {
    loaded: &'a Loaded,
    /// The entities as the batches so far leave them.
    docs: HashMap<EntityKey, Settled>,
    /// The operations that they counted.
    known: HashMap<OpKey, u64>,
    mark: u64,
    commit: Commit,
}

/// An entity between two batches.
#[derive(Debug)]
struct Settled {
    doc: Document,
    bytes: usize,
    /// Its last change in this group, and when.
    changed: Option<(u64, DateTime<Utc>)>,
}

/// An entity at work.
struct Working {
    before: Document,
    doc: Document,
    bytes: usize,
    changed: bool,
    order: usize,
}

impl<'a> Ingest<'a> {
    /// None yet. All that the batches need is in `loaded`, as of the version that `user` has.
    pub fn new(user: &User, loaded: &'a Loaded) -> Self {
        Self {
            loaded,
            docs: HashMap::new(),
            known: HashMap::new(),
            mark: random(),
            commit: Commit::of(user),
        }
    }

    /// The number of the last change so far.
    pub fn head(&self) -> u64 {
        self.commit.after.head.seq
    }

    /// Applies one more batch: the results, and the replica as it is after it.
    ///
    /// # Errors
    /// When a stored state can't be read. Nothing of the batch is taken in then.
    pub fn batch(
        &mut self,
        by: &Uploader<'_>,
        operations: &[Prepared],
    ) -> potter_crdt::Result<(Vec<OperationResult>, Option<Replica>)> {
        let now = timestamp(by.now)?;
        let mut guard = SkewGuard::default().resume(last_clamped(by));
        let mut docs: HashMap<&EntityKey, Working> = HashMap::new();
        let mut counted: HashMap<OpKey, u64> = HashMap::new();
        let mut results = Vec::with_capacity(operations.len());
        for (index, prepared) in operations.iter().enumerate() {
            let mut author = Author {
                device: by.device_id,
                incarnation: by.incarnation,
                epoch: &by.user.epoch,
                now,
                guard: &mut guard,
            };
            let known = prepared.name.and_then(|name| {
                let earlier = || self.known.get(&name).or_else(|| self.loaded.ops.get(&name));
                counted.get(&name).or_else(earlier).copied()
            });
            let done = match known {
                Some(payload) if payload == prepared.payload => Ok(None),
                Some(_) => Err(Refused::new(
                    "op_id_reused",
                    "this op_id was used for another operation: give each operation its own.",
                )),
                None => self.apply_one(prepared, &mut author, &mut docs)?.map(Some),
            };
            if let (Ok(Some(_)), Some(name)) = (&done, prepared.name) {
                counted.insert(name, prepared.payload);
            }
            results.push(result(index, prepared, done));
        }
        let changed = self.settle(docs, by)?;
        let ops = counted.iter().map(|(key, payload)| OpRecord { key: *key, payload: *payload });
        self.commit.ops.extend(ops);
        self.known.extend(counted);
        let replica = by.replica.map(|replica| {
            let mut replica = Replica { last_seen: by.now, ..replica.clone() };
            replica.notes.clamped = guard.last().map(|(claimed, given)| {
                let plain = |stamp: &Stamp| (stamp.at.to_string(), stamp.counter);
                (plain(claimed), plain(given))
            });
            if changed {
                *replica.notes.clock.entry(by.device_id.to_owned()).or_default() += 1;
            }
            replica
        });
        Ok((results, replica))
    }

    /// What the batches change.
    pub fn finish(mut self) -> Commit {
        let mut changed: Vec<_> = self
            .docs
            .into_iter()
            .filter_map(|(key, settled)| Some((settled.changed?, key, settled.doc)))
            .collect();
        changed.sort_unstable_by_key(|((seq, _), ..)| *seq);
        // Neighbours in an index by name.
        self.commit.ops.sort_unstable_by_key(|op| op.key);
        self.commit.entities = changed
            .into_iter()
            .map(|((seq, updated_at), key, doc)| Entity {
                key,
                kind: doc.kind(),
                state: doc.to_bytes(),
                seq,
                updated_at,
            })
            .collect();
        self.commit
    }

    fn apply_one<'b>(
        &self,
        prepared: &'b Prepared,
        author: &mut Author<'_>,
        docs: &mut HashMap<&'b EntityKey, Working>,
    ) -> potter_crdt::Result<Result<Applied, Refused>> {
        let op = match &prepared.op {
            Ok(op) => op,
            Err(refused) => return Ok(Err(refused.clone())),
        };
        let order = docs.len();
        let working = match docs.entry(&prepared.key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.working(prepared, order)?),
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

    /// The entity as the batches before leave it, or as it is stored, or new.
    fn working(&self, prepared: &Prepared, order: usize) -> potter_crdt::Result<Working> {
        let (doc, bytes) = match self.docs.get(&prepared.key) {
            Some(settled) => (settled.doc.clone(), settled.bytes),
            None => match self.loaded.entities.get(&prepared.key) {
                Some(stored) => {
                    (Document::from_bytes(stored.kind, &stored.state)?, stored.state.len())
                }
                None => (Document::new(prepared.kind), 0),
            },
        };
        Ok(Working { before: doc.clone(), doc, bytes, changed: false, order })
    }

    /// Numbers what a batch changed, and notes where values stand side by side; did anything change?
    fn settle(
        &mut self,
        docs: HashMap<&EntityKey, Working>,
        by: &Uploader<'_>,
    ) -> potter_crdt::Result<bool> {
        let mut changed: Vec<_> = docs.into_iter().filter(|(_, working)| working.changed).collect();
        changed.sort_unstable_by_key(|(_, working)| working.order);
        let deltas = changed
            .iter()
            .map(|(_, working)| Ok(working.doc.delta_against(&working.before)?.to_bytes()))
            .collect::<potter_crdt::Result<Vec<_>>>()?;
        let any = !changed.is_empty();
        for ((key, working), delta) in changed.into_iter().zip(deltas) {
            let seq = self.head() + 1;
            self.commit.after.head = Position { seq, mark: self.mark };
            self.commit.log.push(LogEntry {
                position: self.commit.after.head,
                key: key.clone(),
                kind: working.doc.kind(),
                device_id: by.device_id.to_owned(),
                delta,
                at: by.now,
            });
            for conflict in conflicts(key, &working, by) {
                // The last word of the group on it.
                self.commit.conflicts.retain(|earlier| earlier.id != conflict.id);
                self.commit.conflicts.push(conflict);
            }
            let Working { doc, bytes, .. } = working;
            let settled = Settled { doc, bytes, changed: Some((seq, by.now)) };
            self.docs.insert(key.clone(), settled);
        }
        Ok(any)
    }
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
