//! Faults that are made beside a test's own.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::nemesis::{Fault, Healed, Injected};
use crate::runner::Op;

/// Tells a running test of faults that others make to its system: by hand, from another program. In
/// its history they stand at the time at which it is told. One that was not verified makes its
/// `Valid` `Unknown`, as a fault of its own does. Before the load they wait; after it they are lost.
#[derive(Clone, Debug)]
pub struct FaultNotes(UnboundedSender<Note>);

/// A fault or a heal, done by somebody else.
#[derive(Debug)]
pub(super) enum Note {
    Injected(Op, Injected),
    Healed(Op, Healed),
}

impl FaultNotes {
    pub(super) fn channel() -> (Self, UnboundedReceiver<Note>) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), receiver)
    }

    /// Somebody has made a fault.
    pub fn injected(&self, fault: Fault, seen: Injected) {
        _ = self.0.send(Note::Injected(Op::inject(fault), seen));
    }

    /// Somebody has healed the system.
    pub fn healed(&self, seen: Healed) {
        _ = self.0.send(Note::Healed(Op::heal(), seen));
    }
}
