//! The segments that a worker owns, and what it does next with them: pure.
//!
//! # Invariant
//! For each segment `stored <= read`: `stored` is its checkpoint, and between the two there is no
//! event that the projection wants. So `read` may run ahead in memory, and is written late.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::checkpoints::{Claimed, Move};
use crate::event::RecordedEvent;
use crate::stream_id::SEGMENTS;

/// The segments of one worker.
#[derive(Debug)]
pub(super) struct Owned {
    /// Of how many.
    pub(super) count: u16,
    segments: BTreeMap<u16, Segment>,
}

#[derive(Debug)]
struct Segment {
    token: i64,
    stored: u64,
    read: u64,
    failure: Option<String>,
    /// How often the next event failed, and when it is tried again.
    attempts: u32,
    retry_at: Option<Instant>,
}

/// Segments that stand at the same place and are read together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) after: u64,
    /// Where the next segment stands: from there on they are read together.
    pub(super) until: Option<u64>,
    pub(super) members: BTreeSet<u16>,
    /// The next event of one of them failed before: take it alone.
    pub(super) cautious: bool,
}

impl Owned {
    pub(super) fn new(count: u16) -> Self {
        Self { count, segments: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn all(&self) -> Vec<u16> {
        self.segments.keys().copied().collect()
    }

    /// Takes what the storage says. How far was read is kept where nobody else was at work; answers
    /// whether anybody was.
    pub(super) fn replace(&mut self, claimed: Vec<Claimed>) -> bool {
        let mut before = std::mem::take(&mut self.segments);
        let mut changed = false;
        for one in claimed {
            let old = before.remove(&one.segment);
            changed |= !self.put(one, old);
        }
        changed || !before.is_empty()
    }

    /// Adds what was claimed.
    pub(super) fn add(&mut self, claimed: Vec<Claimed>) {
        for one in claimed {
            self.put(one, None);
        }
    }

    /// Answers whether it is as it was.
    fn put(&mut self, one: Claimed, old: Option<Segment>) -> bool {
        let unmoved = |old: &Segment| old.token == one.token && old.stored == one.position;
        let old = old.filter(unmoved);
        let is_same = old.as_ref().is_some_and(|old| old.failure == one.failure);
        let segment = match old {
            Some(old) => Segment { failure: one.failure, ..old },
            None => Segment {
                token: one.token,
                stored: one.position,
                read: one.position,
                failure: one.failure,
                attempts: 0,
                retry_at: None,
            },
        };
        self.segments.insert(one.segment, segment);
        is_same
    }

    pub(super) fn remove(&mut self, segments: &[u16]) {
        for segment in segments {
            self.segments.remove(segment);
        }
    }

    /// Which segment an event is in.
    pub(super) fn segment_of(&self, event: &RecordedEvent) -> u16 {
        event.stream_id.segment() / (SEGMENTS / self.count)
    }

    /// What is read next: those that are furthest behind, so that all come together.
    pub(super) fn next_group(&self, now: Instant) -> Option<Group> {
        let runnable = || {
            self.segments.iter().filter(|(_, segment)| {
                segment.failure.is_none() && segment.retry_at.is_none_or(|at| at <= now)
            })
        };
        let after = runnable().map(|(_, segment)| segment.read).min()?;
        let until = runnable().map(|(_, segment)| segment.read).filter(|read| *read > after).min();
        let at_after = || runnable().filter(|(_, segment)| segment.read == after);
        Some(Group {
            after,
            until,
            members: at_after().map(|(number, _)| *number).collect(),
            cautious: at_after().any(|(_, segment)| segment.attempts > 0),
        })
    }

    /// When the next event that failed is tried again.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.segments.values().filter_map(|segment| segment.retry_at).min()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.segments.values().any(|segment| segment.failure.is_some())
    }

    /// Why one of them stands still.
    pub(super) fn failure(&self) -> Option<String> {
        self.segments.values().find_map(|segment| segment.failure.clone())
    }

    /// Where the one that is furthest behind stands, of those that can go on.
    pub(super) fn lowest_read(&self) -> Option<u64> {
        let running = self.segments.values().filter(|segment| segment.failure.is_none());
        running.map(|segment| segment.read).min()
    }

    pub(super) fn has(&self, number: u16) -> bool {
        self.segments.contains_key(&number)
    }

    /// The moves for events that are applied, to `to`.
    pub(super) fn moves(&self, events: &[RecordedEvent], to: u64) -> Vec<Move> {
        let mut handled = BTreeMap::<u16, u64>::new();
        for event in events {
            *handled.entry(self.segment_of(event)).or_default() += 1;
        }
        let moves = handled.into_iter().filter_map(|(segment, handled)| {
            let owned = self.segments.get(&segment)?;
            Some(Move { segment, token: owned.token, from: owned.stored, to, handled })
        });
        moves.collect()
    }

    /// The moves that are only late: nothing to apply between stored and read.
    pub(super) fn late_moves(&self) -> Vec<Move> {
        let late = self.segments.iter().filter(|(_, segment)| segment.read > segment.stored);
        let moves = late.map(|(number, segment)| Move {
            segment: *number,
            token: segment.token,
            from: segment.stored,
            to: segment.read,
            handled: 0,
        });
        moves.collect()
    }

    /// The moves were committed.
    pub(super) fn moved(&mut self, moves: &[Move]) {
        for one in moves {
            if let Some(segment) = self.segments.get_mut(&one.segment) {
                segment.stored = one.to;
                segment.read = segment.read.max(one.to);
                if one.handled > 0 {
                    segment.attempts = 0;
                    segment.retry_at = None;
                }
            }
        }
    }

    /// The page was whole up to `through` for these; those that failed stay where they are.
    pub(super) fn read_through(&mut self, members: &BTreeSet<u16>, through: u64) {
        for number in members {
            if let Some(segment) = self.segments.get_mut(number)
                && segment.attempts == 0
            {
                segment.read = segment.read.max(through);
            }
        }
    }

    /// The event failed once more; answers how often now.
    pub(super) fn failed(&mut self, event: &RecordedEvent) -> u32 {
        let number = self.segment_of(event);
        self.segments.get_mut(&number).map_or(u32::MAX, |segment| {
            segment.attempts = segment.attempts.saturating_add(1);
            segment.read = segment.read.max(event.global_position - 1);
            segment.attempts
        })
    }

    pub(super) fn retry_at(&mut self, event: &RecordedEvent, at: Instant) {
        let number = self.segment_of(event);
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.retry_at = Some(at);
        }
    }

