//! The models that come with the crate.

mod multi;
mod queue;

use std::collections::BTreeSet;

use rustc_hash::FxHashSet;

pub use multi::MultiRegister;
pub use queue::{Fifo, Stack, UnorderedQueue};

use super::model::{Call, Merge, Model, Partition, Role};
use crate::history::Outcome;
use crate::value::Value;

/// What a failed compare-and-set says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FailedCas {
    /// Only that it did not happen: Jepsen's and Knossos' convention, always sound.
    #[default]
    DidNotHappen,
    /// That the register did not hold the expected value: etcd answers so.
    Mismatch,
}

fn pair<'v>(call: &Call<'v>) -> Result<(&'v Value, &'v Value), String> {
    match call.input.as_items() {
        Some([from, to]) => Ok((from, to)),
        _ => Err(format!("{} needs a value [expected new], not {}", call.f, call.input)),
    }
}

fn unknown<T>(model: &str, call: &Call<'_>) -> Result<T, String> {
    Err(format!("the model {model} has no operation {}", call.f))
}

/// A register with `read`, `write` and `cas` (value `[expected new]`).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Register {
    /// The value before everything.
    pub initial: Value,
    /// What a failed `cas` says.
    pub failed_cas: FailedCas,
    /// A read that returned `nil` says nothing. Set by default if the initial value is not `nil`:
    /// nobody could have read it then.
    pub nil_is_unknown: bool,
}

impl Register {
    /// A register that holds `initial` at first.
    pub fn new(initial: Value) -> Self {
        let nil_is_unknown = !initial.is_nil();
        Self { initial, failed_cas: FailedCas::DidNotHappen, nil_is_unknown }
    }

    /// The same with reads that returned `nil` taken for reads of the value `nil`, or for reads whose
    /// result is not known, as Knossos takes them.
    #[must_use]
    pub fn nil_is_unknown(mut self, unknown: bool) -> Self {
        self.nil_is_unknown = unknown;
        self
    }

    /// The same with a failed `cas` read as `says`.
    #[must_use]
    pub fn failed_cas(mut self, says: FailedCas) -> Self {
        self.failed_cas = says;
        self
    }
}

/// An operation on a register.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RegisterOp {
    Read(Value),
    Write(Value),
    Cas(Value, Value),
    Mismatch(Value),
}

impl Model for Register {
    type State = Value;
    type Op = RegisterOp;

    fn name(&self) -> String {
        format!("cas-register init={}", self.initial)
    }

    fn initial(&self, _: Option<&Value>) -> Value {
        self.initial.clone()
    }

    fn prepare(&self, call: &Call<'_>) -> Result<Option<RegisterOp>, String> {
        let failed = call.outcome == Outcome::Fail;
        Ok(match call.f {
            "read" | "r" | "get" => match call.outcome {
                Outcome::Ok if !(call.output.is_nil() && self.nil_is_unknown) => {
                    Some(RegisterOp::Read(call.output.clone()))
                }
                _ => None,
            },
            "write" | "w" | "put" => (!failed).then(|| RegisterOp::Write(call.input.clone())),
            "cas" | "compare-and-set" => {
                let (from, to) = pair(call)?;
                let mismatch = self.failed_cas == FailedCas::Mismatch && !call.has_error;
                match failed {
                    false => Some(RegisterOp::Cas(from.clone(), to.clone())),
                    true if mismatch => Some(RegisterOp::Mismatch(from.clone())),
                    true => None,
                }
            }
            _ => return unknown("register", call),
        })
    }

    fn step(&self, state: &Value, op: &RegisterOp) -> Option<Value> {
        match op {
            RegisterOp::Read(seen) => (seen == state).then(|| state.clone()),
            RegisterOp::Write(value) => Some(value.clone()),
            RegisterOp::Cas(from, to) => (from == state).then(|| to.clone()),
            RegisterOp::Mismatch(from) => (from != state).then(|| state.clone()),
        }
    }

    fn reads_only(&self, op: &RegisterOp) -> bool {
        match op {
            RegisterOp::Read(_) | RegisterOp::Mismatch(_) => true,
            RegisterOp::Cas(from, to) => from == to,
            RegisterOp::Write(_) => false,
        }
    }

    fn overwrites(&self, op: &RegisterOp) -> bool {
        matches!(op, RegisterOp::Write(_))
    }

    /// Values that nobody asks for are all the same.
    fn merge(&self, ops: &[RegisterOp]) -> Option<Merge<Value>> {
        let asked = ops.iter().filter_map(|op| match op {
            RegisterOp::Read(value) | RegisterOp::Cas(value, _) | RegisterOp::Mismatch(value) => {
                Some(value.clone())
            }
            RegisterOp::Write(_) => None,
        });
        let asked: FxHashSet<Value> = asked.collect();
        let mut other = String::from("another value");
        while asked.contains(&Value::from(other.as_str())) {
            other.push('\'');
        }
        let other = Value::from(other.as_str());
        Some(Box::new(move |value| if asked.contains(&value) { value } else { other.clone() }))
    }

