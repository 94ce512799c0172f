//! A counter that can be set back to zero.
//!
//! Invariant: each actor's row has what it added and subtracted, and how much of that was reset;
//! all four only grow, and the reset part never passes the counted part. The value is the
//! difference. So a reset takes away exactly what its replica had seen: an increment made at the
//! same time elsewhere stays, and nothing that was reset comes back (the anomaly of riak_dt#98).

use crate::counter::entries::Entries;
use crate::counter::pn_counter::UpDown;
use crate::{ActorId, Authored, Delta, Join, Result, Writer};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ResetRow {
    pub(crate) counted: UpDown,
    pub(crate) reset: UpDown,
}

impl ResetRow {
    pub(crate) fn join(&mut self, other: &Self) -> bool {
        let joined =
            Self { counted: self.counted.max(other.counted), reset: self.reset.max(other.reset) };
        let changed = joined != *self;
        *self = joined;
        changed
    }

    pub(crate) fn ordered(&self, other: &Self) -> bool {
        self.counted.ordered(other.counted) && self.reset.ordered(other.reset)
    }

    pub(crate) fn value(&self) -> i128 {
        self.counted.value() - self.reset.value()
    }

    pub(crate) fn exceeds(&self, other: &Self) -> bool {
        let mut joined = *other;
        joined.join(self)
    }

    /// The parts that no other part implies.
    pub(crate) fn parts(&self) -> Vec<Self> {
        let mut out = Vec::new();
        if self.counted != UpDown::default() {
            out.push(Self { counted: self.counted, reset: UpDown::default() });
        }
        if self.reset != UpDown::default() {
            // A part has to keep the invariant by itself.
            out.push(Self { counted: self.reset, reset: self.reset });
        }
        if out.len() == 2 && self.counted == self.reset {
            out.remove(0);
        }
        out
    }
}

/// A counter with an observed reset.
///
/// ```
/// use potter_crdt::{ActorId, Join, ResettableCounter, Writer};
///
/// let (mut a, mut b) = (ResettableCounter::new(), ResettableCounter::new());
/// let mut writer = Writer::new(ActorId::new("a")?);
/// a.add(&mut writer, 5)?;
/// b.join(&a)?;
/// b.reset(); // has seen the 5,
/// a.add(&mut writer, 1)?; // but not this one.
/// a.join(&b)?;
/// assert_eq!(a.value(), 1);
/// # Ok::<(), potter_crdt::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResettableCounter {
    pub(crate) entries: Entries<ResetRow>,
}

impl ResettableCounter {
    /// Zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `by`, which may be negative. Errors as [`crate::PnCounter::add`].
    pub fn add(&mut self, writer: &mut Writer, by: i64) -> Result<()> {
        let row = self.entries.slot(writer);
        let old = row.map_or(UpDown::default(), |at| self.entries.at(at).counted);
        writer.expect(old.total())?;
        let new = old.with(by)?;
        if by != 0 {
            self.entries.at_or_insert(row, writer).counted = new;
            writer.advance(new.total());
        }
        Ok(())
    }

    /// Takes away all that this replica has seen; true if the state changed.
    pub fn reset(&mut self) -> bool {
        let observed =
            self.entries.map(|row| ResetRow { counted: row.counted, reset: row.counted });
        self.entries.join(&observed, ResetRow::join)
    }

    /// What was counted and not reset.
    pub fn value(&self) -> i128 {
        self.entries.iter().map(|(_, row)| row.value()).sum()
    }
}

impl Authored for ResettableCounter {
    fn seq_of(&self, actor: &ActorId) -> u64 {
        self.entries.get(actor).map_or(0, |row| row.counted.total())
    }
}

impl Join for ResettableCounter {
    fn join(&mut self, other: &Self) -> Result<bool> {
        self.validate(other)?;
        Ok(self.entries.join(&other.entries, ResetRow::join))
    }

    fn validate(&self, incoming: &Self) -> Result<()> {
        self.entries.one_history(&incoming.entries, ResetRow::ordered)
    }
}

/// What a replica has of a [`ResettableCounter`]: for each actor how much was counted and how much
/// was reset, in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResetSummary(Entries<(u64, u64)>);

impl Delta for ResettableCounter {
    type Summary = ResetSummary;

    fn summary(&self) -> ResetSummary {
        ResetSummary(self.entries.map(|row| (row.counted.total(), row.reset.total())))
    }

    fn delta(&self, since: &ResetSummary) -> Self {
        let newer = |mine: &ResetRow, theirs: &(u64, u64)| {
            mine.counted.total() > theirs.0 || mine.reset.total() > theirs.1
        };
        Self { entries: self.entries.newer_than(&since.0, newer) }
    }

    fn delta_against(&self, other: &Self) -> Self {
        Self { entries: self.entries.newer_than(&other.entries, ResetRow::exceeds) }
    }

    fn decompose(&self) -> Vec<Self> {
        let mut out = Vec::new();
        for (actor, row) in self.entries.iter() {
            for part in row.parts() {
                let mut single = Self::new();
                *single.entries.entry(actor) = part;
                out.push(single);
            }
        }
        out
    }

    fn is_bottom(&self) -> bool {
        self.entries.is_empty()
    }
}
