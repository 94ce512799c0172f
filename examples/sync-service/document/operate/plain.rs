//! Operations on counters, sets, flags and texts.

use potter_crdt::{
    ActorId, BoundedCounter, Context, EnableWinsFlag, GCounter, GSet, JsonValue, OrSet, PnCounter,
    ResettableCounter, Rga, TwoPhaseSet, Writer,
};
use serde_json::Value;

use super::{Applied, JoinIn, Refused, changed, need, with_own};
use crate::document::Operation;

/// What became of an operation; `None` if the type has no such one.
type Done = Result<Option<Applied>, Refused>;

fn done(really: bool) -> Done {
    Ok(Some(changed(really)))
}

pub(super) fn g_counter(state: &mut GCounter, op: &Operation, by: &mut Writer) -> Done {
    if !matches!(op.kind.as_str(), "increment" | "inc") {
        return Ok(None);
    }
    state.increment(by, amount(op)?)?;
    done(true)
}

/// How much an operation adds; `None` if it is another one.
fn difference(op: &Operation) -> Result<Option<i64>, Refused> {
    match op.kind.as_str() {
        "increment" | "inc" => signed(op, false).map(Some),
        "decrement" | "dec" => signed(op, true).map(Some),
        _ => Ok(None),
    }
}

pub(super) fn pn_counter(state: &mut PnCounter, op: &Operation, by: &mut Writer) -> Done {
    let Some(difference) = difference(op)? else { return Ok(None) };
    state.add(by, difference)?;
    done(true)
}

pub(super) fn resettable_counter(
    state: &mut ResettableCounter,
    op: &Operation,
    by: &mut Writer,
) -> Done {
    if op.kind == "reset" {
        return done(state.reset());
    }
    let Some(difference) = difference(op)? else { return Ok(None) };
    state.add(by, difference)?;
    done(true)
}

/// Rights belong to the device in all its lives.
pub(super) fn bounded_counter(state: &mut BoundedCounter, op: &Operation, device: &str) -> Done {
    let mut by = Writer::open(ActorId::new(device)?, state);
    match op.kind.as_str() {
        "increment" | "inc" => state.increment(&mut by, amount(op)?)?,
        "decrement" | "dec" => state.decrement(&mut by, amount(op)?)?,
        "transfer" => {
            let to = ActorId::new(need(op.to.as_deref(), "to")?)?;
            state.transfer(&mut by, &to, amount(op)?)?;
        }
        _ => return Ok(None),
    }
    done(true)
}

pub(super) fn g_set(state: &mut GSet<JsonValue>, op: &Operation) -> Done {
    if op.kind == "add" { done(state.insert(element(op)?)) } else { Ok(None) }
}

pub(super) fn two_phase_set(state: &mut TwoPhaseSet<JsonValue>, op: &Operation) -> Done {
    match op.kind.as_str() {
        "add" => done(state.insert(element(op)?)),
        "remove" => done(state.remove(&element(op)?)),
        _ => Ok(None),
    }
}

pub(super) fn or_set(
    state: &mut OrSet<JsonValue>,
    op: &Operation,
    seen: Option<&Context>,
    by: &mut Writer,
) -> Done {
    match op.kind.as_str() {
        "add" => {
            state.add(by, element(op)?)?;
            done(true)
        }
        "remove" => {
            let mut dots = state.dots(&element(op)?);
            if let Some(seen) = seen {
                dots.retain(|dot| seen.contains(dot) || dot.actor == *by.actor());
            }
            let gone = !dots.is_empty();
            state.remove_dots(&dots)?;
            done(gone)
        }
        _ => Ok(None),
    }
}

pub(super) fn flag(
    state: &mut EnableWinsFlag,
    op: &Operation,
    seen: Option<Context>,
    by: &mut Writer,
) -> Done {
    match op.kind.as_str() {
        "enable" => {
            state.enable(by)?;
            done(true)
        }
        "disable" => {
            let Some(seen) = seen else { return done(!state.disable().is_empty_delta()) };
            let delta = state.seen_by(&with_own(seen, by)?).disable();
            done(state.join_in(&delta)?)
        }
        _ => Ok(None),
    }
}

/// In the text as it is here and now.
pub(super) fn text(state: &mut Rga, op: &Operation, by: &mut Writer) -> Done {
    match op.kind.as_str() {
        "insert" => {
            let piece = text_of(op)?;
            let index = op.index.map_or(Ok(state.len()), usize::try_from);
            let index = index.map_err(|_| Refused::new("invalid_index", "index is too large."))?;
            state.insert(by, index, piece)?;
            done(!piece.is_empty())
        }
        "delete" => {
            let index = usize::try_from(need(op.index, "index")?).unwrap_or(usize::MAX);
            let count = usize::try_from(op.count.unwrap_or(1)).unwrap_or(usize::MAX);
            state.delete(by, index, count)?;
            done(count > 0)
        }
        _ => Ok(None),
    }
}

fn element(op: &Operation) -> Result<JsonValue, Refused> {
    Ok(JsonValue::from(&need(op.value.clone(), "value")?))
}

fn text_of(op: &Operation) -> Result<&str, Refused> {
    op.value.as_ref().and_then(Value::as_str).ok_or_else(|| {
        Refused::new("invalid_value", "value must be the text to insert, a JSON string.")
    })
}

/// A whole number of at least 0; 1 if it is left out. Large ones may be strings.
fn amount(op: &Operation) -> Result<u64, Refused> {
    let number = match &op.value {
        None => Some(1),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => None,
    };
    number.ok_or_else(|| {
        Refused::new("invalid_value", "value must be a whole number from 0 to 2^64 - 1.")
    })
}

fn signed(op: &Operation, negative: bool) -> Result<i64, Refused> {
    let bad = || Refused::new("invalid_value", "value must be a whole number within 64 bits.");
    let number = match &op.value {
        None => Some(1),
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => None,
    };
    let number: i64 = number.ok_or_else(bad)?;
    if negative { number.checked_neg().ok_or_else(bad) } else { Ok(number) }
}
