//! Stacks onto which every value is pushed once.
//!
//! An order is legal for a stack if the lives of its values, each from its push to its pop, are
//! nested or apart. What the history fixes of a life is its middle, from the end of the push to the
//! beginning of the pop: there the value is certainly inside. Unpopped values are popped when
//! everything is over, in whatever order suits.
//!
//! 1. *A value whose push and pop overlap has no middle.* It can come and go at one instant of the
//!    overlap, between any two others. It forces nothing, and is left out until the end.
//! 2. *Where no middle is, the history falls apart.* Let `t` be a moment outside of all middles.
//!    In any order, the pops after `t` of values whose middle lies before `t` can move to just
//!    before `t`, in the order they have: these lives all contain `t`, so they are nested, and
//!    stay so. Pushes before `t` of values whose middle lies after it move to just after it.
//!    Nothing leaves its interval, and now nothing is inside at `t`. So an order exists exactly if
//!    one does for each part, and then at each such `t` a pop can find the stack empty. At other
//!    moments it can not.
//! 3. *A part that does not fall apart has a bottom.* Its outermost lives are apart from each other.
//!    If there were two, nothing would be inside between them, but middles cover the part without
//!    a gap. So one value is pushed before and popped after all others: its push begins before the
//!    first push of the part ends, and its pop ends after the last pop of the part begins.
//! 4. *Any value that can be the bottom may be.* Without it an order is no harder to find. And around
//!    an order of the rest it can be put: before the first end nothing of the part need have
//!    happened, after the last beginning nothing need be left (as in 2).
//!
//! So: split, take the bottoms away, split the rest, and so on, until nothing is left or a part has
//! no bottom. A value that could be the bottom can be it in every smaller part too, hence each value
//! becomes able to begin, and to end, its part once; with trees over the values by the end of their
//! push, all of it takes `O(n log n)`. The parts wait in a list of their own, however deep they are.
//!
//! The decomposition is that of Abdulla, Grahn, Jonsson, Krishna & Saivasan, "Efficient
//! linearizability monitoring" (2025), who decide in quadratic time; the bound is also that of
//! Lee & Mathur, "Efficient decrease-and-conquer linearizability monitoring" (2025).
//!
//! A pop that crashed may have taken nothing: an order without it is an order. But where there is
//! none, it may have taken any value, and the searches decide.

use std::ops::Range;

use super::super::problem::{Problem, index};
use super::super::{Outcome, Stuck};
use super::Cluster;
use super::life::{Life, empty_points, lives, span};
use super::ranges::{Cover, Least};

/// The answer; `None` if there may be another one because pops crashed.
pub(super) fn decide<O>(
    problem: &Problem<O>,
    clusters: &[Cluster],
    empties: &[u32],
    crashed_pops: bool,
) -> Option<Outcome> {
    // What these say does not depend on pops that crashed: a value is there once.
    let lives = match lives(problem, clusters) {
        Ok(lives) => lives,
        Err(outcome) => return Some(outcome),
    };
    let (mut lasting, brief): (Vec<Life>, Vec<Life>) =
        lives.into_iter().partition(|life| life.put_end < life.take_begin);
    lasting.sort_unstable_by_key(|life| life.put_end);
    let points = match empty_points(problem, lasting.iter(), empties) {
        Ok(points) => points,
        Err(outcome) => return (!crashed_pops).then_some(outcome),
    };
    match Nest::new(&lasting).order(&points) {
        Ok(order) => Some(Outcome::Order(with_brief(problem, &order, &brief))),
        Err(part) => (!crashed_pops).then(|| no_bottom(problem, &part)),
    }
}

/// What is still to be done for the order, the next at the end of the list.
enum Task {
    /// Values that are connected, by their places.
    Part(Range<usize>),
    /// The pop of a value below.
    Pop(usize),
    /// A pop that found nothing.
    Empty(u32),
}

/// Values by the end of their push, with what is left of them while bottoms are taken away.
struct Nest<'l> {
    lives: &'l [Life],
    /// The last one of a part that the middle of each value reaches over, plus one.
    reach: Vec<usize>,
    /// The beginnings of pushes that are after the first end of their part.
    push_begins: Least,
    /// The ends of pops that are before the last beginning of their part, complemented.
    pop_ends: Least,
    /// The beginnings of the pops of all that are left, complemented.
    pop_begins: Least,
    /// For each push that is left, how many middles lie over its end.
    cover: Cover,
    /// How many of both conditions of a bottom hold.
    fits: Vec<u8>,
}

impl<'l> Nest<'l> {
    fn new(lives: &'l [Life]) -> Self {
        let before = |time: u64| lives.partition_point(|life| life.put_end < time);
        let reach: Vec<usize> = lives.iter().map(|life| before(life.take_begin)).collect();
        let middles = reach.iter().enumerate().map(|(n, &reach)| n + 1..reach);
        Self {
            lives,
            push_begins: Least::new(lives.iter().map(|life| life.put_begin)),
            pop_ends: Least::new(lives.iter().map(|life| !life.take_end)),
            pop_begins: Least::new(lives.iter().map(|life| !life.take_begin)),
            cover: Cover::new(lives.len(), middles),
            fits: vec![0; lives.len()],
            reach,
        }
    }

