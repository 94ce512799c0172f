//! A counter that never falls below its bound, without asking anybody.
//!
//! Invariant: to subtract, an actor needs rights. It gets them by adding, or from another actor's
//! transfer; it alone spends or gives away what it has. All numbers of a row only grow, so the
//! value is at least the bound on every replica at every time (Balegas, Serra, Duarte, Ferreira,
//! Shapiro, Rodrigues, Preguiça: "Extending Eventually Consistent Cloud Databases for Enforcing
//! Numeric Invariants", 2015).

use crate::counter::entries::Entries;
use crate::{ActorId, Authored, Delta, Error, ErrorKind, Join, Result, VectorClock, Writer};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rights {
    pub(crate) added: u64,
    pub(crate) spent: u64,
    pub(crate) given: Entries<u64>,
}

impl Rights {
    /// How much this actor did in all: its row's sequence number. Writers keep it within `u64`.
    pub(crate) fn total(&self) -> u64 {
        let given = self.given.iter().fold(0u64, |sum, (_, given)| sum.saturating_add(*given));
        self.added.saturating_add(self.spent).saturating_add(given)
    }

    fn join(&mut self, other: &Self) -> bool {
        let changed = other.added > self.added || other.spent > self.spent;
        self.added = self.added.max(other.added);
        self.spent = self.spent.max(other.spent);
        let given = self.given.join(&other.given, |mine, theirs| {
            let higher = theirs > mine;
            *mine = (*mine).max(*theirs);
            higher
        });
        changed || given
    }

    fn exceeds(&self, other: &Self) -> bool {
        other.clone().join(self)
    }
}

/// A counter whose value never falls below 0 (shift it for another bound): stock, seats, credit.
///
/// ```
/// use potter_crdt::{ActorId, BoundedCounter, ErrorKind, Join, Writer};
///
/// let (alice, bob) = (ActorId::new("alice")?, ActorId::new("bob")?);
/// let (mut a, mut b) = (Writer::new(alice.clone()), Writer::new(bob.clone()));
/// let mut here = BoundedCounter::new();
/// here.increment(&mut a, 10)?;
/// here.transfer(&mut a, &bob, 4)?;
///
/// let mut there = here.clone();
/// there.decrement(&mut b, 4)?;
/// let refused = there.decrement(&mut b, 1);
/// assert!(refused.is_err_and(|error| error.kind() == ErrorKind::InsufficientRights));
/// here.decrement(&mut a, 6)?;
/// here.join(&there)?;
/// assert_eq!(here.value(), 0);
/// # Ok::<(), potter_crdt::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BoundedCounter {
    pub(crate) entries: Entries<Rights>,
}

impl BoundedCounter {
    /// Zero, and nobody has rights.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `by`; the actor gets as many rights.
    pub fn increment(&mut self, writer: &mut Writer, by: u64) -> Result<()> {
        self.act(writer, by, |rights| rights.added += by)
    }

    /// Subtracts `by`. [`ErrorKind::InsufficientRights`] if the actor has fewer rights here.
    pub fn decrement(&mut self, writer: &mut Writer, by: u64) -> Result<()> {
        self.need(writer, by)?;
        self.act(writer, by, |rights| rights.spent += by)
    }

    /// Gives `by` rights to `to`, which can use them once it has merged this state.
    pub fn transfer(&mut self, writer: &mut Writer, to: &ActorId, by: u64) -> Result<()> {
        if to == writer.actor() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{to} can't transfer rights to itself"),
            ));
        }
        self.need(writer, by)?;
        self.act(writer, by, |rights| *rights.given.entry(to) += by)
    }

    /// How much `actor` may subtract.
    pub fn rights(&self, actor: &ActorId) -> u64 {
        let received: i128 = self
            .entries
            .iter()
            .filter_map(|(_, rights)| rights.given.get(actor))
            .map(|given| i128::from(*given))
            .sum();
        let own = self.entries.get(actor).map_or(0, |rights| {
            i128::from(rights.added) * 2 - i128::from(rights.total()) // added - spent - given
        });
        u64::try_from((received + own).max(0)).unwrap_or(u64::MAX)
    }

    /// What was added and not subtracted; never below 0.
    pub fn value(&self) -> u128 {
        let sum = |of: fn(&Rights) -> u64| -> u128 {
            self.entries.iter().map(|(_, rights)| u128::from(of(rights))).sum()
        };
        sum(|rights| rights.added).saturating_sub(sum(|rights| rights.spent))
    }

    fn need(&self, writer: &Writer, by: u64) -> Result<()> {
        let rights = self.rights(writer.actor());
        if by <= rights {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InsufficientRights,
            format!("{} has rights for {rights} here, not for {by}", writer.actor()),
        ))
    }

    fn act(
        &mut self,
        writer: &mut Writer,
        by: u64,
        change: impl FnOnce(&mut Rights),
    ) -> Result<()> {
        let row = self.entries.slot(writer);
        writer.expect(row.map_or(0, |at| self.entries.at(at).total()))?;
        let next = writer.seq().checked_add(by).ok_or_else(|| Error::overflow("an actor's row"))?;
        if by > 0 {
            change(self.entries.at_or_insert(row, writer));
            writer.advance(next);
        }
        Ok(())
    }
}

impl Authored for BoundedCounter {
    fn seq_of(&self, actor: &ActorId) -> u64 {
        self.entries.get(actor).map_or(0, Rights::total)
    }
}

impl Join for BoundedCounter {
    fn join(&mut self, other: &Self) -> Result<bool> {
        self.validate(other)?;
        Ok(self.entries.join(&other.entries, Rights::join))
    }

    fn validate(&self, incoming: &Self) -> Result<()> {
        let ordered =
            |mine: &Rights, theirs: &Rights| !mine.exceeds(theirs) || !theirs.exceeds(mine);
        self.entries.one_history(&incoming.entries, ordered)
    }
}

impl Delta for BoundedCounter {
    type Summary = VectorClock;

    fn summary(&self) -> VectorClock {
        VectorClock { entries: self.entries.map(Rights::total) }
    }

    fn delta(&self, since: &VectorClock) -> Self {
        Self {
            entries: self.entries.newer_than(&since.entries, |mine, total| mine.total() > *total),
        }
    }

    fn delta_against(&self, other: &Self) -> Self {
        Self { entries: self.entries.newer_than(&other.entries, Rights::exceeds) }
    }

    fn decompose(&self) -> Vec<Self> {
        self.entries.singles().map(|entries| Self { entries }).collect()
    }

    fn is_bottom(&self) -> bool {
        self.entries.is_empty()
    }
}
