//! A counter that only grows, or not: reads lie between what must have been and what may have been.

use super::{Findings, misfit, operations};
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{History, Outcome};
use crate::verdict::{Analysis, Checker, no_evidence};

/// A read must lie between the sum of all `add`s that had certainly happened when it began (with
/// those that lower the value as far as they may have happened by its end) and the sum of all that
/// may have happened when it ended. Jepsen's bounds, for decrements too; necessary, and cheap.
/// [`crate::linear::Counter`] decides linearizability exactly.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Counter {}

impl Counter {
    /// The checker; the counter begins at 0.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Checker for Counter {
    fn check(&self, history: &History, _: &Budget) -> Result<Analysis> {
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("counter", verdict));
        }
        // (position, by how much, does it raise the upper bound's side now?)
        let mut certain: Vec<(u32, i128)> = Vec::new();
        let mut possible: Vec<(u32, i128)> = Vec::new();
        let mut reads = Vec::new();
        for op in operations(history) {
            let sign = if matches!(op.f, "decr" | "subtract") { -1 } else { 1 };
            match op.f {
                "add" | "incr" | "increment" | "decr" | "subtract" => {
                    if op.outcome == Outcome::Fail {
                        continue;
                    }
                    let by = match op.input.is_nil() {
                        true => 1,
                        false => op
                            .input
                            .as_int()
                            .ok_or_else(|| misfit(history, op.id, "an add needs a number"))?,
                    };
                    let by = sign * i128::from(by);
                    possible.push((op.begin, by));
                    if op.outcome == Outcome::Ok {
                        certain.push((op.end, by));
                    }
                }
                "read" if op.outcome == Outcome::Ok && !op.output.is_nil() => {
                    let seen = op.output.as_int();
                    let seen =
                        seen.ok_or_else(|| misfit(history, op.id, "a read returns a number"))?;
                    reads.push((op.begin, op.end, i128::from(seen), op.id));
                }
                _ => {}
            }
        }
        let certain_up = Sums::new(&certain, |by| by > 0);
        let certain_down = Sums::new(&certain, |by| by < 0);
        let possible_up = Sums::new(&possible, |by| by > 0);
        let possible_down = Sums::new(&possible, |by| by < 0);
        let mut findings = Findings::default();
        for &(begin, end, seen, id) in &reads {
            let low = certain_up.until(begin) + possible_down.until(end);
            let high = possible_up.until(end) + certain_down.until(begin);
            if !(low..=high).contains(&seen) {
                let message =
                    format!("{} is not between {low} and {high}", history.describe(id as usize));
                findings.add("out-of-bounds", message, &[id]);
            }
        }
        let text = format!("{} adds, {} reads within their bounds", possible.len(), reads.len());
        Ok(findings.analysis("counter", (reads.len() + certain.len(), text)))
    }
}

/// Sums of what happened up to a position.
struct Sums(Vec<(u32, i128)>);

impl Sums {
    fn new(all: &[(u32, i128)], keep: impl Fn(i128) -> bool) -> Self {
        let mut kept: Vec<(u32, i128)> = all.iter().copied().filter(|(_, by)| keep(*by)).collect();
        kept.sort_unstable_by_key(|(at, _)| *at);
        let mut sum = 0;
        for (_, by) in &mut kept {
            sum += *by;
            *by = sum;
        }
        Self(kept)
    }

    fn until(&self, at: u32) -> i128 {
        let count = self.0.partition_point(|(position, _)| *position < at);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}
