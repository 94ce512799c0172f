//! Vector clocks and dotted version vectors.
//!
//! Invariant: entries are sorted by actor, and none is 0. So equal clocks have equal entries.

use std::cmp::Ordering;

use crate::counter::entries::Entries;
use crate::{ActorId, Authored, Delta, Dot, Error, Join, Result, Writer};

/// How many events of each actor were seen, without gaps (Fidge 1988, Mattern 1989).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VectorClock {
    pub(crate) entries: Entries<u64>,
}

/// How two clocks relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Causality {
    /// The first happened before the second.
    Before,
    /// The first happened after the second.
    After,
    /// The same.
    Equal,
    /// Neither knew of the other.
    Concurrent,
}

impl VectorClock {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The events seen of `actor`.
    pub fn get(&self, actor: &ActorId) -> u64 {
        self.entries.get(actor).copied().unwrap_or(0)
    }

    /// Counts one more event of the writer's actor. [`crate::ErrorKind::Overflow`] at
    /// `u64::MAX`.
    pub fn increment(&mut self, writer: &mut Writer) -> Result<Dot> {
        let entry = self.entries.slot(writer);
        writer.expect(entry.map_or(0, |at| *self.entries.at(at)))?;
        let next = writer.seq().checked_add(1).ok_or_else(|| Error::overflow("a vector clock"))?;
        *self.entries.at_or_insert(entry, writer) = next;
        writer.advance(next);
        Ok(Dot { actor: writer.actor().clone(), seq: next })
    }

    /// Raises the entry of the dot's actor to its sequence number.
    pub fn observe(&mut self, dot: &Dot) -> bool {
        if self.get(&dot.actor) >= dot.seq {
            return false;
        }
        *self.entries.entry(&dot.actor) = dot.seq;
        true
    }

    /// Before, after, equal or concurrent.
    pub fn compare(&self, other: &Self) -> Causality {
        match (self.dominates(other), other.dominates(self)) {
            (true, true) => Causality::Equal,
            (true, false) => Causality::After,
            (false, true) => Causality::Before,
            (false, false) => Causality::Concurrent,
        }
    }

    /// Has seen everything that `other` has.
    pub fn dominates(&self, other: &Self) -> bool {
        let mut covered = true;
        self.entries.walk(&other.entries, |mine, theirs| {
            covered &= mine.copied().unwrap_or(0) >= theirs.copied().unwrap_or(0);
        });
        covered
    }

    /// Has the event been seen?
    pub fn contains(&self, dot: &Dot) -> bool {
        dot.seq > 0 && self.get(&dot.actor) >= dot.seq
    }

    /// What both have seen.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        self.iter().map(|(actor, seen)| (actor.clone(), seen.min(other.get(actor)))).collect()
    }

    /// The entries, sorted by actor.
    pub fn iter(&self) -> impl Iterator<Item = (&ActorId, u64)> {
        self.entries.iter().map(|(actor, seen)| (actor, *seen))
    }

    /// Nothing seen?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl FromIterator<(ActorId, u64)> for VectorClock {
    fn from_iter<I: IntoIterator<Item = (ActorId, u64)>>(entries: I) -> Self {
        let mut out = Self::default();
        for (actor, seq) in entries {
            if seq > 0 {
                out.observe(&Dot { actor, seq });
            }
        }
        out
    }
}

impl PartialOrd for VectorClock {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.compare(other) {
            Causality::Before => Some(Ordering::Less),
            Causality::After => Some(Ordering::Greater),
            Causality::Equal => Some(Ordering::Equal),
            Causality::Concurrent => None,
        }
    }
}

impl Authored for VectorClock {
    fn seq_of(&self, actor: &ActorId) -> u64 {
        self.get(actor)
    }
}

impl Join for VectorClock {
    fn join(&mut self, other: &Self) -> Result<bool> {
        Ok(self.entries.join(&other.entries, raise))
    }

    fn validate(&self, _: &Self) -> Result<()> {
        Ok(())
    }
}

fn raise(mine: &mut u64, theirs: &u64) -> bool {
    let higher = theirs > mine;
    *mine = (*mine).max(*theirs);
    higher
}

impl Delta for VectorClock {
    type Summary = Self;

    fn summary(&self) -> Self {
        self.clone()
    }

    fn delta(&self, since: &Self) -> Self {
        Self { entries: self.entries.newer_than(&since.entries, |mine, theirs| mine > theirs) }
    }

    fn delta_against(&self, other: &Self) -> Self {
        self.delta(other)
    }

    fn decompose(&self) -> Vec<Self> {
        self.entries.singles().map(|entries| Self { entries }).collect()
    }

    fn is_bottom(&self) -> bool {
        self.is_empty()
    }
}

/// A dotted version vector: one event and what it had seen (Preguiça, Baquero, Almeida, Fonte,
/// Gonçalves: "Dotted Version Vectors", 2010). It tells concurrent writes through one server from
/// overwrites, which a plain vector clock can't.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DottedVersionVector {
    dot: Dot,
    past: VectorClock,
}

impl DottedVersionVector {
    /// The event `dot`, whose writer had seen `past`.
    pub fn new(dot: Dot, past: VectorClock) -> Self {
        Self { dot, past }
    }

    /// The event.
    pub fn dot(&self) -> &Dot {
        &self.dot
    }

    /// What its writer had seen.
    pub fn past(&self) -> &VectorClock {
        &self.past
    }

    /// Was this event seen by the other's writer, or the other way round?
    pub fn compare(&self, other: &Self) -> Causality {
        match (
            self.dot == other.dot,
            other.past.contains(&self.dot),
            self.past.contains(&other.dot),
        ) {
            (true, ..) => Causality::Equal,
            (_, true, _) => Causality::Before,
            (_, _, true) => Causality::After,
            _ => Causality::Concurrent,
        }
    }

    /// The event and its past in one clock (events between them are taken as seen).
    pub fn to_clock(&self) -> VectorClock {
        let mut out = self.past.clone();
        out.observe(&self.dot);
        out
    }
}
