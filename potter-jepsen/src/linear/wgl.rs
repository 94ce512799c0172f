//! The depth-first search of Wing & Gong (1993) with the memory of Lowe (2017): good where the
//! history is deep and narrow, or where it is valid and a lucky order is found early.

use rustc_hash::FxHashSet;

use super::memo::{Memo, NONE};
use super::model::Model;
use super::problem::{Problem, index};
use super::{Outcome, Stuck};
use crate::budget::Meter;
use crate::verdict::Reason;

const END: u32 = u32::MAX;

/// A doubly linked list over the events; node 0 is the head.
struct Events {
    next: Vec<u32>,
    prev: Vec<u32>,
    /// Node → operation, and whether it is the completion.
    what: Vec<(u32, bool)>,
    /// Operation → its nodes.
    call: Vec<u32>,
    done: Vec<u32>,
}

impl Events {
    fn new<O: Clone>(problem: &Problem<O>) -> Self {
        let events = problem.events();
        let count = events.len() + 1;
        let mut list = Self {
            next: (1..=count).map(|n| if n == count { END } else { index(n) }).collect(),
            prev: (0..count).map(|n| index(n.saturating_sub(1))).collect(),
            what: vec![(0, false); count],
            call: vec![END; problem.ops.len()],
            done: vec![END; problem.ops.len()],
        };
        for (node, &(_, n, end)) in events.iter().enumerate() {
            list.what[node + 1] = (n, end);
            let place = if end { &mut list.done } else { &mut list.call };
            place[n as usize] = index(node + 1);
        }
        list
    }

    fn unlink(&mut self, node: u32) {
        let (prev, next) = (self.prev[node as usize], self.next[node as usize]);
        self.next[prev as usize] = next;
        if next != END {
            self.prev[next as usize] = prev;
        }
    }

    fn relink(&mut self, node: u32) {
        let (prev, next) = (self.prev[node as usize], self.next[node as usize]);
        self.next[prev as usize] = node;
        if next != END {
            self.prev[next as usize] = node;
        }
    }

    fn lift(&mut self, n: u32) {
        self.unlink(self.call[n as usize]);
        if self.done[n as usize] != END {
            self.unlink(self.done[n as usize]);
        }
    }

    fn unlift(&mut self, n: u32) {
        if self.done[n as usize] != END {
            self.relink(self.done[n as usize]);
        }
        self.relink(self.call[n as usize]);
    }
}

/// The placed operations, as exact keys for the memory.
struct Placed {
    words: Vec<u64>,
    /// The bits of crashed operations, which are counted in `used` instead.
    crashed: Vec<u64>,
    /// All words before this one are full.
    low: usize,
    /// Crashed operations placed, by kind: sorted (kind, count).
    used: Vec<(u32, u32)>,
}

impl Placed {
    fn set(&mut self, n: u32) {
        self.words[n as usize / 64] |= 1 << (n % 64);
    }

    fn unset(&mut self, n: u32) {
        self.words[n as usize / 64] &= !(1 << (n % 64));
        self.low = self.low.min(n as usize / 64);
    }

    fn count(&self, kind: u32) -> u32 {
        self.used.binary_search_by_key(&kind, |&(k, _)| k).map_or(0, |at| self.used[at].1)
    }

    fn change(&mut self, kind: u32, by: i32) {
        match self.used.binary_search_by_key(&kind, |&(k, _)| k) {
            Ok(at) => {
                self.used[at].1 = self.used[at].1.saturating_add_signed(by);
                if self.used[at].1 == 0 {
                    self.used.remove(at);
                }
            }
            Err(at) => self.used.insert(at, (kind, by.unsigned_abs())),
        }
    }

