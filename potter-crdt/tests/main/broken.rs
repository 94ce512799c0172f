//! Small copies of the algebra with one known defect each. `defects/` shows that its checks
//! catch them.

use std::collections::{BTreeMap, BTreeSet};

use potter_crdt::{Stamp, Timestamp};

use crate::defects::actor;
use crate::defects::costs::Counted;

/// Keeps its own value when the markers are equal.
pub(crate) fn lww_by_marker(writes: &[(Stamp, String)]) -> String {
    let mut held = writes[0].clone();
    for write in &writes[1..] {
        if write.0 > held.0 {
            held = write.clone();
        }
    }
    held.1
}

/// Removes that wait for their adds, keyed by a clock.
pub(crate) fn deferred_as_struct_keys() -> Result<String, serde_json::Error> {
    let waiting: BTreeMap<(String, u64), Vec<u64>> = BTreeMap::from([(("a".into(), 2), vec![1])]);
    // Unlike `serde_json::to_value` of a struct, a tuple key is enough to fail.
    let as_keys: BTreeMap<Vec<u64>, u64> = waiting.keys().map(|key| (vec![key.1], 0)).collect();
    serde_json::to_string(&as_keys)
}

/// Every element against every element.
pub(crate) fn validate_all_pairs(mine: &[Counted], theirs: &[Counted]) {
    for a in mine {
        for b in theirs {
            assert!(a != b || a.0 == b.0);
        }
    }
}

pub(crate) fn increment_saturating(from: u64) -> Option<u64> {
    Some(from.saturating_add(1))
}

pub(crate) fn increment_wrapping(from: u64) -> Option<u64> {
    Some(from.wrapping_add(1))
}

/// An optimised OR-Set with one actor that joins without looking at what a dot holds.
#[derive(Clone, Default)]
struct TrustingSet {
    seen: u64,
    live: BTreeMap<u64, BTreeSet<u64>>,
}

impl TrustingSet {
    fn add(&mut self, element: u64) {
        self.seen += 1;
        self.live.insert(element, BTreeSet::from([self.seen]));
    }

    fn join(&self, other: &Self) -> Self {
        let mut out = Self { seen: self.seen.max(other.seen), live: BTreeMap::new() };
        let elements: BTreeSet<_> = self.live.keys().chain(other.live.keys()).copied().collect();
        for element in elements {
            let none = BTreeSet::new();
            let mine = self.live.get(&element).unwrap_or(&none);
            let theirs = other.live.get(&element).unwrap_or(&none);
            let both = mine & theirs;
            let only_mine = mine.iter().filter(|dot| **dot > other.seen);
            let only_theirs = theirs.iter().filter(|dot| **dot > self.seen);
            let dots: BTreeSet<u64> =
                both.iter().chain(only_mine).chain(only_theirs).copied().collect();
            if !dots.is_empty() {
                out.live.insert(element, dots);
            }
        }
        out
    }
}

/// The same dot for 2 and for 3: both vanish.
pub(crate) fn reused_dots() -> Vec<u64> {
    let mut set = TrustingSet::default();
    set.add(1);
    let mut restored = set.clone();
    set.add(2);
    restored.add(3);
    set.join(&restored).live.into_keys().collect()
}

/// Follows every stamp.
#[derive(Default)]
pub(crate) struct NaiveClock(Option<Timestamp>);

impl NaiveClock {
    pub(crate) fn observe(&mut self, stamp: &Stamp) -> Stamp {
        self.0 = self.0.max(Some(stamp.at));
        Stamp::new(self.0.unwrap(), actor("server"))
    }
}

/// A set whose join is the union of its elements.
pub(crate) fn union_brings_back() -> bool {
    let mut here = BTreeSet::from([1]);
    let there = here.clone();
    here.remove(&1);
    here.union(&there).next().is_some()
}

/// A register that keeps the winner alone, with a causal context.
#[derive(Clone)]
struct Winner {
    held: Option<(char, u64)>,
    seen: BTreeSet<char>,
}

impl Winner {
    fn join(&self, other: &Self) -> Self {
        let keep = |a: &Self, b: &Self| {
            a.held.filter(|held| b.held == Some(*held) || !b.seen.contains(&held.0))
        };
        let held = keep(self, other).into_iter().chain(keep(other, self)).max_by_key(|held| held.1);
        Self { held, seen: &self.seen | &other.seen }
    }
}

/// (x ∨ y) ∨ z or x ∨ (y ∨ z), where z removed x.
pub(crate) fn winner_only(left: bool) -> Option<u64> {
    let write =
        |name: char, time: u64| Winner { held: Some((name, time)), seen: BTreeSet::from([name]) };
    let (x, y) = (write('x', 5), write('y', 4));
    let z = Winner { held: None, seen: BTreeSet::from(['x']) };
    let joined = if left { x.join(&y).join(&z) } else { x.join(&y.join(&z)) };
    joined.held.map(|held| held.1)
}

/// One dot an actor, and the whole count under it: the increment brings the reset part back.
pub(crate) fn counter_by_last_dot(reset: i128, concurrent: i128) -> i128 {
    let (dot, total) = (2, reset + concurrent);
    let seen_by_the_reset = 1;
    if dot > seen_by_the_reset { total } else { 0 }
}

/// One dot an actor for ever: the reset takes the increment that it did not see.
pub(crate) fn counter_remove_wins(reset: i128, concurrent: i128) -> i128 {
    let (birth, total) = (1, reset + concurrent);
    let seen_by_the_reset = 1;
    if birth > seen_by_the_reset { total } else { 0 }
}

/// Keys by last writer: a remove at a later time takes a concurrent update with it.
pub(crate) fn map_remove_clobbers() -> Option<BTreeSet<u64>> {
    let update = (1, Some(BTreeSet::from([1, 2])));
    let remove = (2, None);
    if update.0 > remove.0 { update.1 } else { remove.1 }
}
