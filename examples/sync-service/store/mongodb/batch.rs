//! Values to documents and back.

use chrono::{DateTime, Utc};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, DateTime as Time, Document as Bson, doc};
use potter_core::{Error, ErrorKind, Result};

use super::name;
use crate::document::Kind;
use crate::protocol::Position;
use crate::store::{Commit, Conflict, Entity, EntityKey, Identity, LogEntry, OpKey, Replica, User};

/// All numbers here are below 2^63.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn binary(bytes: &[u8]) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() }
}

pub(super) fn time(at: DateTime<Utc>) -> Time {
    Time::from_millis(at.timestamp_millis())
}

fn corrupt(field: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("field {field} of a document can't be read"))
}

pub(super) fn text(from: &Bson, field: &str) -> Result<String> {
    from.get_str(field).map(ToOwned::to_owned).map_err(|_| corrupt(field))
}

pub(super) fn uint(from: &Bson, field: &str) -> Result<u64> {
    let number = match (from.get_i64(field), from.get_i32(field)) {
        (Ok(number), _) => number,
        (_, Ok(number)) => i64::from(number),
        _ => return Err(corrupt(field)),
    };
    u64::try_from(number).map_err(|_| corrupt(field))
}

pub(super) fn bytes(from: &Bson, field: &str) -> Result<Vec<u8>> {
    from.get_binary_generic(field).cloned().map_err(|_| corrupt(field))
}

fn moment(from: &Bson, field: &str) -> Result<DateTime<Utc>> {
    let at = from.get_datetime(field).map_err(|_| corrupt(field))?;
    DateTime::from_timestamp_millis(at.timestamp_millis()).ok_or_else(|| corrupt(field))
}

fn documents<'a>(from: &'a Bson, field: &str) -> Result<Vec<&'a Bson>> {
    let all = from.get_array(field).map_err(|_| corrupt(field))?;
    all.iter().map(|one| one.as_document().ok_or_else(|| corrupt(field))).collect()
}

fn base(user: &User, at: DateTime<Utc>) -> Bson {
    doc! {
        "_id": name(&[&user.user_id, &user.version.to_string()]),
        "user": &user.user_id,
        "version": int(user.version),
        "epoch": &user.epoch,
        "last": int(user.head.seq),
        "mark": int(user.head.mark),
        "horizon": int(user.horizon.seq),
        "horizon_mark": int(user.horizon.mark),
        "at": time(at),
        "changes": 0,
        "ids": 0,
        "ops": Vec::<Bson>::new(),
        "answers": Vec::<Bson>::new(),
        "log": Vec::<Bson>::new(),
    }
}

/// The document with which a user begins.
pub(super) fn first(user: &User, at: DateTime<Utc>) -> Bson {
    base(user, at)
}

/// The document of a commit.
pub(super) fn of(commit: &Commit) -> Bson {
    let mut out = base(&commit.after, Utc::now());
    let log: Vec<Bson> = commit.log.iter().map(entry).collect();
    let ops: Vec<Bson> = commit
        .ops
        .iter()
        .map(|op| doc! { "name": binary(&op.key), "payload": int(op.payload) })
        .collect();
    out.insert("changes", int(log.len() as u64));
    let answers: Vec<Bson> = commit.identities.iter().map(answer).collect();
    out.insert("ids", int(ops.len() as u64 + answers.len() as u64));
    out.insert("answers", answers);
    out.insert("log", log);
    out.insert("ops", ops);
    // What is no change of the log but of an entity: garbage that was reclaimed.
    if commit.log.is_empty() && !commit.entities.is_empty() {
        let entities: Vec<Bson> =
            commit.entities.iter().map(|one| entity_doc(&commit.before.user_id, one)).collect();
        out.insert("reclaimed", entities);
    }
    let replicas: Vec<Bson> =
        commit.replicas.iter().map(|one| replica_doc(&commit.before.user_id, one)).collect();
    out.insert("replicas", replicas);
    if !commit.conflicts.is_empty() {
        let conflicts: Vec<Bson> = commit.conflicts.iter().map(conflict_doc).collect();
        out.insert("conflicts", conflicts);
    }
    out
}

/// `name` is what it is found by.
fn answer(one: &Identity) -> Bson {
    doc! {
        "name": name(&[&one.scope, &one.id]), "scope": &one.scope, "id": &one.id,
        "hash": binary(&one.hash), "answer": &one.answer,
    }
}

fn entry(entry: &LogEntry) -> Bson {
    doc! {
        "seq": int(entry.position.seq),
        "type": &entry.key.entity_type,
        "id": &entry.key.entity_id,
        "kind": entry.kind.name(),
        "device": &entry.device_id,
        "delta": binary(&entry.delta),
        "at": time(entry.at),
    }
}

pub(super) fn user_of(from: &Bson) -> Result<User> {
    let position = |seq, mark| -> Result<Position> {
        Ok(Position { seq: uint(from, seq)?, mark: uint(from, mark)? })
    };
    Ok(User {
        user_id: text(from, "user")?,
        version: uint(from, "version")?,
        epoch: text(from, "epoch")?,
        head: position("last", "mark")?,
        horizon: position("horizon", "horizon_mark")?,
    })
}

fn key_of(from: &Bson) -> Result<EntityKey> {
    Ok(EntityKey { entity_type: text(from, "type")?, entity_id: text(from, "id")? })
}

