//! The causal context of a document: which events it has seen.
//!
//! Invariant: a context is a set of dots. An actor's events are a prefix `1..=n` and, where events
//! came out of order, ranges above it (a version vector with a dot cloud, as in Almeida, Shoker,
//! Baquero: "Delta State Replicated Data Types", 2018). The form is normal: equal sets of dots
//! compare equal, whatever the order in which they came.
//!
//! A document interns its actors here, so dots inside it are one word.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use hashbrown::HashTable;

use crate::actor::{ACTORS_MAX, DotIx, SEQ_MAX};
use crate::keyed;
use crate::ranges::Ranges;
use crate::{ActorId, Dot, Error, ErrorKind, Result, VectorClock};

/// Which events a document has seen, gaps included.
#[derive(Clone, Default)]
pub struct Context {
    names: Vec<ActorId>,
    lookup: HashTable<u32>,
    seen: Vec<Ranges>,
}

impl Context {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has this event been seen?
    pub fn contains(&self, dot: &Dot) -> bool {
        self.ix(&dot.actor).is_some_and(|ix| self.ranges(ix).contains(dot.seq))
    }

    /// The last event seen of `actor`, 0 if none. Events below it may be missing.
    pub fn seq(&self, actor: &ActorId) -> u64 {
        self.ix(actor).map_or(0, |ix| self.ranges(ix).last())
    }

    /// Adds an event; true if it is new. [`ErrorKind::Overflow`] if its sequence number is 0 or
    /// above the limit of 2^44 - 1, [`ErrorKind::LimitExceeded`] at 2^20 actors.
    pub fn insert(&mut self, dot: &Dot) -> Result<bool> {
        self.insert_range(&dot.actor, dot.seq, dot.seq)
    }

    /// Adds the events `lo..=hi` of `actor`; true if one is new.
    pub fn insert_range(&mut self, actor: &ActorId, lo: u64, hi: u64) -> Result<bool> {
        if lo == 0 || lo > hi || hi > SEQ_MAX {
            return Err(Error::new(
                ErrorKind::Overflow,
                format!("events {lo} to {hi} of {actor} are not within 1 to {SEQ_MAX}"),
            ));
        }
        let ix = self.intern(actor)? as usize;
        let mut range = Ranges::default();
        range.push(lo, hi);
        Ok(self.seen[ix].join(&range))
    }

    /// Adds all that `other` has seen; true if something is new.
    pub fn join(&mut self, other: &Self) -> Result<bool> {
        let to_mine = self.intern_all(other)?;
        Ok(self.join_mapped(other, &to_mine))
    }

    /// Has this context seen all that `other` has?
    pub fn covers(&self, other: &Self) -> bool {
        other.used().all(|ix| {
            self.ix(other.name(ix)).is_some_and(|mine| self.ranges(mine).covers(other.ranges(ix)))
        })
    }

    /// Before, equal, after; `None` if concurrent.
    pub fn causal_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }

    /// What both have seen. The meet of all replicas' contexts is the stable context for
    /// [`crate::Reclaim`].
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        self.zip(other, Ranges::meet)
    }

    /// What this has seen and `other` has not.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.zip(other, Ranges::minus)
    }

    /// Nothing seen?
    pub fn is_empty(&self) -> bool {
        self.used().next().is_none()
    }

    /// The ranges of events, sorted by actor.
    pub fn iter(&self) -> impl Iterator<Item = (&ActorId, u64, u64)> {
        self.sorted()
            .into_iter()
            .flat_map(move |ix| self.ranges(ix).iter().map(move |(lo, hi)| (self.name(ix), lo, hi)))
    }

    /// The version vector: for each actor the events `1..=n` that were seen without a gap.
    pub fn version_vector(&self) -> VectorClock {
        self.used()
            .filter(|&ix| self.ranges(ix).head() > 0)
            .map(|ix| (self.name(ix).clone(), self.ranges(ix).head()))
            .collect()
    }

    /// Is every actor's history without a gap?
    pub fn is_contiguous(&self) -> bool {
        self.used().all(|ix| self.ranges(ix).last() == self.ranges(ix).head())
    }

    fn zip(&self, other: &Self, with: impl Fn(&Ranges, &Ranges) -> Ranges) -> Self {
        let nothing = Ranges::default();
        let mut out = self.clone();
        for ix in self.used() {
            let theirs = other.ix(self.name(ix)).map_or(&nothing, |theirs| other.ranges(theirs));
            out.seen[ix as usize] = with(self.ranges(ix), theirs);
        }
        out
    }
}

