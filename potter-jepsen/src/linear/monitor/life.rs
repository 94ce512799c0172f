//! The lives of values in a container into which every value is put once, and the moments at which
//! such a container can have been empty.

use super::super::problem::{Item, Problem};
use super::super::{Outcome, Stuck};
use super::Cluster;

/// When what never ends, or is never taken, does so; [`GONE`] is even later.
pub(super) const NEVER: u64 = u64::MAX - 1;
const GONE: u64 = u64::MAX;

/// A value's life, with an insertion that ends no later than the removal does, and a removal that
/// begins no earlier than the insertion. What stays inside is taken when everything is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) put: u32,
    pub(super) taken: Option<u32>,
    pub(super) put_begin: u64,
    pub(super) put_end: u64,
    pub(super) take_begin: u64,
    pub(super) take_end: u64,
}

/// When an operation begins and ends. All ends differ from all beginnings, and odd numbers are
/// free for the moments between. An operation that was logged without its invocation begins with
/// the first event.
pub(super) fn span(op: &Item) -> (u64, u64) {
    let end = if op.crashed() { NEVER } else { 4 * u64::from(op.end) + 2 };
    (4 * u64::from(op.begin), end)
}

pub(super) fn stuck(at: u32, core: Vec<u32>, why: &str) -> Outcome {
    Outcome::Stuck(Stuck { at, core, why: vec![why.to_owned()], ..Stuck::default() })
}

/// The values that went in; an insertion that crashed and was never seen is left out, as if it had
/// not happened. An error is a contradiction.
pub(super) fn lives<O>(problem: &Problem<O>, clusters: &[Cluster]) -> Result<Vec<Life>, Outcome> {
    let mut lives = Vec::with_capacity(clusters.len());
    for cluster in clusters {
        let taken = cluster.seen.first().copied();
        let Some(put) = cluster.put else {
            let Some(at) = taken else { continue };
            return Err(stuck(at, vec![at], "nobody put in what was taken"));
        };
        if let [first, second, ..] = cluster.seen[..] {
            return Err(stuck(second, vec![put, first, second], "one value was taken twice"));
        }
        let put_op = &problem.ops[put as usize];
        if put_op.crashed() && taken.is_none() {
            continue;
        }
        let (put_begin, put_end) = span(put_op);
        let (take_begin, take_end) = match taken {
            Some(n) => span(&problem.ops[n as usize]),
            None => (NEVER, GONE),
        };
        if let (Some(n), true) = (taken, take_end < put_begin) {
            return Err(stuck(n, vec![put, n], "it was taken before anybody began to put it in"));
        }
        lives.push(Life {
            put,
            taken,
            put_begin,
            put_end: put_end.min(take_end),
            take_begin: take_begin.max(put_begin),
            take_end,
        });
    }
    Ok(lives)
}

/// For each operation that found nothing, in order of time, a moment when nothing need have been
/// inside.
pub(super) fn empty_points<'l, O>(
    problem: &Problem<O>,
    lives: impl Iterator<Item = &'l Life>,
    empties: &[u32],
) -> Result<Vec<(u64, u32)>, Outcome> {
    let mut inside: Vec<&Life> = lives.filter(|l| l.put_end < l.take_begin).collect();
    inside.sort_unstable_by_key(|life| life.put_end);
    // Times at which something is certainly inside: (from, to), apart from each other.
    let mut full: Vec<(u64, u64)> = Vec::new();
    for life in &inside {
        match full.last_mut() {
            Some(last) if life.put_end < last.1 => last.1 = last.1.max(life.take_begin),
            _ => full.push((life.put_end, life.take_begin)),
        }
    }
    let mut points = Vec::with_capacity(empties.len());
    for &n in empties {
        let (begin, end) = span(&problem.ops[n as usize]);
        let around = full[..full.partition_point(|segment| segment.0 < begin)].last();
        match around.filter(|segment| segment.1 > begin) {
            None => points.push((begin + 1, n)),
            Some(segment) if segment.1 < end => points.push((segment.1 + 1, n)),
            Some(_) => {
                let core = cover(&inside, begin, end, n);
                let why = "it found nothing, and all the while some value was inside";
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
            .take_while(|life| life.put_end < until)
            .max_by_key(|life| life.take_begin);
        let Some(life) = next.filter(|life| life.take_begin > until) else { break };
        core.push(life.put);
        core.extend(life.taken);
        until = life.take_begin;
    }
    core
}
