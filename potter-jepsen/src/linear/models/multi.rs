//! Several registers that are read and written together.

use std::collections::BTreeMap;

use super::super::model::{Call, Model, Partition};
use crate::history::Outcome;
use crate::value::Value;

/// Several registers that one operation may touch together: `read` and `write` with a map
/// `{key value}`, `txn` with `[[:r key value] [:w key value]]`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MultiRegister {
    /// The value of every register before everything.
    pub initial: Value,
    /// The registers that hold something else at first.
    pub initials: BTreeMap<Value, Value>,
    /// A read that returned `nil` says nothing. Set by default if some initial value is not `nil`, as
    /// for [`Register`](super::Register).
    pub nil_is_unknown: bool,
}

impl MultiRegister {
    /// Registers that all hold `initial` at first.
    pub fn new(initial: Value) -> Self {
        let nil_is_unknown = !initial.is_nil();
        Self { initial, initials: BTreeMap::new(), nil_is_unknown }
    }

    /// The same with other initial values for some registers.
    #[must_use]
    pub fn with(mut self, initials: impl IntoIterator<Item = (Value, Value)>) -> Self {
        self.initials.extend(initials);
        self.nil_is_unknown |= self.initials.values().any(|value| !value.is_nil());
        self
    }
}

/// (write?, key, value) in order; a `None` was read without a known result.
type MultiOp = Vec<(bool, Value, Option<Value>)>;

impl Model for MultiRegister {
    type State = BTreeMap<Value, Value>;
    type Op = MultiOp;

    fn name(&self) -> String {
        "multi-register".into()
    }

    fn initial(&self, _: Option<&Value>) -> Self::State {
        self.initials.clone()
    }

    fn prepare(&self, call: &Call<'_>) -> Result<Option<MultiOp>, String> {
        let ok = call.outcome == Outcome::Ok;
        if call.outcome == Outcome::Fail {
            return Ok(None);
        }
        let source = if ok && !call.output.is_nil() { call.output } else { call.input };
        let mut op = Vec::new();
        match (source, call.f) {
            (Value::Map(entries), f) => {
                let write = matches!(f, "write" | "w");
                for (key, value) in entries {
                    let value = (write || ok).then(|| value.clone());
                    op.push((write, key.clone(), value));
                }
            }
            (other, f) => {
                let micros = other.as_items().ok_or_else(|| format!("{f} needs [[:r k v] …]"))?;
                for micro in micros {
                    let (kind, key, value) = match micro.as_items() {
                        Some([kind, key, value]) => (kind, key, value),
                        Some([kind, key]) if matches!(kind.as_name(), Some("r" | "read")) => {
                            (kind, key, &Value::Nil)
                        }
                        _ => {
                            return Err(format!("{micro} is not [:r key value] or [:w key value]"));
                        }
                    };
                    let write = match kind.as_name() {
                        Some("r" | "read") => false,
                        Some("w" | "write") => true,
                        _ => return Err(format!("{kind} is neither :r nor :w")),
                    };
                    op.push((write, key.clone(), (write || ok).then(|| value.clone())));
                }
            }
        }
        let says = |value: &Value| !(self.nil_is_unknown && value.is_nil());
        op.retain(|(write, _, value)| *write || value.as_ref().is_some_and(says));
        Ok((!op.is_empty()).then_some(op))
    }

    fn step(&self, state: &Self::State, op: &MultiOp) -> Option<Self::State> {
        let mut after = state.clone();
        for (write, key, value) in op {
            let Some(value) = value else { continue };
            if *write {
                after.insert(key.clone(), value.clone());
            } else if after.get(key).unwrap_or(&self.initial) != value {
                return None;
            }
        }
        Some(after)
    }

    fn reads_only(&self, op: &MultiOp) -> bool {
        op.iter().all(|(write, ..)| !write)
    }

    fn partition(&self, _: &Call<'_>) -> Partition {
        Partition::Whole
    }

    fn state_bytes(&self, state: &Self::State) -> usize {
        state.len() * 64 + 24
    }
}