/// Inside a document: actors by number.
impl Context {
    pub(crate) fn ix(&self, actor: &ActorId) -> Option<u32> {
        if self.names.len() <= 4 {
            let at = self.names.iter().position(|name| name == actor)?;
            return u32::try_from(at).ok();
        }
        let hash = keyed::hash(actor);
        self.lookup.find(hash, |&ix| &self.names[ix as usize] == actor).copied()
    }

    pub(crate) fn intern(&mut self, actor: &ActorId) -> Result<u32> {
        if let Some(ix) = self.ix(actor) {
            return Ok(ix);
        }
        if self.names.len() >= ACTORS_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("a document has at most {ACTORS_MAX} actors"),
            ));
        }
        let ix = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let names = &self.names;
        self.lookup.insert_unique(keyed::hash(actor), ix, |&at| keyed::hash(&names[at as usize]));
        self.names.push(actor.clone());
        self.seen.push(Ranges::default());
        Ok(ix)
    }

    /// This context's number for each of the other's actors.
    pub(crate) fn intern_all(&mut self, other: &Self) -> Result<Vec<u32>> {
        other
            .names
            .iter()
            .enumerate()
            // Most often two replicas met the actors in the same order.
            .map(|(at, name)| match self.names.get(at) {
                Some(mine) if mine == name => Ok(u32::try_from(at).unwrap_or(u32::MAX)),
                _ => self.intern(name),
            })
            .collect()
    }

    pub(crate) fn join_mapped(&mut self, other: &Self, to_mine: &[u32]) -> bool {
        let mut changed = false;
        for (theirs, &mine) in other.seen.iter().zip(to_mine) {
            changed |= self.seen[mine as usize].join(theirs);
        }
        changed
    }

    pub(crate) fn name(&self, ix: u32) -> &ActorId {
        &self.names[ix as usize]
    }

    pub(crate) fn actors(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn ranges(&self, ix: u32) -> &Ranges {
        &self.seen[ix as usize]
    }

    pub(crate) fn ranges_mut(&mut self, ix: u32) -> &mut Ranges {
        &mut self.seen[ix as usize]
    }

    pub(crate) fn has(&self, dot: DotIx) -> bool {
        self.seen.get(dot.actor() as usize).is_some_and(|ranges| ranges.contains(dot.seq()))
    }

    pub(crate) fn dot(&self, dot: DotIx) -> Dot {
        Dot { actor: self.name(dot.actor()).clone(), seq: dot.seq() }
    }

    pub(crate) fn dot_ix(&self, dot: &Dot) -> Option<DotIx> {
        (dot.seq > 0 && dot.seq <= SEQ_MAX)
            .then(|| self.ix(&dot.actor).map(|ix| DotIx::new(ix, dot.seq)))
            .flatten()
    }

    /// The actors of which something was seen.
    pub(crate) fn used(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.seen).filter(|(_, ranges)| !ranges.is_empty()).map(|(ix, _)| ix)
    }

    /// The same, sorted by name.
    pub(crate) fn sorted(&self) -> Vec<u32> {
        let mut out: Vec<u32> = self.used().collect();
        out.sort_unstable_by(|&a, &b| self.name(a).cmp(self.name(b)));
        out
    }

    /// The table of actors with nothing seen.
    pub(crate) fn blank(&self) -> Self {
        Self {
            names: self.names.clone(),
            lookup: self.lookup.clone(),
            seen: vec![Ranges::default(); self.seen.len()],
        }
    }

    /// The next event of `actor`.
    pub(crate) fn mint(&mut self, ix: u32) -> Result<DotIx> {
        let ranges = &mut self.seen[ix as usize];
        let seq = ranges.last() + 1;
        if seq > SEQ_MAX {
            return Err(Error::overflow("the sequence number of an actor"));
        }
        ranges.insert(seq, seq);
        Ok(DotIx::new(ix, seq))
    }
}

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        if self.names.len() == other.names.len() && self.names == other.names {
            return self.seen == other.seen;
        }
        self.used().count() == other.used().count()
            && self.used().all(|ix| {
                other.ix(self.name(ix)).is_some_and(|at| other.ranges(at) == self.ranges(ix))
            })
    }
}

impl Eq for Context {}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut by_actor: BTreeMap<&ActorId, Vec<(u64, u64)>> = BTreeMap::new();
        for (actor, lo, hi) in self.iter() {
            by_actor.entry(actor).or_default().push((lo, hi));
        }
        f.debug_map().entries(by_actor).finish()
    }
}
