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

mod plain;
mod stamped;

use std::time::Duration;

use potter_crdt::{
    ActorId, Authored, Causal, Context, DotStore, ErrorKind, JsonValue, SkewGuard, Stamp,
    Timestamp, Writer,
};
use serde_json::Value;

use super::{Document, Kind, Operation};

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
        let by = &mut by;
        let done = match self {
            Self::LwwRegister(state) => stamped::lww_register(state, op, seen, author, by)?,
            Self::MvRegister(state) => stamped::mv_register(state, op, seen, author, by)?,
            Self::LwwMap(state) => stamped::lww_map(state, op, seen, author, by)?,
            Self::OrMap(state) => stamped::or_map(state, op, seen, author, by)?,
            Self::GCounter(state) => plain::g_counter(state, op, by)?,
            Self::PnCounter(state) => plain::pn_counter(state, op, by)?,
            Self::ResettableCounter(state) => plain::resettable_counter(state, op, by)?,
            Self::BoundedCounter(state) => plain::bounded_counter(state, op, author.device)?,
            Self::GSet(state) => plain::g_set(state, op)?,
            Self::TwoPhaseSet(state) => plain::two_phase_set(state, op)?,
            Self::OrSet(state) => plain::or_set(state, op, seen.as_ref(), by)?,
            Self::EwFlag(state) => plain::flag(state, op, seen, by)?,
            Self::Rga(state) => plain::text(state, op, by)?,
        };
        done.ok_or_else(|| unknown(kind, &op.kind))
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

fn json_of(op: &Operation) -> JsonValue {
    JsonValue::from(op.value.as_ref().unwrap_or(&Value::Null))
}

fn key(op: &Operation) -> Result<String, Refused> {
    let key = need(op.key.clone(), "key")?;
    if key.contains('\0') {
        return Err(Refused::new(
            "invalid_key",
            "a key has no NUL character: not every store keeps one.",
        ));
    }
    Ok(key)
}

fn need<T>(field: Option<T>, name: &str) -> Result<T, Refused> {
    field.ok_or_else(|| {
        Refused::new("missing_field", format!("this operation needs the field {name:?}."))
    })
}
