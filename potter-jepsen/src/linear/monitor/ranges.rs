//! Trees over a row of numbers: what is asked of a range of them takes logarithmic time.

use std::ops::Range;

/// The key of an entry that is gone.
const NONE: u64 = u64::MAX;

/// Keys of which the least of a range can be found and taken out.
pub(super) struct Least {
    size: usize,
    min: Vec<u64>,
}

impl Least {
    pub(super) fn new(keys: impl ExactSizeIterator<Item = u64>) -> Self {
        let size = keys.len().next_power_of_two();
        let mut min = vec![NONE; 2 * size];
        for (leaf, key) in min[size..].iter_mut().zip(keys) {
            *leaf = key;
        }
        for node in (1..size).rev() {
            min[node] = min[2 * node].min(min[2 * node + 1]);
        }
        Self { size, min }
    }

    /// The least key of `range`; `u64::MAX` if all are gone.
    pub(super) fn least(&self, range: &Range<usize>) -> u64 {
        let (mut from, mut to) = (range.start + self.size, range.end + self.size);
        let mut least = NONE;
        while from < to {
            if from % 2 == 1 {
                least = least.min(self.min[from]);
                from += 1;
            }
            if to % 2 == 1 {
                to -= 1;
                least = least.min(self.min[to]);
            }
            (from, to) = (from / 2, to / 2);
        }
        least
    }

    pub(super) fn key(&self, at: usize) -> Option<u64> {
        Some(self.min[at + self.size]).filter(|key| *key != NONE)
    }

    pub(super) fn remove(&mut self, at: usize) {
        let mut node = at + self.size;
        self.min[node] = NONE;
        while node > 1 {
            node /= 2;
            self.min[node] = self.min[2 * node].min(self.min[2 * node + 1]);
        }
    }

    /// Takes out one of `range` whose key is at most `bound`.
    pub(super) fn take(&mut self, range: &Range<usize>, bound: u64) -> Option<usize> {
        let at = self.find(1, 0..self.size, range, bound)?;
        self.remove(at);
        Some(at)
    }

    /// As deep as the tree.
    fn find(
        &self,
        node: usize,
        of: Range<usize>,
        range: &Range<usize>,
        bound: u64,
    ) -> Option<usize> {
        if of.end <= range.start || range.end <= of.start || self.min[node] > bound {
            return None;
        }
        if node >= self.size {
            return Some(of.start);
        }
        let middle = of.start.midpoint(of.end);
        self.find(2 * node, of.start..middle, range, bound)
            .or_else(|| self.find(2 * node + 1, middle..of.end, range, bound))
    }
}

/// For each place, how many ranges lie over it.
pub(super) struct Cover {
    size: usize,
    /// The least count below a node, without what was added to nodes above it.
    min: Vec<i64>,
    /// What was added to all below a node.
    added: Vec<i64>,
}

impl Cover {
    /// More than there can be.
    const MUCH: i64 = 1 << 40;

    /// `len` places under these ranges.
    pub(super) fn new(len: usize, ranges: impl Iterator<Item = Range<usize>>) -> Self {
        let size = len.next_power_of_two();
        let mut min = vec![Self::MUCH; 2 * size];
        let mut changes = vec![0_i64; len + 1];
        for range in ranges {
            changes[range.start] += 1;
            changes[range.end] -= 1;
        }
        let mut count = 0;
        for (leaf, change) in min[size..].iter_mut().zip(&changes[..len]) {
            count += change;
            *leaf = count;
        }
        for node in (1..size).rev() {
            min[node] = min[2 * node].min(min[2 * node + 1]);
        }
        Self { size, min, added: vec![0; 2 * size] }
    }

    /// One range less.
    pub(super) fn lift(&mut self, range: &Range<usize>) {
        self.add(1, 0..self.size, range, -1);
    }

    /// A place that is no longer looked at.
    pub(super) fn close(&mut self, at: usize) {
        self.add(1, 0..self.size, &(at..at + 1), Self::MUCH);
    }

    /// The first place of `range` with nothing over it.
    pub(super) fn free(&self, range: &Range<usize>) -> Option<usize> {
        self.find(1, 0..self.size, range, 0)
    }

    /// As deep as the tree.
    fn add(&mut self, node: usize, of: Range<usize>, range: &Range<usize>, by: i64) {
        if of.end <= range.start || range.end <= of.start {
            return;
        }
        if range.start <= of.start && of.end <= range.end {
            self.min[node] += by;
            self.added[node] += by;
            return;
        }
        let middle = of.start.midpoint(of.end);
        self.add(2 * node, of.start..middle, range, by);
        self.add(2 * node + 1, middle..of.end, range, by);
        self.min[node] = self.added[node] + self.min[2 * node].min(self.min[2 * node + 1]);
    }

    fn find(
        &self,
        node: usize,
        of: Range<usize>,
        range: &Range<usize>,
        above: i64,
    ) -> Option<usize> {
        if of.end <= range.start || range.end <= of.start || self.min[node] + above > 0 {
            return None;
        }
        if node >= self.size {
            return Some(of.start);
        }
        let (middle, above) = (of.start.midpoint(of.end), above + self.added[node]);
        self.find(2 * node, of.start..middle, range, above)
            .or_else(|| self.find(2 * node + 1, middle..of.end, range, above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both trees against plain rows, over all kinds of ranges.
    #[test]
    fn trees_say_what_rows_say() {
        let mut seed = 1_u64;
        let mut below = |limit: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % limit
        };
        for len in 1..40 {
            let mut keys: Vec<u64> = (0..len).map(|_| below(20) as u64).collect();
            let mut tree = Least::new(keys.iter().copied());
            let mut ranges: Vec<Range<usize>> = Vec::new();
            for _ in 0..len {
                let from = below(len);
                ranges.push(from..from + below(len - from + 1));
            }
            let mut closed = vec![false; len];
            let mut cover = Cover::new(len, ranges.iter().cloned());
            for _ in 0..2 * len {
                let from = below(len);
                let range = from..from + below(len - from + 1);
                let least = keys[range.clone()].iter().min().copied().unwrap_or(NONE);
                assert_eq!(tree.least(&range), least);
                let bound = below(20) as u64;
                let taken = tree.take(&range, bound);
                assert_eq!(taken.is_some(), least <= bound);
                if let Some(at) = taken {
                    assert!(range.contains(&at) && keys[at] <= bound && tree.key(at).is_none());
                    keys[at] = NONE;
                }
                let free =
                    |at: &usize| !closed[*at] && !ranges.iter().any(|other| other.contains(at));
                assert_eq!(cover.free(&range), range.clone().find(free));
                if below(3) == 0 && !closed[from] {
                    closed[from] = true;
                    cover.close(from);
                } else if let Some(gone) = ranges.pop() {
                    cover.lift(&gone);
                }
            }
        }
    }
}
