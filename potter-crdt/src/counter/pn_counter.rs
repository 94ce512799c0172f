//! A counter that goes up and down.
//!
//! Invariant: each actor's row is the pair (added, subtracted); neither ever falls. Their sum is
//! at most `u64::MAX` and is how the writer recognises its own row.

use crate::counter::entries::Entries;
use crate::{ActorId, Authored, Delta, Error, Join, Result, VectorClock, Writer};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct UpDown {
    pub(crate) up: u64,
    pub(crate) down: u64,
}

impl UpDown {
    /// Rows come from writers that keep the sum within `u64`; hostile ones saturate.
    pub(crate) fn total(self) -> u64 {
        self.up.saturating_add(self.down)
    }

    pub(crate) fn value(self) -> i128 {
        i128::from(self.up) - i128::from(self.down)
    }

    pub(crate) fn max(self, other: Self) -> Self {
        Self { up: self.up.max(other.up), down: self.down.max(other.down) }
    }

    /// Is one of the two the other, later?
    pub(crate) fn ordered(self, other: Self) -> bool {
        let joined = self.max(other);
        joined == self || joined == other
    }

    pub(crate) fn with(self, by: i64) -> Result<Self> {
        let overflow = || Error::overflow("an actor's row of a counter");
        self.total().checked_add(by.unsigned_abs()).ok_or_else(overflow)?;
        Ok(if by >= 0 {
            Self { up: self.up + by.unsigned_abs(), ..self }
        } else {
            Self { down: self.down + by.unsigned_abs(), ..self }
        })
    }
}

pub(crate) fn raise(mine: &mut UpDown, theirs: &UpDown) -> bool {
    let joined = mine.max(*theirs);
    let changed = joined != *mine;
    *mine = joined;
    changed
}

/// A counter that can be increased and decreased.
///
/// ```
/// use potter_crdt::{ActorId, PnCounter, Writer};
///
/// let mut counter = PnCounter::new();
/// let mut writer = Writer::new(ActorId::new("a")?);
/// counter.add(&mut writer, 5)?;
/// counter.add(&mut writer, -7)?;
/// assert_eq!(counter.value(), -2);
/// # Ok::<(), potter_crdt::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PnCounter {
    pub(crate) entries: Entries<UpDown>,
}

impl PnCounter {
    /// Zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `by`, which may be negative. [`crate::ErrorKind::Overflow`] if all that the actor
    /// ever added and subtracted would pass `u64::MAX`.
    pub fn add(&mut self, writer: &mut Writer, by: i64) -> Result<()> {
        let row = self.entries.slot(writer);
        let old = row.map_or(UpDown::default(), |at| *self.entries.at(at));
        writer.expect(old.total())?;
        let new = old.with(by)?;
        if by != 0 {
            *self.entries.at_or_insert(row, writer) = new;
            writer.advance(new.total());
        }
        Ok(())
    }

    /// The sum of all rows.
    pub fn value(&self) -> i128 {
        self.entries.iter().map(|(_, row)| row.value()).sum()
    }
}

impl Authored for PnCounter {
    fn seq_of(&self, actor: &ActorId) -> u64 {
        self.entries.get(actor).map_or(0, |row| row.total())
    }
}

impl Join for PnCounter {
    fn join(&mut self, other: &Self) -> Result<bool> {
        self.validate(other)?;
        Ok(self.entries.join(&other.entries, raise))
    }

    fn validate(&self, incoming: &Self) -> Result<()> {
        self.entries.one_history(&incoming.entries, |mine, theirs| mine.ordered(*theirs))
    }
}

impl Delta for PnCounter {
    /// How much each actor added and subtracted in all.
    type Summary = VectorClock;

    fn summary(&self) -> VectorClock {
        VectorClock { entries: self.entries.map(|row| row.total()) }
    }

    fn delta(&self, since: &VectorClock) -> Self {
        Self {
            entries: self.entries.newer_than(&since.entries, |mine, total| mine.total() > *total),
        }
    }

    fn delta_against(&self, other: &Self) -> Self {
        let entries = self.entries.newer_than(&other.entries, |mine, theirs| {
            mine.up > theirs.up || mine.down > theirs.down
        });
        Self { entries }
    }

    fn decompose(&self) -> Vec<Self> {
        self.entries.singles().map(|entries| Self { entries }).collect()
    }

    fn is_bottom(&self) -> bool {
        self.entries.is_empty()
    }
}