    pub(super) fn stopped(&mut self, number: u16, failure: &str) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.failure = Some(failure.to_owned());
        }
    }

    pub(super) fn claimed(&self, number: u16) -> Option<Claimed> {
        let segment = self.segments.get(&number)?;
        Some(Claimed {
            segment: number,
            position: segment.stored,
            token: segment.token,
            failure: segment.failure.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn claimed(segment: u16, position: u64) -> Claimed {
        Claimed { segment, position, token: 1, failure: None }
    }

    fn owned(segments: &[(u16, u64)]) -> Owned {
        let mut owned = Owned::new(4);
        owned.add(segments.iter().map(|(segment, at)| claimed(*segment, *at)).collect());
        owned
    }

    #[test]
    fn those_behind_catch_up_and_join() {
        let mut owned = owned(&[(0, 10), (1, 10), (2, 30)]);
        let group = owned.next_group(Instant::now()).unwrap();
        assert_eq!((group.after, group.until), (10, Some(30)));
        assert_eq!(group.members, BTreeSet::from([0, 1]));
        owned.read_through(&group.members, 30);
        let group = owned.next_group(Instant::now()).unwrap();
        assert_eq!((group.after, group.until, group.members.len()), (30, None, 3));
    }

    #[test]
    fn what_was_read_is_written_late_and_kept_over_a_look_at_the_storage() {
        let mut owned = owned(&[(0, 10), (1, 10)]);
        owned.read_through(&BTreeSet::from([0, 1]), 50);
        let late = owned.late_moves();
        assert_eq!(late.iter().map(|one| (one.from, one.to)).collect::<Vec<_>>(), [(10, 50); 2]);
        owned.replace(vec![claimed(0, 10), claimed(1, 20)]);
        assert_eq!(owned.late_moves().len(), 1, "segment 1 was moved by somebody else");
        assert_eq!(owned.lowest_read(), Some(20));
    }

    #[test]
    fn a_stopped_segment_holds_nobody_up() {
        let mut owned = owned(&[(0, 10), (1, 10)]);
        owned.stopped(0, "boom");
        let group = owned.next_group(Instant::now()).unwrap();
        assert_eq!(group.members, BTreeSet::from([1]));
        owned.stopped(1, "boom");
        assert_eq!(owned.next_group(Instant::now()), None);
        assert!(owned.has_failed());
    }

    #[test]
    fn retries_wait_for_their_time() {
        let mut owned = owned(&[(0, 10)]);
        let soon = Instant::now() + Duration::from_secs(60);
        owned.segments.get_mut(&0).unwrap().retry_at = Some(soon);
        owned.segments.get_mut(&0).unwrap().attempts = 1;
        assert_eq!(owned.next_group(Instant::now()), None);
        assert!(owned.next_group(soon).unwrap().cautious);
    }
}
