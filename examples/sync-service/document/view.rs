//! What a document shows, and where it is in conflict.

use potter_crdt::{JsonValue, LwwStore, Stamped};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{Document, Register};

/// One of several values that stand side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sibling {
    /// The value; `null` for a deletion.
    #[schema(value_type = Object)]
    pub value: Value,
    /// When it was written, as it counts.
    pub timestamp: String,
    /// By which device.
    pub node_id: String,
    /// It is the one that is shown where the last writer wins.
    pub shown: bool,
}

impl Document {
    /// What a user sees.
    pub fn value(&self) -> Value {
        match self {
            Self::LwwRegister(register) => shown(register),
            Self::MvRegister(register) => all(register.store()),
            Self::GCounter(counter) => number(counter.value()),
            Self::PnCounter(counter) => number(counter.value()),
            Self::ResettableCounter(counter) => number(counter.value()),
            Self::BoundedCounter(counter) => number(counter.value()),
            Self::GSet(set) => sorted(set.iter()),
            Self::TwoPhaseSet(set) => sorted(set.iter()),
            Self::OrSet(set) => sorted(set.iter()),
            Self::LwwMap(map) => Value::Object(
                map.iter().map(|(key, value)| (key.clone(), value.to_value())).collect(),
            ),
            Self::OrMap(map) => Value::Object(entries(map.iter())),
            Self::EwFlag(flag) => Value::Bool(flag.is_enabled()),
            Self::Rga(text) => Value::String(text.to_string()),
        }
    }

    /// The stamp of what a last-writer-wins register shows: `timestamp` and `node_id`.
    pub fn stamp(&self) -> Option<(String, String)> {
        let Self::LwwRegister(register) = self else { return None };
        let top = register.store().top()?;
        Some((top.stamp.at.to_string(), top.stamp.node.to_string()))
    }

    /// Where different values stand side by side: by the key of a map, or `None`.
    pub fn conflicts(&self) -> Vec<(Option<String>, Vec<Sibling>)> {
        match self {
            Self::LwwRegister(register) | Self::MvRegister(register) => {
                siblings(register.store()).map(|found| (None, found)).into_iter().collect()
            }
            Self::LwwMap(map) => map
                .store()
                .writes()
                .filter_map(|(key, entry)| Some((Some(key.clone()), siblings(entry)?)))
                .collect(),
            Self::OrMap(map) => map
                .iter()
                .filter_map(|(key, entry)| Some((Some(key.clone()), siblings(entry)?)))
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn shown(register: &Register) -> Value {
    register.store().get().map_or(Value::Null, JsonValue::to_value)
}

fn ordered(store: &LwwStore<JsonValue>) -> Vec<&Stamped<JsonValue>> {
    let mut writes: Vec<_> = store.values().collect();
    writes.sort_unstable_by(|a, b| b.cmp(a));
    writes
}

/// The values, the latest first.
fn all(store: &LwwStore<JsonValue>) -> Value {
    let mut values: Vec<&JsonValue> = Vec::new();
    for write in ordered(store) {
        if let Some(value) = &write.value
            && !values.contains(&value)
        {
            values.push(value);
        }
    }
    values.into_iter().map(JsonValue::to_value).collect()
}

fn siblings(store: &LwwStore<JsonValue>) -> Option<Vec<Sibling>> {
    let writes = ordered(store);
    let first = writes.first()?;
    if writes.iter().all(|write| write.value == first.value) {
        return None;
    }
    let sibling = |(at, write): (usize, &&Stamped<JsonValue>)| Sibling {
        value: write.value.as_ref().map_or(Value::Null, JsonValue::to_value),
        timestamp: write.stamp.at.to_string(),
        node_id: write.stamp.node.to_string(),
        shown: at == 0,
    };
    Some(writes.iter().enumerate().map(sibling).collect())
}

fn entries<'a>(
    entries: impl Iterator<Item = (&'a String, &'a LwwStore<JsonValue>)>,
) -> Map<String, Value> {
    entries.map(|(key, entry)| (key.clone(), all(entry))).collect()
}

fn sorted<'a>(elements: impl Iterator<Item = &'a JsonValue>) -> Value {
    let mut elements: Vec<_> = elements.collect();
    elements.sort_unstable();
    elements.into_iter().map(JsonValue::to_value).collect()
}

/// Integers that not every reader of JSON keeps are strings.
fn number(value: impl TryInto<i64> + ToString + Copy) -> Value {
    const EXACT_MAX: i64 = (1 << 53) - 1;
    match value.try_into() {
        Ok(small) if (-EXACT_MAX..=EXACT_MAX).contains(&small) => json!(small),
        _ => Value::String(value.to_string()),
    }
}

impl Document {
    /// The greatest stamp in it: what a device has read when it shows this.
    pub fn top_stamp(&self) -> Option<potter_crdt::Stamp> {
        let top = |store: &LwwStore<JsonValue>| store.top().map(|write| write.stamp.clone());
        match self {
            Self::LwwRegister(register) | Self::MvRegister(register) => top(register.store()),
            Self::LwwMap(map) => map.store().writes().filter_map(|(_, entry)| top(entry)).max(),
            Self::OrMap(map) => map.iter().filter_map(|(_, entry)| top(entry)).max(),
            _ => None,
        }
    }
}
