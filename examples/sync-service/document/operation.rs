//! What a device asks for.

use std::collections::BTreeMap;

use potter_crdt::{ActorId, Context, JsonValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// One operation of a device on one entity.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// What to do; which there are depends on the entity's `crdt_type`.
    #[serde(rename = "type")]
    #[schema(example = "set")]
    pub kind: String,
    /// With what; `null` is a value too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub value: Option<Value>,
    /// When, by the device's clock (RFC 3339). Needed where the last writer wins; the server's time
    /// if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "2024-01-01T10:00:00Z")]
    pub timestamp: Option<String>,
    /// Tells stamps of one instant apart (the counter of a hybrid logical clock).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<u32>,
    /// Which entry of a map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where in a text, characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// How many characters of a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The device that gets rights of a bounded counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The operation's own name, unique among all of the user: it is counted once, however often
    /// and by however many devices it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op_id: Option<String>,
    /// What the device had seen of the entity when it wrote: the `context` of its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub context: Option<BTreeMap<String, Seen>>,
}

/// What was seen of an actor: the first `n` events, or ranges of them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Seen {
    /// Events 1 to n.
    First(u64),
    /// These, both ends included.
    Ranges(Vec<(u64, u64)>),
}

impl Operation {
    /// What the operation is, whoever sends it and whatever it had seen: what a retry must repeat.
    pub fn payload(&self) -> String {
        let value = self.value.as_ref().map(|value| JsonValue::from(value).as_str().to_owned());
        let parts = (
            &self.kind,
            value,
            &self.timestamp,
            self.counter,
            &self.key,
            self.index,
            self.count,
            &self.to,
        );
        serde_json::to_string(&parts).unwrap_or_default()
    }

    /// The context as `potter-crdt` has it.
    ///
    /// # Errors
    /// `InvalidInput` for an actor or a range that can't be.
    pub fn seen(&self) -> potter_crdt::Result<Option<Context>> {
        let Some(entries) = &self.context else { return Ok(None) };
        let mut context = Context::new();
        for (actor, seen) in entries {
            let actor = ActorId::new(actor)?;
            match seen {
                Seen::First(0) => {}
                Seen::First(n) => {
                    context.insert_range(&actor, 1, *n)?;
                }
                Seen::Ranges(ranges) => {
                    for (lo, hi) in ranges {
                        context.insert_range(&actor, *lo, *hi)?;
                    }
                }
            }
        }
        Ok(Some(context))
    }
}
