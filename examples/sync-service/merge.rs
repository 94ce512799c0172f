//! Two states into one: a pure function, the same for swapped arguments.

use examples_common::Problem;
use potter_crdt::{Codec, Join, JsonValue, LwwRegister};
use serde_json::{Map, Value, json};

use crate::document::{Document, Kind};

/// The join of two states of one type, as JSON.
///
/// A last-writer-wins register may be written flat, `{"value":…,"timestamp":…,"node_id":…}`; then
/// the answer is so too. Every other state is as `potter-crdt` writes it: the `state` of an entity, a
/// `delta` of a download, with or without the envelope of type and version.
///
/// # Errors
/// 422 for states that can't be read, 409 for two histories of one actor.
pub fn merge(kind: Kind, local: &Value, remote: &Value) -> Result<Value, Problem> {
    if kind == Kind::LwwRegister && is_flat(local) && is_flat(remote) {
        return flat(local, remote);
    }
    let mut merged = state(kind, local, "local_state")?;
    let other = state(kind, remote, "remote_state")?;
    merged.join(&other).map_err(|error| match error.kind() {
        potter_crdt::ErrorKind::ActorReused => {
            Problem::conflict("actor_reused", format!("{error}."))
        }
        _ => Problem::unprocessable("invalid_state", format!("{error}.")),
    })?;
    let mut answer = Map::new();
    answer.insert("crdt_type".into(), kind.name().into());
    answer.insert("value".into(), merged.value());
    if let Some((timestamp, node_id)) = merged.stamp() {
        answer.insert("timestamp".into(), timestamp.into());
        answer.insert("node_id".into(), node_id.into());
    }
    answer.insert("conflict".into(), (!merged.conflicts().is_empty()).into());
    answer.insert("state".into(), merged.to_json());
    Ok(Value::Object(answer))
}

fn is_flat(state: &Value) -> bool {
    state.get("timestamp").is_some() || state.get("node_id").is_some()
}

fn flat(local: &Value, remote: &Value) -> Result<Value, Problem> {
    let read = |state: &Value, field: &str| -> Result<LwwRegister<JsonValue>, Problem> {
        for name in ["value", "timestamp", "node_id"] {
            if state.get(name).is_none() {
                let message = format!("{field} needs value, timestamp and node_id.");
                return Err(Problem::unprocessable("invalid_state", message)
                    .with_field(format!("{field}.{name}"), "is missing"));
            }
        }
        LwwRegister::body_from_json(state).map_err(|error| unreadable(field, &error))
    };
    let mut merged = read(local, "local_state")?;
    merged
        .join(&read(remote, "remote_state")?)
        .map_err(|error| unreadable("remote_state", &error))?;
    let mut answer = merged.body_to_json();
    if let Some(object) = answer.as_object_mut() {
        object.insert("crdt_type".into(), json!(Kind::LwwRegister.name()));
    }
    Ok(answer)
}

fn state(kind: Kind, value: &Value, field: &str) -> Result<Document, Problem> {
    let body = match (value.get("type"), value.get("state")) {
        (Some(_), Some(body)) => body,
        _ => value,
    };
    Document::from_json(kind, body).map_err(|error| unreadable(field, &error))
}

fn unreadable(field: &str, error: &potter_crdt::Error) -> Problem {
    Problem::unprocessable("invalid_state", format!("{field} can't be read: {error}."))
        .with_field(field, error.to_string())
}
