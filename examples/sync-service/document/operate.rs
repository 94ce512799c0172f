//! Operations on documents, on behalf of a device.
//!
//! Invariant: an operation replaces and removes what its device had seen, and nothing else. The
//! device says what that was by the operation's `context`; its own operations before this one are
//! always counted in. Without a context
//! - a write to a register or a map's entry has seen only what the same device wrote: the others'
//!   values stay beside it, as a conflict, because nobody can tell that they were meant to go;
//! - a removal takes what the server has: that is what "remove" asks for.
//!
//! Events are named (dots are minted) here, under an actor of the device, its incarnation and the
//! epoch, so no device can name two events alike. A device that keeps CRDTs of its own sends
//! `merge` with a delta; its events carry the actor `device#incarnation` and no other new one.

use std::time::Duration;

use potter_crdt::{
    ActorId, Authored, Causal, Context, DotStore, ErrorKind, Hlc, JsonValue, LwwMap, SkewGuard,
    Stamp, Stamped, Timestamp, Writer,
};
use serde_json::Value;

use super::{Document, Kind, Operation, Register};

/// Who writes, and when.
#[derive(Debug)]
pub struct Author<'a> {
    /// The device.
    pub device: &'a str,
    /// Which life of it.
    pub incarnation: u64,
    /// Which history of the server.
    pub epoch: &'a str,
    /// The server's time.
    pub now: Timestamp,
    /// What the device's clock may say.
    pub guard: &'a mut SkewGuard,
}

impl Author<'_> {
    /// The actor of events that are named here.
    fn actor(&self) -> Result<ActorId, Refused> {
        let name = format!("{}#{}.{}", self.device, self.incarnation, self.epoch);
        Ok(ActorId::new(name)?)
    }

    /// The actor of events that the device names itself.
    fn own_actor(&self) -> Result<ActorId, Refused> {
        Ok(ActorId::incarnation(self.device, self.incarnation)?)
    }
}

/// What became of an operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// The state is another than before.
    pub changed: bool,
    /// The stamp under which a write counts.
    pub stamp: Option<Stamp>,
    /// How far the device's clock was ahead, if the stamp was set back.
    pub clamped_by: Option<Duration>,
    /// A later write of the same device is there already.
    pub superseded: bool,
    /// The same device wrote the same value at the same instant: this is that write again.
    pub repeated: bool,
}

/// Why an operation was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Stable, snake_case.
    pub code: &'static str,
    /// What was wrong and what to do.
    pub detail: String,
}