    /// Exact: the state, how many words are full, the words after those, the crashed by kind.
    fn key(&mut self, state: u32) -> Box<[u64]> {
        let full = |at: &usize| self.words[*at] | self.crashed[*at] == u64::MAX;
        let base = (self.low..self.words.len()).take_while(full).count() + self.low;
        let top = (base..self.words.len()).rev().find(|&at| self.words[at] != 0);
        let top = top.map_or(base, |at| at + 1);
        let mut key = Vec::with_capacity(2 + (top - base) + self.used.len());
        key.push(u64::from(state) << 32 | base as u64);
        key.push(top as u64);
        key.extend_from_slice(&self.words[base..top]);
        key.extend(self.used.iter().map(|&(kind, count)| u64::from(kind) << 32 | u64::from(count)));
        self.low = base;
        key.into()
    }
}

pub(crate) fn search<M: Model>(
    model: &M,
    problem: &Problem<M::Op>,
    mut meter: Meter,
) -> Result<Outcome, Reason> {
    let mut held = 0;
    let answer = depth_first(model, problem, &mut meter, &mut held);
    meter.shrink(held);
    answer
}

fn depth_first<M: Model>(
    model: &M,
    problem: &Problem<M::Op>,
    meter: &mut Meter,
    held: &mut usize,
) -> Result<Outcome, Reason> {
    let mut memo = Memo::new(model, problem, meter.clone());
    let mut events = Events::new(problem);
    let words = problem.ops.len().div_ceil(64);
    let mut placed =
        Placed { words: vec![0; words], crashed: vec![0; words], low: 0, used: Vec::new() };
    let mut rank = vec![0_u32; problem.ops.len()];
    let mut seen_of_kind = vec![0_u32; problem.kinds.len()];
    for (n, op) in problem.ops.iter().enumerate() {
        if op.crashed() {
            placed.crashed[n / 64] |= 1 << (n % 64);
            rank[n] = seen_of_kind[op.kind as usize];
            seen_of_kind[op.kind as usize] += 1;
        }
    }
    // Operations beyond the last have bits too; they count as placed.
    if problem.ops.len() % 64 != 0 {
        placed.crashed[words - 1] |= u64::MAX << (problem.ops.len() % 64);
    }
    let mut memory: FxHashSet<Box<[u64]>> = FxHashSet::default();
    let mut stack: Vec<(u32, u32)> = Vec::new();
    let (mut state, mut node) = (Memo::<M>::INITIAL, events.next[0]);
    let mut best: Vec<u32> = Vec::new();
    let mut stuck_at = None;
    loop {
        meter.tick()?;
        // Only crashed operations are left, or nothing.
        if node == END {
            return Ok(Outcome::Order(stack.iter().map(|&(n, _)| n).collect()));
        }
        let (n, end) = events.what[node as usize];
        if !end {
            let op = problem.ops[n as usize];
            let next_of_class = !op.crashed() || placed.count(op.kind) == rank[n as usize];
            let after = if next_of_class { memo.step(state, op.kind) } else { NONE };
            if after == NONE || (op.crashed() && after == state) {
                node = events.next[node as usize];
                continue;
            }
            place(&mut placed, problem, n, true);
            let key = placed.key(after);
            let bytes = key.len() * 8 + 40;
            if memory.insert(key) {
                meter.grow(bytes);
                *held += bytes;
                stack.push((n, state));
                state = after;
                events.lift(n);
                node = events.next[0];
            } else {
                place(&mut placed, problem, n, false);
                node = events.next[node as usize];
            }
            continue;
        }
        // A completion whose operation is not placed: back.
        if stack.len() >= best.len() {
            best.clear();
            best.extend(stack.iter().map(|&(n, _)| n));
            stuck_at = Some(n);
        }
        let Some((back, before)) = stack.pop() else {
            let at = stuck_at.unwrap_or(n);
            return Ok(Outcome::Stuck(Stuck { at, prefix: best, whole: true, ..Stuck::default() }));
        };
        place(&mut placed, problem, back, false);
        events.unlift(back);
        state = before;
        node = events.next[events.call[back as usize] as usize];
    }
}

fn place<O: Clone>(placed: &mut Placed, problem: &Problem<O>, n: u32, on: bool) {
    let op = problem.ops[n as usize];
    if op.crashed() {
        placed.change(op.kind, if on { 1 } else { -1 });
    } else if on {
        placed.set(n);
    } else {
        placed.unset(n);
    }
}
