//! Queues into which every value is put once.
//!
//! A queue is wrong in four ways only (Bouajjani, Emmi, Enea & Hamza, "On reducing linearizability
//! to state reachability", 2015): a value is taken that was not put in, a value is taken twice, two
//! values are taken in the other order than they were put in, or the queue says that it is empty
//! while at every moment some value is certainly inside. Each is found by sorting. If none is, an
//! order is built from the values, one after the other, that nothing forces behind another.

use std::collections::BinaryHeap;

use super::super::Outcome;
use super::super::problem::Problem;
use super::Cluster;
use super::life::{Life, empty_points, lives, stuck};

/// A value and the number of empty moments that lie before it.
type Placed = (usize, Life);

/// The answer; `None` where a crashed operation leaves a choice that this does not look into.
pub(super) fn decide<O>(
    problem: &Problem<O>,
    clusters: &[Cluster],
    empties: &[u32],
) -> Option<Outcome> {
    let lives = match lives(problem, clusters) {
        Ok(lives) => lives,
        Err(outcome) => return Some(outcome),
    };
    if let Some(outcome) = overtaken(&lives) {
        return Some(outcome);
    }
    let points = match empty_points(problem, lives.iter(), empties) {
        Ok(points) => points,
        Err(outcome) => return Some(outcome),
    };
    let place = |life: Life| {
        let settled = life.put_end.min(life.take_end);
        (points.partition_point(|&(point, _)| point <= settled), life)
    };
    order(&mut lives.into_iter().map(place).collect::<Vec<Placed>>(), &points)
}

/// Of two values, the one that was put in later was taken earlier.
fn overtaken(lives: &[Life]) -> Option<Outcome> {
    let mut by_put: Vec<&Life> = lives.iter().collect();
    by_put.sort_unstable_by_key(|life| life.put_end);
    // Of those put in so far, the one taken last.
    let mut latest: Vec<&Life> = Vec::with_capacity(by_put.len());
    for life in &by_put {
        let best = latest.last().copied().filter(|best| best.take_begin >= life.take_begin);
        latest.push(best.unwrap_or(life));
    }
    for life in lives {
        let before = by_put.partition_point(|other| other.put_end < life.put_begin);
        let Some(other) = before.checked_sub(1).map(|n| latest[n]) else { continue };
        if other.take_begin > life.take_end {
            let at = life.taken?;
            let core = [Some(other.put), other.taken, Some(life.put), Some(at)];
            let why = "it was put in later and taken earlier than another value";
            return Some(stuck(at, core.into_iter().flatten().collect(), why));
        }
    }
    None
}

/// Values one after the other that nothing forces behind another; each operation takes effect as
/// early as the ones before it allow.
fn order(lives: &mut [Placed], points: &[(u64, u32)]) -> Option<Outcome> {
    lives.sort_unstable_by_key(|(epoch, life)| (*epoch, life.put_begin));
    // (epoch, time, removal?, rank) → operation; what found the queue empty ends its epoch.
    let mut effects: Vec<(usize, u64, u8, usize, u32)> = Vec::with_capacity(lives.len() * 2);
    for (epoch, &(_, n)) in points.iter().enumerate() {
        effects.push((epoch, u64::MAX, 2, epoch, n));
    }
    let mut rank = 0;
    let (mut put_at, mut take_at) = (0, 0);
    for same in lives.chunk_by(|a, b| a.0 == b.0) {
        for n in ranked(same)? {
            let (epoch, life) = same[n];
            put_at = life.put_begin.max(put_at);
            take_at = life.take_begin.max(take_at).max(put_at);
            effects.push((epoch, put_at, 0, rank, life.put));
            if let Some(taken) = life.taken {
                effects.push((epoch, take_at, 1, rank, taken));
            }
            rank += 1;
        }
    }
    effects.sort_unstable();
    Some(Outcome::Order(effects.into_iter().map(|effect| effect.4).collect()))
}

/// A topological order of two interval orders at once: nothing left may have been put in, or taken,
/// entirely before what comes next. What is free to come next stays so.
fn ranked(lives: &[Placed]) -> Option<Vec<usize>> {
    let sorted = |key: fn(&Life) -> u64| {
        let mut all: Vec<usize> = (0..lives.len()).collect();
        all.sort_unstable_by_key(|&n| key(&lives[n].1));
        all
    };
    let by_put_begin = sorted(|life| life.put_begin);
    let by_put_end = sorted(|life| life.put_end);
    let by_take_begin = sorted(|life| life.take_begin);
    let by_take_end = sorted(|life| life.take_end);
    let mut gone = vec![false; lives.len()];
    let mut free = vec![0_u8; lives.len()];
    let mut ready: BinaryHeap<std::cmp::Reverse<(u64, usize)>> = BinaryHeap::new();
    let (mut pb, mut pe, mut tb, mut te) = (0, 0, 0, 0);
    let mut out = Vec::with_capacity(lives.len());
    while out.len() < lives.len() {
        while gone[by_put_end[pe]] {
            pe += 1;
        }
        while gone[by_take_end[te]] {
            te += 1;
        }
        let put_limit = lives[by_put_end[pe]].1.put_end;
        let take_limit = lives[by_take_end[te]].1.take_end;
        while pb < lives.len() && lives[by_put_begin[pb]].1.put_begin <= put_limit {
            let n = by_put_begin[pb];
            pb += 1;
            free[n] += 1;
            if free[n] == 2 {
                ready.push(std::cmp::Reverse((lives[n].1.put_begin, n)));
            }
        }
        while tb < lives.len() && lives[by_take_begin[tb]].1.take_begin <= take_limit {
            let n = by_take_begin[tb];
            tb += 1;
            free[n] += 1;
            if free[n] == 2 {
                ready.push(std::cmp::Reverse((lives[n].1.put_begin, n)));
            }
        }
        let std::cmp::Reverse((_, n)) = ready.pop()?;
        gone[n] = true;
        out.push(n);
    }
    Some(out)
}
