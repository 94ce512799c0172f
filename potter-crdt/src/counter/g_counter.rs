//! A counter that only grows.
//!
//! Invariant: each actor's row is the sum of what it counted and never falls. A row is at most
//! `u64::MAX`; the value is the sum of the rows.

use crate::counter::entries::Entries;
use crate::{ActorId, Authored, Delta, Error, Join, Result, VectorClock, Writer};

/// A grow-only counter.
///
/// ```
/// use potter_crdt::{ActorId, GCounter, Join, Writer};
///
/// let mut here = GCounter::new();
/// let mut there = GCounter::new();
/// here.increment(&mut Writer::new(ActorId::new("a")?), 2)?;
/// there.increment(&mut Writer::new(ActorId::new("b")?), 3)?;
/// assert!(here.join(&there)?);
/// assert_eq!(here.value(), 5);
/// # Ok::<(), potter_crdt::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GCounter {
    pub(crate) entries: Entries<u64>,
}

impl GCounter {
    /// Zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `by`. [`crate::ErrorKind::Overflow`] if the actor's row would pass `u64::MAX`.
    pub fn increment(&mut self, writer: &mut Writer, by: u64) -> Result<()> {
        let row = self.entries.slot(writer);
        writer.expect(row.map_or(0, |at| *self.entries.at(at)))?;
        let next = writer
            .seq()
            .checked_add(by)
            .ok_or_else(|| Error::overflow("an actor's row of a counter"))?;
        if by > 0 {
            *self.entries.at_or_insert(row, writer) = next;
            writer.advance(next);
        }
        Ok(())
    }

    /// The sum. It can't overflow: 2^64 rows of `u64::MAX` fit.
    pub fn value(&self) -> u128 {
        self.entries.iter().map(|(_, row)| u128::from(*row)).sum()
    }

    /// What `actor` counted.
    pub fn of(&self, actor: &ActorId) -> u64 {
        self.entries.get(actor).copied().unwrap_or(0)
    }
}

impl Authored for GCounter {
    fn seq_of(&self, actor: &ActorId) -> u64 {
        self.of(actor)
    }
}

impl Join for GCounter {
    fn join(&mut self, other: &Self) -> Result<bool> {
        Ok(self.entries.join(&other.entries, |mine, theirs| {
            let higher = theirs > mine;
            *mine = (*mine).max(*theirs);
            higher
        }))
    }

    fn validate(&self, _: &Self) -> Result<()> {
        Ok(())
    }
}

impl Delta for GCounter {
    type Summary = VectorClock;

    fn summary(&self) -> VectorClock {
        VectorClock { entries: self.entries.clone() }
    }

    fn delta(&self, since: &VectorClock) -> Self {
        Self { entries: self.entries.newer_than(&since.entries, |mine, theirs| mine > theirs) }
    }

    fn delta_against(&self, other: &Self) -> Self {
        Self { entries: self.entries.newer_than(&other.entries, |mine, theirs| mine > theirs) }
    }

    fn decompose(&self) -> Vec<Self> {
        self.entries.singles().map(|entries| Self { entries }).collect()
    }

    fn is_bottom(&self) -> bool {
        self.entries.is_empty()
    }
}