impl Refused {
    pub(crate) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

impl From<potter_crdt::Error> for Refused {
    fn from(error: potter_crdt::Error) -> Self {
        let code = match error.kind() {
            ErrorKind::ActorReused | ErrorKind::StaleState => "actor_reused",
            ErrorKind::Overflow => "overflow",
            ErrorKind::InsufficientRights => "insufficient_rights",
            ErrorKind::LimitExceeded => "limit_exceeded",
            ErrorKind::Malformed | ErrorKind::WrongType | ErrorKind::UnsupportedVersion => {
                "malformed_state"
            }
            _ => "invalid_operation",
        };
        Self::new(code, error.to_string())
    }
}

impl Document {
    /// Applies one operation.
    ///
    /// # Errors
    /// [`Refused`], and nothing is changed.
    pub fn apply(&mut self, op: &Operation, author: &mut Author<'_>) -> Result<Applied, Refused> {
        if op.kind == "merge" {
            return self.merge_own(op, author);
        }
        let kind = self.kind();
        let seen = op.seen()?;
        let mut by = Writer::open(author.actor()?, self);
        match (self, op.kind.as_str()) {
            (Self::LwwRegister(register), "set") => {
                let value = Some(json_of(op));
                write_register(register, value, op, seen, author, &mut by, true)
            }
            (Self::LwwRegister(register), "delete" | "clear") => {
                write_register(register, None, op, seen, author, &mut by, true)
            }
            (Self::MvRegister(register), "set" | "write") => {
                let value = Some(json_of(op));
                write_register(register, value, op, seen, author, &mut by, false)
            }
            (Self::GCounter(counter), "increment" | "inc") => {
                counter.increment(&mut by, amount(op)?)?;
                Ok(changed(true))
            }
            (Self::PnCounter(counter), name @ ("increment" | "inc" | "decrement" | "dec")) => {
                counter.add(&mut by, signed(op, name.starts_with("dec"))?)?;
                Ok(changed(true))
            }
            (
                Self::ResettableCounter(counter),
                name @ ("increment" | "inc" | "decrement" | "dec"),
            ) => {
                counter.add(&mut by, signed(op, name.starts_with("dec"))?)?;
                Ok(changed(true))
            }
            (Self::ResettableCounter(counter), "reset") => Ok(changed(counter.reset())),
            (Self::GSet(set), "add") => Ok(changed(set.insert(element(op)?))),
            (Self::TwoPhaseSet(set), "add") => Ok(changed(set.insert(element(op)?))),
            (Self::TwoPhaseSet(set), "remove") => Ok(changed(set.remove(&element(op)?))),
            (Self::OrSet(set), "add") => {
                set.add(&mut by, element(op)?)?;
                Ok(changed(true))
            }
            (Self::OrSet(set), "remove") => {
                let element = element(op)?;
                let mut dots = set.dots(&element);
                if let Some(seen) = &seen {
                    dots.retain(|dot| seen.contains(dot) || dot.actor == *by.actor());
                }
                let gone = !dots.is_empty();
                set.remove_dots(&dots)?;
                Ok(changed(gone))
            }
            (Self::LwwMap(map), "set" | "put") => {
                write_entry(map, Some(json_of(op)), op, seen, author, &mut by)
            }
            (Self::LwwMap(map), "delete" | "remove") => {
                write_entry(map, None, op, seen, author, &mut by)
            }
            (Self::OrMap(map), "set" | "put") => {
                let (stamp, clamped_by) = admit(op, author)?;
                let key = key(op)?;
                let value = Stamped { stamp: stamp.clone(), value: Some(json_of(op)) };
                let mut view = map.seen_by(&with_own(seen.unwrap_or_default(), &by)?);
                view.update(&mut by, key, |entry, txn| entry.write(txn, value))?;
                let changed = map.join_in(&view)?;
                Ok(Applied { changed, stamp: Some(stamp), clamped_by, ..Applied::default() })
            }
            (Self::OrMap(map), "remove" | "delete") => {
                let key = key(op)?;
                let Some(seen) = seen else { return Ok(changed(map.remove(&mut by, &key)?)) };
                let mut view = map.seen_by(&with_own(seen, &by)?);
                view.remove(&mut by, &key)?;
                Ok(changed(map.join_in(&view)?))
            }
            (Self::EwFlag(flag), "enable") => {
                flag.enable(&mut by)?;
                Ok(changed(true))
            }
            (Self::EwFlag(flag), "disable") => {
                let Some(seen) = seen else { return Ok(changed(!flag.disable().is_empty_delta())) };
                let delta = flag.seen_by(&with_own(seen, &by)?).disable();
                Ok(changed(flag.join_in(&delta)?))
            }
            (Self::Rga(text), "insert") => {
                let piece = text_of(op)?;
                let index = op.index.map_or(Ok(text.len()), usize::try_from);
                let index =
                    index.map_err(|_| Refused::new("invalid_index", "index is too large."))?;
                text.insert(&mut by, index, piece)?;
                Ok(changed(!piece.is_empty()))
            }
            (Self::Rga(text), "delete") => {
                let index = usize::try_from(need(op.index, "index")?).unwrap_or(usize::MAX);
                let count = usize::try_from(op.count.unwrap_or(1)).unwrap_or(usize::MAX);
                text.delete(&mut by, index, count)?;
                Ok(changed(count > 0))
            }
            (Self::BoundedCounter(counter), name) => {
                // Rights belong to the device in all its lives.
                let actor = ActorId::new(author.device)?;
                let mut by = Writer::open(actor, counter);
                match name {
                    "increment" | "inc" => counter.increment(&mut by, amount(op)?)?,
                    "decrement" | "dec" => counter.decrement(&mut by, amount(op)?)?,
                    "transfer" => {
                        let to = ActorId::new(need(op.to.as_deref(), "to")?)?;
                        counter.transfer(&mut by, &to, amount(op)?)?;
                    }
                    _ => return Err(unknown(kind, name)),
                }
                Ok(changed(true))
            }
            (_, name) => Err(unknown(kind, name)),
        }
    }

    /// Takes in a delta that the device made itself.
    fn merge_own(&mut self, op: &Operation, author: &Author<'_>) -> Result<Applied, Refused> {
        let kind = self.kind();
        if matches!(
            kind,
            Kind::LwwRegister
                | Kind::MvRegister
                | Kind::LwwMap
                | Kind::OrMap
                | Kind::BoundedCounter
        ) {
            return Err(Refused::new(
                "merge_not_taken",
                format!(
                    "a {} is written by its operations ({}): its stamps and rights are the \
                     server's to give.",
                    kind.name(),
                    operations(kind)
                ),
            ));
        }
        let delta = Self::from_json(kind, &need(op.value.clone(), "value")?)?;
        let own = author.own_actor()?;
        if let Some(actor) = delta.foreign(self, &own)? {
            return Err(Refused::new(
                "foreign_events",
                format!(
                    "the delta has events of {actor} that the server does not know; this device \
                     may bring new events of {own} only."
                ),
            ));
        }
        Ok(changed(self.join(&delta)?))
    }

