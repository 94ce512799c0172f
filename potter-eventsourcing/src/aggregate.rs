//! Decisions as pure functions: state and command in, events out.

use crate::domain_event::DomainEvent;

/// A thing whose state is the sum of its events. The name and the split are those of the decider
/// pattern (Chassaing, "Functional Event Sourcing Decider").
///
/// Both functions are pure: no I/O, no clock, no randomness. What they need of those comes in
/// the command. `decide` may run several times for one command (after a conflict, on newer
/// state); `evolve` runs for every event at every load.
pub trait Aggregate: Default + Send + Sync + 'static {
    /// The stream type (`order`): the streams are `order-<id>`. No hyphen.
    const TYPE: &'static str;
    /// What it can be asked to do.
    type Command: Send + Sync;
    /// What can happen to it.
    type Event: DomainEvent;
    /// Why it refuses.
    type Error: std::error::Error + Send + Sync + 'static;

    /// What happens when `command` is carried out in this state; no event when there is nothing
    /// to do.
    ///
    /// # Errors
    /// The reason why the command is refused. Nothing is stored then.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Error>;

    /// Applies one event. It has happened: there is nothing to refuse.
    fn evolve(&mut self, event: &Self::Event);
}
