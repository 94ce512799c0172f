//! Queues into which every value is put once.
//!
//! A queue is wrong in four ways only (Bouajjani, Emmi, Enea & Hamza, "On reducing linearizability
//! to state reachability", 2015): a value is taken that was not put in, a value is taken twice, two
//! values are taken in the other order than they were put in, or the queue says that it is empty
//! while at every moment some value is certainly inside. Each is found by sorting. If none is, an
//! order is built from the values, one after the other, that nothing forces behind another.

use std::collections::BinaryHeap;

use super::super::problem::Problem;
use super::super::{Outcome, Stuck};
use super::Cluster;

const NEVER: u64 = u64::MAX - 1;

/// A value's life, with an insertion that ends no later than the removal does, and a removal that
/// begins no earlier than the insertion.
#[derive(Clone, Copy)]
struct Life {
    put: u32,
    taken: Option<u32>,
    put_begin: u64,
    put_end: u64,
    take_begin: u64,
    take_end: u64,
    epoch: usize,
}

fn stuck(at: u32, core: Vec<u32>, why: &str) -> Outcome {
    Outcome::Stuck(Stuck { at, core, why: vec![why.to_owned()], ..Stuck::default() })
}

/// The answer; `None` where a crashed operation leaves a choice that this does not look into.
pub(super) fn decide<O>(
    problem: &Problem<O>,
    clusters: &[Cluster],
    empties: &[u32],
) -> Option<Outcome> {
    let place = |event: u32| if event == u32::MAX { NEVER } else { 2 * u64::from(event) };
    let mut lives = Vec::with_capacity(clusters.len());
    for cluster in clusters {
        let Some(put) = cluster.put else {
            let at = *cluster.seen.first()?;
            return Some(stuck(at, vec![at], "nobody put in what was taken"));
        };
        let taken = cluster.seen.first().copied();
        let (put_op, take_op) = (problem.ops[put as usize], taken.map(|n| problem.ops[n as usize]));
        if let [first, second, ..] = cluster.seen[..] {
            return Some(stuck(second, vec![put, first, second], "one value was taken twice"));
        }
        if put_op.crashed() && taken.is_none() {
            continue;
        }
        let take_end = take_op.map_or(NEVER, |op| place(op.end));
        let put_begin = place(put_op.begin);
        if let (Some(n), true) = (taken, take_end < put_begin) {
            return Some(stuck(n, vec![put, n], "it was taken before anybody began to put it in"));
        }
        let take_begin = take_op.map_or(NEVER, |op| place(op.begin)).max(put_begin);
        let put_end = place(put_op.end).min(take_end);
        lives.push(Life { put, taken, put_begin, put_end, take_begin, take_end, epoch: 0 });
    }
    if let Some(outcome) = overtaken(&lives) {
        return Some(outcome);
    }
    let points = match empty_points(problem, &lives, empties) {
        Ok(points) => points,
        Err(outcome) => return Some(outcome),
    };
    for life in &mut lives {
        let settled = life.put_end.min(life.take_end);
        life.epoch = points.partition_point(|&(point, _)| point <= settled);
    }
    order(&mut lives, &points)
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

/// For each operation that found the queue empty, a moment when it can have been.
fn empty_points<O>(
    problem: &Problem<O>,
    lives: &[Life],
    empties: &[u32],
) -> Result<Vec<(u64, u32)>, Outcome> {
    let mut inside: Vec<&Life> = lives.iter().filter(|l| l.put_end < l.take_begin).collect();
    inside.sort_unstable_by_key(|life| life.put_end);
    // Times at which the queue certainly holds something: (from, to), apart from each other.
    let mut full: Vec<(u64, u64)> = Vec::new();
    for life in &inside {
        match full.last_mut() {
            Some(last) if life.put_end < last.1 => last.1 = last.1.max(life.take_begin),
            _ => full.push((life.put_end, life.take_begin)),
        }
    }
    let mut points = Vec::with_capacity(empties.len());
    for &n in empties {
        let op = problem.ops[n as usize];
        let (begin, end) = (2 * u64::from(op.begin), 2 * u64::from(op.end));
        let around = full[..full.partition_point(|segment| segment.0 < begin)].last();
        match around.filter(|segment| segment.1 > begin) {
            None => points.push((begin + 1, n)),
            Some(segment) if segment.1 < end => points.push((segment.1 + 1, n)),
            Some(_) => {
                let core = cover(&inside, begin, end, n);
                let why = "it found the queue empty, and all the while some value was inside";
                return Err(stuck(n, core, why));
            }
        }
    }
    points.sort_unstable();
    Ok(points)
}

/// Few values that together are inside from `begin` to `end`.
fn cover(inside: &[&Life], begin: u64, end: u64, n: u32) -> Vec<u32> {
    let mut core = vec![n];
    let mut until = begin;
    while until < end {
        let next = inside
            .iter()
            .take_while(|life| life.put_end < until.max(begin))
            .max_by_key(|life| life.take_begin);
        let Some(life) = next.filter(|life| life.take_begin > until) else { break };
        core.push(life.put);
        core.extend(life.taken);
        until = life.take_begin;
    }
    core
}

/// Values one after the other that nothing forces behind another; each operation takes effect as
/// early as the ones before it allow.
fn order(lives: &mut [Life], points: &[(u64, u32)]) -> Option<Outcome> {
    lives.sort_unstable_by_key(|life| (life.epoch, life.put_begin));
    // (epoch, time, removal?, rank) → operation; what found the queue empty ends its epoch.
    let mut effects: Vec<(usize, u64, u8, usize, u32)> = Vec::with_capacity(lives.len() * 2);
    for (epoch, &(_, n)) in points.iter().enumerate() {
        effects.push((epoch, u64::MAX, 2, epoch, n));
    }
    let mut rank = 0;
    let (mut put_at, mut take_at) = (0, 0);
    for same in lives.chunk_by(|a, b| a.epoch == b.epoch) {
        for n in ranked(same)? {
            let life = &same[n];
            put_at = life.put_begin.max(put_at);
            take_at = life.take_begin.max(take_at).max(put_at);
            effects.push((life.epoch, put_at, 0, rank, life.put));
            if let Some(taken) = life.taken {
                effects.push((life.epoch, take_at, 1, rank, taken));
            }
            rank += 1;
        }
    }
    effects.sort_unstable();
    Some(Outcome::Order(effects.into_iter().map(|effect| effect.4).collect()))
}

/// A topological order of two interval orders at once: nothing left may have been put in, or taken,
/// entirely before what comes next. What is free to come next stays so.
fn ranked(lives: &[Life]) -> Option<Vec<usize>> {
    let sorted = |key: fn(&Life) -> u64| {
        let mut all: Vec<usize> = (0..lives.len()).collect();
        all.sort_unstable_by_key(|&n| key(&lives[n]));
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
        let put_limit = lives[by_put_end[pe]].put_end;
        let take_limit = lives[by_take_end[te]].take_end;
        while pb < lives.len() && lives[by_put_begin[pb]].put_begin <= put_limit {
            let n = by_put_begin[pb];
            pb += 1;
            free[n] += 1;
            if free[n] == 2 {
                ready.push(std::cmp::Reverse((lives[n].put_begin, n)));
            }
        }
        while tb < lives.len() && lives[by_take_begin[tb]].take_begin <= take_limit {
            let n = by_take_begin[tb];
            tb += 1;
            free[n] += 1;
            if free[n] == 2 {
                ready.push(std::cmp::Reverse((lives[n].put_begin, n)));
            }
        }
        let std::cmp::Reverse((_, n)) = ready.pop()?;
        gone[n] = true;
        out.push(n);
    }
    Some(out)
}
