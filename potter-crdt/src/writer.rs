//! The right to write as an actor.
//!
//! Invariant: a writer and the state that it writes to agree on how many events its actor has. A
//! state that has more was written by a second user of the actor (a clone, or the life before a
//! restore); a state that has fewer is an older copy. Both are errors before anything is written.

use crate::{ActorId, Error, ErrorKind, Result};

/// States in which actors write.
pub trait Authored {
    /// How many events of `actor` this state has seen (the highest sequence number).
    fn seq_of(&self, actor: &ActorId) -> u64;
}

/// The right to write as one actor to one document. It is not `Clone`: sharing an actor between
/// two writers is the mistake that makes elements vanish.
///
/// Persist [`Writer::seq`] in the transaction that persists the state and come back with
/// [`Writer::resume`].
#[derive(Debug)]
pub struct Writer {
    actor: ActorId,
    seq: u64,
    /// Where the actor was found last time in a table.
    pub(crate) slot: u32,
}

impl Writer {
    /// For an actor that has never written to this document.
    pub fn new(actor: ActorId) -> Self {
        Self::resume(actor, 0)
    }

    /// For an actor whose writer had `seq` when it was persisted.
    pub fn resume(actor: ActorId, seq: u64) -> Self {
        Self { actor, seq, slot: 0 }
    }

    /// For an actor whose own latest state this is. A state from an older backup can't be told
    /// from the latest one here; it is noticed when the others' states come back
    /// ([`crate::Replica::merge`]).
    pub fn open(actor: ActorId, state: &impl Authored) -> Self {
        let seq = state.seq_of(&actor);
        Self::resume(actor, seq)
    }

    /// Who writes.
    pub fn actor(&self) -> &ActorId {
        &self.actor
    }

    /// How many events this actor has written to the document.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// [`ErrorKind::ActorReused`] if `incoming` has events of this actor that this writer has not
    /// made. Call it before merging; [`crate::Replica`] does.
    pub fn check(&self, incoming: &impl Authored) -> Result<()> {
        let seen = incoming.seq_of(&self.actor);
        if seen > self.seq { Err(self.reused(seen)) } else { Ok(()) }
    }

    /// Before a write to a state that has `seen` events of this actor.
    pub(crate) fn expect(&self, seen: u64) -> Result<()> {
        match seen.cmp(&self.seq) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(self.reused(seen)),
            std::cmp::Ordering::Less => Err(Error::new(
                ErrorKind::StaleState,
                format!(
                    "the state has {seen} events of actor {}, its writer made {}: load the \
                     writer's own state",
                    self.actor, self.seq
                ),
            )),
        }
    }

    pub(crate) fn advance(&mut self, seq: u64) {
        debug_assert!(seq >= self.seq);
        self.seq = seq;
    }

    fn reused(&self, seen: u64) -> Error {
        Error::new(
            ErrorKind::ActorReused,
            format!(
                "there are {seen} events of actor {}, and its writer made {}: it is in use \
                 elsewhere or was restored from an older copy; go on under a new incarnation",
                self.actor, self.seq
            ),
        )
    }
}