    fn role(&self, op: &RegisterOp) -> Role {
        match op {
            RegisterOp::Read(seen) => Role::Read(seen.clone()),
            RegisterOp::Write(value) => Role::Write(value.clone()),
            RegisterOp::Cas(from, to) if from == to => Role::Read(from.clone()),
            RegisterOp::Cas(from, to) => Role::Cas(from.clone(), to.clone()),
            RegisterOp::Mismatch(_) => Role::Other,
        }
    }
}

/// Strings under keys with `get`, `put` and `append`; absent is `""`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct KeyValue {}

/// An operation on a key.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyValueOp {
    Get(Box<str>),
    Put(Box<str>),
    Append(Box<str>),
}

fn text(value: &Value) -> Box<str> {
    match value {
        Value::Nil => "".into(),
        Value::Str(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

impl Model for KeyValue {
    type State = String;
    type Op = KeyValueOp;

    fn name(&self) -> String {
        "kv get/put/append".into()
    }

    fn initial(&self, _: Option<&Value>) -> String {
        String::new()
    }

    fn prepare(&self, call: &Call<'_>) -> Result<Option<KeyValueOp>, String> {
        let failed = call.outcome == Outcome::Fail;
        Ok(match call.f {
            "get" | "read" => {
                (call.outcome == Outcome::Ok).then(|| KeyValueOp::Get(text(call.output)))
            }
            "put" | "write" => (!failed).then(|| KeyValueOp::Put(text(call.input))),
            "append" => (!failed).then(|| KeyValueOp::Append(text(call.input))),
            _ => return unknown("kv", call),
        })
    }

    fn step(&self, state: &String, op: &KeyValueOp) -> Option<String> {
        match op {
            KeyValueOp::Get(seen) => (**seen == **state).then(|| state.clone()),
            KeyValueOp::Put(value) => Some(value.to_string()),
            KeyValueOp::Append(value) => Some([&**state, &**value].concat()),
        }
    }

    fn apply(&self, state: &mut String, op: &KeyValueOp) -> bool {
        match op {
            KeyValueOp::Get(seen) => return **seen == **state,
            KeyValueOp::Put(value) => (**value).clone_into(state),
            KeyValueOp::Append(value) => state.push_str(value),
        }
        true
    }

    fn reads_only(&self, op: &KeyValueOp) -> bool {
        matches!(op, KeyValueOp::Get(_))
    }

    fn overwrites(&self, op: &KeyValueOp) -> bool {
        matches!(op, KeyValueOp::Put(_))
    }

    fn always_legal(&self, op: &KeyValueOp) -> bool {
        !matches!(op, KeyValueOp::Get(_))
    }

    /// Texts that begin nothing that was read are all the same, and stay so whatever is appended.
    fn merge(&self, ops: &[KeyValueOp]) -> Option<Merge<String>> {
        let seen = ops.iter().filter_map(|op| match op {
            KeyValueOp::Get(seen) => Some(seen.clone()),
            _ => None,
        });
        let mut seen: Vec<Box<str>> = seen.collect();
        seen.sort_unstable();
        let begins = move |text: &str| {
            let at = seen.partition_point(|value| **value < *text);
            seen.get(at).is_some_and(|value| value.starts_with(text))
        };
        let mut other = String::from("a text that nobody saw");
        while begins(&other) {
            other.push('\'');
        }
        Some(Box::new(move |text| if begins(&text) { text } else { other.clone() }))
    }

    fn role(&self, op: &KeyValueOp) -> Role {
        let value = |text: &str| Value::from(text);
        match op {
            KeyValueOp::Get(seen) => Role::Read(value(seen)),
            KeyValueOp::Put(text) => Role::Write(value(text)),
            KeyValueOp::Append(text) => Role::Append(value(text)),
        }
    }

    fn state_bytes(&self, state: &String) -> usize {
        state.len() + 24
    }
}

/// A lock with `acquire` and `release`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Mutex {}

impl Model for Mutex {
    type State = bool;
    type Op = bool;

    fn name(&self) -> String {
        "mutex".into()
    }

    fn initial(&self, _: Option<&Value>) -> bool {
        false
    }

    fn prepare(&self, call: &Call<'_>) -> Result<Option<bool>, String> {
        let failed = call.outcome == Outcome::Fail;
        Ok(match call.f {
            "acquire" | "lock" => (!failed).then_some(true),
            "release" | "unlock" => (!failed).then_some(false),
            _ => return unknown("mutex", call),
        })
    }

    fn step(&self, held: &bool, acquire: &bool) -> Option<bool> {
        (held != acquire).then_some(*acquire)
    }
}

/// A set of elements with `add`, `remove` and `contains` (value `[element bool]`, or a completion
/// of `true` or `false`), and `read` of all elements.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SetModel {}

/// An operation on a set.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SetOp {
    Add(Value),
    Remove(Value),
    Contains(Value, bool),
    Read(BTreeSet<Value>),
}

impl Model for SetModel {
    type State = BTreeSet<Value>;
    type Op = SetOp;

    fn name(&self) -> String {
        "set".into()
    }

    fn initial(&self, _: Option<&Value>) -> Self::State {
        BTreeSet::new()
    }

    fn prepare(&self, call: &Call<'_>) -> Result<Option<SetOp>, String> {
        let (failed, ok) = (call.outcome == Outcome::Fail, call.outcome == Outcome::Ok);
        Ok(match call.f {
            "add" | "insert" => (!failed).then(|| SetOp::Add(call.input.clone())),
            "remove" | "delete" => (!failed).then(|| SetOp::Remove(call.input.clone())),
            "contains" if ok => match (call.output, call.output.as_items()) {
                (Value::Bool(found), _) => Some(SetOp::Contains(call.input.clone(), *found)),
                (_, Some([element, Value::Bool(found)])) => {
                    Some(SetOp::Contains(element.clone(), *found))
                }
                _ => return Err(format!("contains returned {}", call.output)),
            },
            "read" if ok => {
                let items = call.output.as_items();
                let items = items.ok_or_else(|| format!("{} is no set", call.output))?;
                Some(SetOp::Read(items.iter().cloned().collect()))
            }
            "contains" | "read" => None,
            _ => return unknown("set", call),
        })
    }

    fn step(&self, state: &Self::State, op: &SetOp) -> Option<Self::State> {
        match op {
            SetOp::Add(element) => {
                let mut after = state.clone();
                after.insert(element.clone());
                Some(after)
            }
            SetOp::Remove(element) => {
                let mut after = state.clone();
                after.remove(element);
                Some(after)
            }
            SetOp::Contains(element, found) => {
                (state.contains(element) == *found).then(|| state.clone())
            }
            SetOp::Read(all) => (all == state).then(|| state.clone()),
        }
    }

    fn reads_only(&self, op: &SetOp) -> bool {
        matches!(op, SetOp::Contains(..) | SetOp::Read(_))
    }

    /// Each element is an object of its own, unless the whole set is read.
    fn partition(&self, call: &Call<'_>) -> Partition {
        match (call.f, call.output.as_items()) {
            ("read", _) => Partition::Whole,
            ("contains", Some([element, _])) => Partition::Key(element.clone()),
            _ => Partition::Key(call.input.clone()),
        }
    }

    fn state_bytes(&self, state: &Self::State) -> usize {
        state.len() * 40 + 24
    }
}

/// A counter with `add` (value: by how much) and `read`; for counters that are read while others
/// add without an order, [`crate::checkers::Counter`] is the fast checker.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Counter {}

/// An operation on a counter.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CounterOp {
    Add(i64),
    Read(i64),
}

impl Model for Counter {
    type State = i64;
    type Op = CounterOp;

    fn name(&self) -> String {
        "counter".into()
    }

    fn initial(&self, _: Option<&Value>) -> i64 {
        0
    }

    fn prepare(&self, call: &Call<'_>) -> Result<Option<CounterOp>, String> {
        let number = |value: &Value| value.as_int().ok_or_else(|| format!("{value} is no number"));
        let sign = if matches!(call.f, "decr" | "subtract") { -1 } else { 1 };
        Ok(match call.f {
            "add" | "incr" | "increment" | "decr" | "subtract" => match call.outcome {
                Outcome::Fail => None,
                _ if call.input.is_nil() => Some(CounterOp::Add(sign)),
                _ => Some(CounterOp::Add(sign.saturating_mul(number(call.input)?))),
            },
            "read" => match call.outcome {
                Outcome::Ok if !call.output.is_nil() => Some(CounterOp::Read(number(call.output)?)),
                _ => None,
            },
            _ => return unknown("counter", call),
        })
    }

    fn step(&self, state: &i64, op: &CounterOp) -> Option<i64> {
        match op {
            CounterOp::Add(by) => state.checked_add(*by),
            CounterOp::Read(seen) => (seen == state).then_some(*state),
        }
    }

    fn reads_only(&self, op: &CounterOp) -> bool {
        matches!(op, CounterOp::Read(_))
    }
}