    /// An actor other than `own` of which this has events that `known` has not.
    fn foreign(&self, known: &Self, own: &ActorId) -> Result<Option<String>, Refused> {
        if let (Some(mine), Some(theirs)) = (self.context(), known.context()) {
            let new = mine.minus(theirs);
            let foreign = new.iter().map(|(actor, ..)| actor).find(|actor| *actor != own);
            return Ok(foreign.map(ToString::to_string));
        }
        let delta = self.delta_against(known)?.to_json();
        let Value::Object(rows) = delta else { return Ok(None) };
        let known = known.to_json();
        let counted = |row: &Value| row.get("counted").cloned();
        let foreign = rows.iter().find(|(actor, row)| {
            // What others counted may be reset, but not counted anew.
            let same = counted(row).is_some() && counted(row) == known.get(actor).and_then(counted);
            actor.as_str() != own.as_str()
                && !same
                && !matches!(self.kind(), Kind::GSet | Kind::TwoPhaseSet)
        });
        Ok(foreign.map(|(actor, _)| actor.clone()))
    }
}

/// The operations of a type, for an error.
fn operations(kind: Kind) -> &'static str {
    match kind {
        Kind::LwwRegister => "set, delete",
        Kind::MvRegister => "set",
        Kind::GCounter => "increment, merge",
        Kind::PnCounter => "increment, decrement, merge",
        Kind::ResettableCounter => "increment, decrement, reset, merge",
        Kind::BoundedCounter => "increment, decrement, transfer",
        Kind::GSet => "add, merge",
        Kind::TwoPhaseSet | Kind::OrSet => "add, remove, merge",
        Kind::LwwMap => "set, delete",
        Kind::OrMap => "set, remove",
        Kind::EwFlag => "enable, disable, merge",
        Kind::Rga => "insert, delete, merge",
    }
}

fn unknown(kind: Kind, name: &str) -> Refused {
    let name: String = name.chars().take(40).collect();
    let detail =
        format!("a {} has no operation {name:?}; it has: {}.", kind.name(), operations(kind));
    Refused::new("unknown_operation", detail)
}

fn changed(changed: bool) -> Applied {
    Applied { changed, ..Applied::default() }
}

impl Authored for Document {
    fn seq_of(&self, actor: &ActorId) -> u64 {
        match self {
            Self::LwwRegister(state) | Self::MvRegister(state) => state.seq_of(actor),
            Self::GCounter(state) => state.seq_of(actor),
            Self::PnCounter(state) => state.seq_of(actor),
            Self::ResettableCounter(state) => state.seq_of(actor),
            Self::BoundedCounter(state) => state.seq_of(actor),
            Self::GSet(_) | Self::TwoPhaseSet(_) => 0,
            Self::OrSet(state) => state.seq_of(actor),
            Self::LwwMap(state) => state.seq_of(actor),
            Self::OrMap(state) => state.seq_of(actor),
            Self::EwFlag(state) => state.seq_of(actor),
            Self::Rga(state) => state.seq_of(actor),
        }
    }
}

/// Joins with the refusal as this module has it.
trait JoinIn {
    fn join_in(&mut self, other: &Self) -> Result<bool, Refused>;
    fn is_empty_delta(&self) -> bool;
}

impl<S: DotStore> JoinIn for Causal<S> {
    fn join_in(&mut self, other: &Self) -> Result<bool, Refused> {
        Ok(potter_crdt::Join::join(self, other)?)
    }

    fn is_empty_delta(&self) -> bool {
        self.context().is_empty()
    }
}

/// `seen`, and all that this writer wrote.
fn with_own(mut seen: Context, by: &Writer) -> Result<Context, Refused> {
    if by.seq() > 0 {
        seen.insert_range(by.actor(), 1, by.seq())?;
    }
    Ok(seen)
}

/// The stamp under which a write counts.
fn admit(op: &Operation, author: &mut Author<'_>) -> Result<(Stamp, Option<Duration>), Refused> {
    let node = ActorId::new(author.device)?;
    let Some(text) = &op.timestamp else { return Ok((Stamp::new(author.now, node), None)) };
    let at = Timestamp::parse(text)
        .map_err(|error| Refused::new("invalid_timestamp", error.to_string()))?;
    let claimed = Stamp { at, counter: op.counter.unwrap_or(0), node };
    let admitted = author.guard.admit(author.now, &claimed)?;
    Ok((admitted.effective, admitted.clamped_by))
}

