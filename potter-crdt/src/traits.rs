//! What every CRDT here can do.
//!
//! Invariants, checked for each type by `tests/main/laws.rs`: joins commute, associate and are
//! idempotent; a state only grows; a delta joined to any state that has seen `since` gives the
//! same as the full state; the join of a decomposition is the state.

use crate::{Context, Result};

/// A join-semilattice: states that merge.
pub trait Join: Sized {
    /// Takes in `other`; true if that changed anything (and is worth persisting).
    ///
    /// [`crate::ErrorKind::ActorReused`] if the two hold different events of one name: nothing is
    /// changed then. [`crate::ErrorKind::LimitExceeded`] at the limit of actors.
    fn join(&mut self, other: &Self) -> Result<bool>;

    /// Would [`Join::join`] refuse `incoming`? Takes time linear in `incoming`, whatever the size
    /// of this state (with a factor of its logarithm).
    fn validate(&self, incoming: &Self) -> Result<()>;
}

/// States of which parts can be sent (Almeida, Shoker, Baquero 2018; join decompositions: Enes,
/// Almeida, Baquero, Leitão 2019).
pub trait Delta: Join {
    /// What a replica tells of itself so that another can work out what it lacks.
    type Summary;

    /// What this state has seen.
    fn summary(&self) -> Self::Summary;

    /// What a replica that has seen `since` may lack: a state to join there, in any order, as
    /// often as one likes.
    fn delta(&self, since: &Self::Summary) -> Self;

    /// Exactly what `other` lacks, when its state is at hand; empty if it lacks nothing.
    fn delta_against(&self, other: &Self) -> Self;

    /// The parts of which this state is the join; none is implied by the others.
    fn decompose(&self) -> Vec<Self>;

    /// Does joining this state change nothing anywhere?
    fn is_bottom(&self) -> bool;
}

/// States that keep something for replicas that have not heard yet.
pub trait Reclaim {
    /// Drops what only replicas would need that have not seen `stable`; returns how many things
    /// were dropped.
    ///
    /// `stable` must be causally stable: the [`Context::meet`] of contexts that came with states
    /// merged here, one from every replica that may still write. Who was left out must come back
    /// through a full resync and a new incarnation.
    fn reclaim(&mut self, stable: &Context) -> usize;
}
