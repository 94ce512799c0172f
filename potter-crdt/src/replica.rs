//! A state and the right to write to it, kept together.
//!
//! Invariant: the state never has an event of its own actor that this replica did not make. So a
//! second user of the actor is noticed before its events are merged.

use crate::{ActorId, Authored, Join, Result, Writer};

/// A state with its writer.
///
/// ```
/// use potter_crdt::{ActorId, ErrorKind, OrSet, Replica};
///
/// let alice = ActorId::new("alice")?;
/// let mut phone: Replica<OrSet<u64>> = Replica::new(alice.clone());
/// phone.write(|set, writer| set.add(writer, 1))?;
/// let backup = phone.state().clone();
/// phone.write(|set, writer| set.add(writer, 2))?;
///
/// // Restored from the backup, it writes on under the same actor …
/// let mut restored = Replica::open(alice, backup);
/// let error = restored.merge(phone.state()).expect_err("it did not make the second add");
/// assert_eq!(error.kind(), ErrorKind::ActorReused);
/// # Ok::<(), potter_crdt::Error>(())
/// ```
#[derive(Debug)]
pub struct Replica<C> {
    state: C,
    writer: Writer,
}

impl<C: Join + Authored> Replica<C> {
    /// An empty one of an actor that has never written to this document.
    pub fn new(actor: ActorId) -> Self
    where
        C: Default,
    {
        Self { state: C::default(), writer: Writer::new(actor) }
    }

    /// One that goes on from the actor's own last state.
    pub fn open(actor: ActorId, state: C) -> Self {
        let writer = Writer::open(actor, &state);
        Self { state, writer }
    }

    /// One that goes on from a state and the sequence number that was persisted with it.
    /// [`crate::ErrorKind::ActorReused`] or [`crate::ErrorKind::StaleState`] if they do not belong
    /// together.
    pub fn resume(actor: ActorId, seq: u64, state: C) -> Result<Self> {
        let writer = Writer::resume(actor, seq);
        writer.expect(state.seq_of(writer.actor()))?;
        Ok(Self { state, writer })
    }

    /// What it holds.
    pub fn state(&self) -> &C {
        &self.state
    }

    /// Who writes here, and how much it has written.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Writes.
    pub fn write<R>(&mut self, write: impl FnOnce(&mut C, &mut Writer) -> Result<R>) -> Result<R> {
        write(&mut self.state, &mut self.writer)
    }

    /// Takes in a state or a delta; true if it changed anything.
    /// [`crate::ErrorKind::ActorReused`] if it has events of this replica's actor that were not
    /// made here: nothing is merged then, and the replica has to go on under a new incarnation.
    pub fn merge(&mut self, incoming: &C) -> Result<bool> {
        self.writer.check(incoming)?;
        self.state.join(incoming)
    }

    /// The state, without the right to write.
    pub fn into_state(self) -> C {
        self.state
    }
}
