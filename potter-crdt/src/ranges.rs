//! A set of sequence numbers as ranges.
//!
//! Invariant: `1..=head` is in the set; `cloud` holds closed ranges above `head + 1`, sorted,
//! disjoint and not adjacent. So equal sets have equal representations.

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    head: u64,
    cloud: Vec<(u64, u64)>,
}

impl Ranges {
    pub(crate) fn is_empty(&self) -> bool {
        self.head == 0 && self.cloud.is_empty()
    }

    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    pub(crate) fn last(&self) -> u64 {
        self.cloud.last().map_or(self.head, |range| range.1)
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        if seq <= self.head {
            return seq > 0;
        }
        let after = self.cloud.partition_point(|range| range.0 <= seq);
        after > 0 && seq <= self.cloud[after - 1].1
    }

    /// The ranges in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (self.head > 0).then_some((1, self.head)).into_iter().chain(self.cloud.iter().copied())
    }

    pub(crate) fn insert(&mut self, lo: u64, hi: u64) {
        debug_assert!(lo > 0 && lo <= hi);
        if lo <= self.head + 1 {
            self.head = self.head.max(hi);
            let swallowed = self.cloud.partition_point(|range| range.0 <= self.head + 1);
            if swallowed > 0 {
                self.head = self.head.max(self.cloud[swallowed - 1].1);
                self.cloud.drain(..swallowed);
            }
            return;
        }
        let from = self.cloud.partition_point(|range| range.1 + 1 < lo);
        let to = self.cloud.partition_point(|range| range.0 <= hi + 1);
        let merged = if from < to {
            (lo.min(self.cloud[from].0), hi.max(self.cloud[to - 1].1))
        } else {
            (lo, hi)
        };
        self.cloud.splice(from..to, [merged]);
    }

    /// Appends a range that lies above all others.
    pub(crate) fn push(&mut self, lo: u64, hi: u64) {
        if lo == self.head + 1 && self.cloud.is_empty() {
            self.head = hi;
            return;
        }
        match self.cloud.last_mut() {
            Some(last) if last.1 + 1 >= lo => last.1 = last.1.max(hi),
            _ => self.cloud.push((lo, hi)),
        }
    }

    /// True if `other` added something.
    pub(crate) fn join(&mut self, other: &Self) -> bool {
        if other.last() <= self.head || self == other {
            return false;
        }
        if other.cloud.is_empty() && self.cloud.is_empty() {
            self.head = other.head;
            return true;
        }
        if self.covers(other) {
            return false;
        }
        // A few ranges are put in one by one, many are merged in one pass.
        if other.cloud.len() < 8 {
            for (lo, hi) in other.iter() {
                self.insert(lo, hi);
            }
            return true;
        }
        let mut all: Vec<_> = self.iter().chain(other.iter()).collect();
        all.sort_unstable();
        let mut out = Self::default();
        for (lo, hi) in all {
            if out.last() + 1 >= lo && !out.is_empty() {
                let hi = hi.max(out.last());
                if out.cloud.is_empty() {
                    out.head = hi;
                } else if let Some(last) = out.cloud.last_mut() {
                    last.1 = hi;
                }
            } else {
                out.push(lo, hi);
            }
        }
        *self = out;
        true
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        if other.last() <= self.head {
            return true;
        }
        other.iter().all(|(lo, hi)| {
            if hi <= self.head {
                return true;
            }
            let after = self.cloud.partition_point(|range| range.0 <= lo);
            after > 0 && hi <= self.cloud[after - 1].1
        })
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        let mut out = Self::default();
        if self.last() <= other.head {
            return out;
        }
        let cuts: Vec<_> = other.iter().collect();
        let mut cut = 0;
        for (mut lo, hi) in self.iter() {
            while cut < cuts.len() && cuts[cut].1 < lo {
                cut += 1;
            }
            let mut at = cut;
            while lo <= hi {
                match cuts.get(at) {
                    Some(&(from, to)) if from <= hi => {
                        if lo < from {
                            out.push(lo, from - 1);
                        }
                        lo = lo.max(to + 1);
                        at += 1;
                    }
                    _ => {
                        out.push(lo, hi);
                        break;
                    }
                }
            }
        }
        out
    }

    pub(crate) fn meet(&self, other: &Self) -> Self {
        self.minus(&self.minus(other))
    }
}

impl FromIterator<(u64, u64)> for Ranges {
    /// In any order.
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut out = Self::default();
        for (lo, hi) in sorted {
            out.insert(lo, hi);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Ranges;

    fn set(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(lo, hi)| lo..=hi).collect()
    }

    fn any() -> impl Strategy<Value = (Ranges, BTreeSet<u64>)> {
        proptest::collection::btree_set(1u64..60, 0..40)
            .prop_map(|model| (model.iter().map(|&seq| (seq, seq)).collect(), model))
    }

    proptest! {
        #[test]
        fn the_set_algebra_is_that_of_sets((a, ma) in any(), (b, mb) in any(), lo in 1u64..60, n in 0u64..9) {
            prop_assert_eq!(&set(&a), &ma);
            prop_assert_eq!(set(&a.minus(&b)), &ma - &mb);
            prop_assert_eq!(set(&a.meet(&b)), &ma & &mb);
            prop_assert_eq!(a.covers(&b), mb.is_subset(&ma));
            let mut joined = a.clone();
            prop_assert_eq!(joined.join(&b), !mb.is_subset(&ma));
            prop_assert_eq!(set(&joined), &ma | &mb);
            let again: Ranges = set(&joined).into_iter().map(|seq| (seq, seq)).collect();
            prop_assert_eq!(&again, &joined, "one representation");
            let mut inserted = a.clone();
            inserted.insert(lo, lo + n);
            let more: BTreeSet<u64> = (lo..=lo + n).collect();
            prop_assert_eq!(set(&inserted), &ma | &more);
            let again: Ranges = set(&inserted).into_iter().map(|seq| (seq, seq)).collect();
            prop_assert_eq!(again, inserted, "one representation");
            prop_assert!((1..70).all(|seq| a.contains(seq) == ma.contains(&seq)));
        }
    }
}