    /// An order of the operations, or the values of a part without a bottom.
    fn order(&mut self, points: &[(u64, u32)]) -> Result<Vec<u32>, Vec<Life>> {
        let mut order = Vec::with_capacity(2 * self.lives.len() + points.len());
        let mut tasks = self.parts(0..self.lives.len());
        let mut points = points.iter().copied().peekable();
        let mut first = Vec::with_capacity(tasks.len());
        for task in tasks.drain(..) {
            if let Task::Part(part) = &task {
                let begin = self.lives[part.start].put_end;
                while let Some((_, n)) = points.next_if(|(point, _)| *point < begin) {
                    first.push(Task::Empty(n));
                }
            }
            first.push(task);
        }
        first.extend(points.map(|(_, n)| Task::Empty(n)));
        tasks.extend(first.into_iter().rev());
        while let Some(task) = tasks.pop() {
            let part = match task {
                Task::Part(part) => part,
                Task::Pop(n) => {
                    order.extend(self.lives[n].taken);
                    continue;
                }
                Task::Empty(n) => {
                    order.push(n);
                    continue;
                }
            };
            let bottoms = self.bottoms(&part);
            if bottoms.is_empty() {
                let left = part.filter(|&n| self.pop_begins.key(n).is_some());
                return Err(left.map(|n| self.lives[n]).collect());
            }
            for n in bottoms {
                order.push(self.lives[n].put);
                tasks.push(Task::Pop(n));
                self.remove(n);
            }
            tasks.extend(self.parts(part).into_iter().rev());
        }
        Ok(order)
    }

    /// What a range of values falls into.
    fn parts(&self, range: Range<usize>) -> Vec<Task> {
        let mut parts = Vec::new();
        let mut from = self.cover.free(&range);
        while let Some(start) = from {
            from = self.cover.free(&(start + 1..range.end));
            parts.push(Task::Part(start..from.unwrap_or(range.end)));
        }
        parts
    }

    /// All values that can be the bottom of a part; each is found once.
    fn bottoms(&mut self, part: &Range<usize>) -> Vec<usize> {
        let first_end = self.lives[part.start].put_end;
        let last_begin = self.pop_begins.least(part);
        let mut found = Vec::new();
        for (tree, bound) in [(&mut self.push_begins, first_end), (&mut self.pop_ends, last_begin)]
        {
            while let Some(n) = tree.take(part, bound) {
                self.fits[n] += 1;
                if self.fits[n] == 2 {
                    found.push(n);
                }
            }
        }
        found
    }

    fn remove(&mut self, n: usize) {
        self.pop_begins.remove(n);
        self.cover.lift(&(n + 1..self.reach[n]));
        self.cover.close(n);
    }
}

/// The order with the values that come and go at one instant. Everything takes effect as early as
/// what stands before it allows.
fn with_brief<O>(problem: &Problem<O>, order: &[u32], brief: &[Life]) -> Vec<u32> {
    let mut effects: Vec<(u64, u32, u32)> = Vec::with_capacity(order.len() + 2 * brief.len());
    let (mut now, mut place) = (0, 0);
    for &n in order {
        now = span(&problem.ops[n as usize]).0.max(now);
        effects.push((now, place, n));
        place += 1;
    }
    for life in brief {
        for n in std::iter::once(life.put).chain(life.taken) {
            effects.push((life.take_begin, place, n));
            place += 1;
        }
    }
    effects.sort_unstable();
    effects.into_iter().map(|effect| effect.2).collect()
}

/// Of a part without a bottom, few values that have none either: the one that is pushed first, the
/// one that is popped last, and between them as few as connect them.
fn no_bottom<O>(problem: &Problem<O>, part: &[Life]) -> Outcome {
    let last = part.iter().map(|life| life.take_begin).max().unwrap_or(0);
    let mut chain: Vec<&Life> = part.first().into_iter().collect();
    let mut until = part.first().map_or(last, |life| life.take_begin);
    let mut at = 1;
    let mut best: Option<&Life> = None;
    while until < last {
        while let Some(life) = part.get(at).filter(|life| life.put_end < until) {
            if best.is_none_or(|best| best.take_begin < life.take_begin) {
                best = Some(life);
            }
            at += 1;
        }
        let Some(next) = best.filter(|best| best.take_begin > until) else { break };
        chain.push(next);
        until = next.take_begin;
    }
    let (Some(low), Some(high)) = (chain.first(), chain.last()) else {
        return Outcome::Stuck(Stuck { whole: true, ..Stuck::default() });
    };
    let id = |n: u32| problem.ops[n as usize].id;
    let headline = match chain.len() {
        2 => "it was popped from under a value that was pushed later and was still inside",
        _ => {
            "some value of these was inside at every moment, and none of them can have been \
             below all others"
        }
    };
    let mut why = vec![headline.to_owned()];
    for life in &chain {
        // Both may hold; one is enough.
        why.push(match life.taken {
            Some(taken) if life.take_end < last => {
                let before = match high.taken {
                    Some(end) => format!("before op {} began", id(end)),
                    None => format!("and that of op {} was not", id(high.put)),
                };
                format!("the value of op {} was popped by op {} {before}", id(life.put), id(taken))
            }
            _ => format!("op {} began to push after op {} had pushed", id(life.put), id(low.put)),
        });
    }
    let core = chain.iter().flat_map(|life| [Some(life.put), life.taken]).flatten().collect();
    Outcome::Stuck(Stuck { at: low.taken.unwrap_or(low.put), core, why, ..Stuck::default() })
}

/// The operations that found nothing, and whether pops crashed; `None` if others are unknown.
pub(super) fn apart<O>(
    problem: &Problem<O>,
    found_nothing: impl Fn(u32) -> bool,
    unknown: impl Fn(u32) -> bool,
) -> Option<(Vec<u32>, bool)> {
    let (mut empties, mut crashed) = (Vec::new(), false);
    for (n, op) in problem.ops.iter().enumerate() {
        if found_nothing(op.kind) {
            empties.push(index(n));
        } else if unknown(op.kind) {
            if !op.crashed() {
                return None;
            }
            crashed = true;
        }
    }
    Some((empties, crashed))
}

#[cfg(test)]
mod tests;