/// The smallest stamp at or above `stamp` that is above `read`.
fn above(stamp: Stamp, read: Option<&Stamp>) -> Result<Stamp, Refused> {
    match read {
        Some(read) if *read >= stamp => Ok(Hlc::resume(stamp.node, read).now(stamp.at)?),
        _ => Ok(stamp),
    }
}

/// Who reads and then writes wins over what it read. What only the same device wrote counts as
/// read when the instants are equal: its clock is coarse, its order is not.
fn lww_stamp(
    op: &Operation,
    author: &mut Author<'_>,
    top: Option<&Stamped<JsonValue>>,
) -> Result<(Stamp, Option<Duration>), Refused> {
    let (stamp, clamped_by) = admit(op, author)?;
    let read = top.map(|write| &write.stamp).filter(|top| {
        let again = top.node == stamp.node && top.at == stamp.at && op.counter.is_none();
        op.context.is_some() || again || op.timestamp.is_none()
    });
    Ok((above(stamp, read)?, clamped_by))
}

fn write_register(
    register: &mut Register,
    value: Option<JsonValue>,
    op: &Operation,
    seen: Option<Context>,
    author: &mut Author<'_>,
    by: &mut Writer,
    last_wins: bool,
) -> Result<Applied, Refused> {
    let mut view = register.seen_by(&with_own(seen.unwrap_or_default(), by)?);
    if view.store().values().any(|write| is_same(op, write, &value, author)) {
        return Ok(Applied { repeated: true, ..Applied::default() });
    }
    let (stamp, clamped_by) =
        if last_wins { lww_stamp(op, author, view.store().top())? } else { admit(op, author)? };
    let wrote = view.edit(by, |store, txn| {
        if last_wins {
            return store.set_stamped(txn, stamp.clone(), value);
        }
        store.write(txn, Stamped { stamp: stamp.clone(), value })?;
        Ok(true)
    })?;
    let changed = wrote && register.join_in(&view)?;
    Ok(Applied { changed, stamp: Some(stamp), clamped_by, superseded: !wrote, repeated: false })
}

fn write_entry(
    map: &mut LwwMap<String, JsonValue>,
    value: Option<JsonValue>,
    op: &Operation,
    seen: Option<Context>,
    author: &mut Author<'_>,
    by: &mut Writer,
) -> Result<Applied, Refused> {
    let key = key(op)?;
    let mut view = map.seen_by(&with_own(seen.unwrap_or_default(), by)?);
    if view.top(&key).is_some_and(|write| is_same(op, write, &value, author)) {
        return Ok(Applied { repeated: true, ..Applied::default() });
    }
    let (stamp, clamped_by) = lww_stamp(op, author, view.top(&key))?;
    let wrote = view.put_stamped(by, stamp.clone(), key, value)?;
    let changed = wrote && map.join_in(&view)?;
    Ok(Applied { changed, stamp: Some(stamp), clamped_by, superseded: !wrote, repeated: false })
}

/// Without an id, a write that comes again is known by its instant and value.
fn is_same(
    op: &Operation,
    write: &Stamped<JsonValue>,
    value: &Option<JsonValue>,
    author: &Author<'_>,
) -> bool {
    let at = op.timestamp.as_deref().and_then(|text| Timestamp::parse(text).ok());
    op.op_id.is_none()
        && write.stamp.node.as_str() == author.device
        && Some(write.stamp.at) == at
        && write.stamp.counter == op.counter.unwrap_or(0)
        && write.value == *value
}

fn json_of(op: &Operation) -> JsonValue {
    JsonValue::from(op.value.as_ref().unwrap_or(&Value::Null))
}

fn element(op: &Operation) -> Result<JsonValue, Refused> {
    Ok(JsonValue::from(&need(op.value.clone(), "value")?))
}

fn key(op: &Operation) -> Result<String, Refused> {
    need(op.key.clone(), "key")
}

fn text_of(op: &Operation) -> Result<&str, Refused> {
    op.value.as_ref().and_then(Value::as_str).ok_or_else(|| {
        Refused::new("invalid_value", "value must be the text to insert, a JSON string.")
    })
}

fn need<T>(field: Option<T>, name: &str) -> Result<T, Refused> {
    field.ok_or_else(|| {
        Refused::new("missing_field", format!("this operation needs the field {name:?}."))
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
