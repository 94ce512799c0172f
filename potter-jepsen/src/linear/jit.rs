//! The just-in-time search (Lowe, "Testing for linearizability", 2017) over all configurations at
//! once: event by event, an operation is placed only when a completion demands it.
//!
//! What keeps the configurations few:
//!
//! - An operation that only reads is placed as soon as it is legal, since that can't hurt.
//! - An operation that is legal everywhere can hide: just before an operation that overwrites, or in
//!   a state that it does not change. From such a moment on it is *free*: it may still be placed, and
//!   need not. So a write is placed only if somebody saw it.
//! - Of equal operations the one that completes first is placed first, and crashed ones last; equal
//!   crashed operations are one class with a count.
//! - Of two configurations in the same state, the one that placed more reads, kept more operations
//!   free and used no more crashed operations can do whatever the other can: the other is dropped.
//!
//! The search runs in passes. A *narrow* pass keeps only the most promising configurations: what it
//! finds is an order, but its failure proves nothing. A *generous* pass keeps all, and lets crashed
//! operations happen any number of times, which makes configurations far fewer: its failure is a
//! proof, its success is not. Passes get wider in turn, and the last one is exact. Where a narrow pass
//! finds nothing, it first goes back a little and tries that part again with more configurations.

mod config;
mod live;
mod rewind;
mod step;
mod trail;

use self::step::Search;
use super::model::Model;
use super::problem::Problem;
use super::{Outcome, Stuck};
use crate::budget::Meter;
use crate::verdict::{Reason, ReasonKind};

/// One pass over the events.
#[derive(Clone, Copy, Debug)]
struct Pass {
    /// How many configurations may be kept between events.
    width: usize,
    /// Beyond the width the worst are dropped; otherwise the pass gives up.
    narrow: bool,
    /// Crashed operations may happen any number of times.
    generous: bool,
}

/// The passes, if the first one is to be `width` wide.
fn passes(width: usize, crashed: bool) -> [Pass; 6] {
    let narrow = |width| Pass { width, narrow: true, generous: false };
    let whole = |width| Pass { width, narrow: false, generous: crashed };
    let exact = Pass { width: usize::MAX, narrow: false, generous: false };
    [
        narrow(width),
        whole(width.saturating_mul(32)),
        narrow(width.saturating_mul(16)),
        whole(width.saturating_mul(512)),
        narrow(width.saturating_mul(256)),
        exact,
    ]
}

/// How wide the first pass is.
pub(crate) const WIDTH: usize = 8;

enum Ended {
    Order(Vec<u32>),
    Stuck(Stuck),
    /// No proof either way; what it found may still be of use to show.
    Nothing(Stuck),
}

/// Searches with masks as wide as the history's concurrency asks for.
pub(crate) fn search<M: Model>(
    model: &M,
    problem: &Problem<M::Op>,
    meter: &Meter,
    width: usize,
) -> Result<Outcome, Reason> {
    match concurrency(problem) {
        0..=64 => search_in::<M, 1>(model, problem, meter, width),
        65..=128 => search_in::<M, 2>(model, problem, meter, width),
        129..=512 => search_in::<M, 8>(model, problem, meter, width),
        513..=2048 => search_in::<M, 32>(model, problem, meter, width),
        more => {
            let message = format!("{more} operations run at the same time; 2048 can be searched");
            Err(Reason::new(ReasonKind::MemoryLimit, message))
        }
    }
}

fn concurrency<O: Clone>(problem: &Problem<O>) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for (_, n, end) in problem.events() {
        if end {
            now -= 1;
        } else if !problem.ops[n as usize].crashed() {
            now += 1;
            most = most.max(now);
        }
    }
    most
}

fn search_in<M: Model, const N: usize>(
    model: &M,
    problem: &Problem<M::Op>,
    meter: &Meter,
    width: usize,
) -> Result<Outcome, Reason> {
    let crashed = problem.ops.iter().any(|op| op.crashed());
    let mut best = Stuck::default();
    for pass in passes(width, crashed) {
        match Search::<M, N>::new(model, problem, meter.clone(), pass).run()? {
            Ended::Order(order) => return Ok(Outcome::Order(order)),
            Ended::Stuck(mut stuck) => {
                // A generous pass has no legal order to show.
                if stuck.prefix.is_empty() {
                    stuck.prefix = best.prefix;
                }
                return Ok(Outcome::Stuck(stuck));
            }
            Ended::Nothing(stuck) if stuck.prefix.len() > best.prefix.len() => best = stuck,
            Ended::Nothing(_) => {}
        }
    }
    Err(Reason::new(ReasonKind::NotVerified, "the exact search ended without an answer"))
}