fn kind_of(from: &Bson) -> Result<Kind> {
    Kind::parse(&text(from, "kind")?).ok_or_else(|| corrupt("kind"))
}

pub(super) fn log_of(from: &Bson) -> Result<Vec<LogEntry>> {
    let mark = uint(from, "mark")?;
    documents(from, "log")?
        .into_iter()
        .map(|one| {
            Ok(LogEntry {
                position: Position { seq: uint(one, "seq")?, mark },
                key: key_of(one)?,
                kind: kind_of(one)?,
                device_id: text(one, "device")?,
                delta: bytes(one, "delta")?,
                at: moment(one, "at")?,
            })
        })
        .collect()
}

pub(super) fn ops_of(from: &Bson) -> Result<Vec<(OpKey, u64)>> {
    let one = |op: &Bson| -> Result<(OpKey, u64)> {
        let name: OpKey = bytes(op, "name")?.try_into().map_err(|_| corrupt("name"))?;
        Ok((name, uint(op, "payload")?))
    };
    documents(from, "ops")?.into_iter().map(one).collect()
}

pub(super) fn answers_of(from: &Bson) -> Result<Vec<Identity>> {
    documents(from, "answers")?.into_iter().map(identity_of).collect()
}

pub(super) fn identity_of(from: &Bson) -> Result<Identity> {
    Ok(Identity {
        scope: text(from, "scope")?,
        id: text(from, "id")?,
        hash: bytes(from, "hash")?,
        answer: text(from, "answer")?,
    })
}

pub(super) fn entity_doc(user_id: &str, entity: &Entity) -> Bson {
    doc! {
        "_id": super::lay::entity_name(user_id, &entity.key),
        "user": user_id,
        "type": &entity.key.entity_type,
        "id": &entity.key.entity_id,
        "kind": entity.kind.name(),
        "state": binary(&entity.state),
        "seq": int(entity.seq),
        "updated_at": time(entity.updated_at),
    }
}

pub(super) fn entity_of(from: &Bson) -> Result<Entity> {
    Ok(Entity {
        key: key_of(from)?,
        kind: kind_of(from)?,
        state: bytes(from, "state")?,
        seq: uint(from, "seq")?,
        updated_at: moment(from, "updated_at")?,
    })
}

/// `version` is that of the commit that wrote it: only a newer one is laid over it.
pub(super) fn replica_doc(user_id: &str, replica: &Replica) -> Bson {
    doc! {
        "_id": name(&[&replica.device_id, &replica.incarnation.to_string()]),
        "device": &replica.device_id,
        "incarnation": int(replica.incarnation),
        "user": user_id,
        "registered_at": time(replica.registered_at),
        "last_seen": time(replica.last_seen),
        "acked": int(replica.acked),
        "last_sequence": int(replica.last_sequence),
        "retired": replica.retired,
        "notes": serde_json::to_string(&replica.notes).unwrap_or_else(|_| "{}".to_owned()),
        "version": 0i64,
    }
}

pub(super) fn replica_of(from: &Bson) -> Result<Replica> {
    Ok(Replica {
        device_id: text(from, "device")?,
        incarnation: uint(from, "incarnation")?,
        registered_at: moment(from, "registered_at")?,
        last_seen: moment(from, "last_seen")?,
        acked: uint(from, "acked")?,
        last_sequence: uint(from, "last_sequence")?,
        retired: from.get_bool("retired").map_err(|_| corrupt("retired"))?,
        notes: serde_json::from_str(&text(from, "notes")?).map_err(|_| corrupt("notes"))?,
    })
}

fn conflict_doc(one: &Conflict) -> Bson {
    let mut out = doc! {
        "_id": one.id.to_string(),
        "user": &one.user_id,
        "type": &one.key.entity_type,
        "id": &one.key.entity_id,
        "kind": one.kind.name(),
        "siblings": serde_json::to_string(&one.siblings).unwrap_or_else(|_| "[]".to_owned()),
        "status": one.status,
        "detected_at": time(one.detected_at),
    };
    if let Some(entry) = &one.entry {
        out.insert("entry", entry);
    }
    if let Some(at) = one.resolved_at {
        out.insert("resolved_at", time(at));
    }
    if let Some(resolution) = &one.resolution {
        out.insert("resolution", resolution);
    }
    out
}

pub(super) fn conflict_of(from: &Bson) -> Result<Conflict> {
    let status = text(from, "status")?;
    let status = ["open", "resolved", "superseded"].into_iter().find(|known| *known == status);
    let resolved_at = from.contains_key("resolved_at");
    Ok(Conflict {
        id: text(from, "_id")?.parse().map_err(|_| corrupt("_id"))?,
        user_id: text(from, "user")?,
        key: key_of(from)?,
        kind: kind_of(from)?,
        entry: from.get_str("entry").ok().map(ToOwned::to_owned),
        siblings: serde_json::from_str(&text(from, "siblings")?)
            .map_err(|_| corrupt("siblings"))?,
        status: status.ok_or_else(|| corrupt("status"))?,
        detected_at: moment(from, "detected_at")?,
        resolved_at: resolved_at.then(|| moment(from, "resolved_at")).transpose()?,
        resolution: from.get_str("resolution").ok().map(ToOwned::to_owned),
    })
}
