//! What a pass knows at one event.

use rustc_hash::FxHashMap;

use super::config::{Config, Mask, Slots};

/// What running operations could do in a state, at some moment.
#[derive(Clone, Copy)]
pub(super) struct Effects<const N: usize> {
    pub(super) at: u32,
    /// The reads that are legal.
    pub(super) legal: Mask<N>,
    /// The others that would change nothing.
    pub(super) idle: Mask<N>,
}

/// What the last step of a configuration was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gain {
    /// Something was settled by it.
    Some,
    /// Nothing so far: only an operation that needs the new state makes it worth while.
    None,
    /// The same, and it was a crashed operation.
    Crashed,
}

/// A step: the operation placed, the reads that followed from it, and what it was good for.
pub(super) type New<const N: usize> = (u32, Mask<N>, Gain);

/// A running operation that is no read.
#[derive(Clone, Copy)]
pub(super) struct Running {
    pub(super) kind: u32,
    pub(super) end: u32,
    pub(super) slot: usize,
    pub(super) n: u32,
}

/// Where a pass is: all that it takes to go on from there.
#[derive(Clone)]
pub(super) struct Live<const N: usize> {
    pub(super) frontier: Vec<Config<N>>,
    /// Something was dropped that could have been the way.
    pub(super) dropped: bool,
    pub(super) slots: Slots<N>,
    /// Slot → the running operation.
    pub(super) holds: Vec<u32>,
    pub(super) free_slots: Vec<usize>,
    pub(super) slot_of: FxHashMap<u32, usize>,
    /// Those that are no reads, by kind and completion.
    pub(super) running: Vec<Running>,
    /// Class of crashed operations → how many were invoked.
    pub(super) invoked: Vec<u32>,
}
