//! Every element of a set over the whole test: added, seen, and never gone again.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Findings, misfit, operations};
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{History, Outcome};
use crate::value::Value;
use crate::verdict::{Analysis, Checker, no_evidence};

/// Follows every element through all reads, as Jepsen's set-full: an element is *known* from the
/// completion of its `add` or of the first read that shows it. It is *lost* if a read that begins
/// later does not show it, and no read shows it after that. If reads show it again, it was only
/// *stale*, which is an anomaly where `linearizable` is demanded. An element that is known and that
/// no read could show is *never read*: nothing is concluded from it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SetFull {
    /// Whether every element must be seen by every read that begins after it is known.
    pub linearizable: bool,
}

impl SetFull {
    /// Stale reads are allowed, losses are not.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stale reads are anomalies too.
    #[must_use]
    pub fn linearizable(mut self) -> Self {
        self.linearizable = true;
        self
    }
}

#[derive(Default)]
struct Element {
    /// The completion after which everybody should see it, and whose.
    known: Option<(u32, u32)>,
    /// An `add` that may have happened begins here.
    begin: Option<u32>,
    /// The latest invocation of a read that shows it.
    last_present: Option<u32>,
    /// The earliest completion of a read that shows it, and that read.
    first_seen: Option<(u32, u32)>,
}

impl Checker for SetFull {
    fn check(&self, history: &History, _: &Budget) -> Result<Analysis> {
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("set-full", verdict));
        }
        let mut elements: FxHashMap<&Value, Element> = FxHashMap::default();
        let mut reads: Vec<(u32, u32, u32, &[Value])> = Vec::new();
        let mut findings = Findings::default();
        for op in operations(history) {
            if op.f == "add" && op.outcome != Outcome::Fail {
                let element = elements.entry(op.input).or_default();
                element.begin = Some(element.begin.map_or(op.begin, |at| at.min(op.begin)));
                if op.outcome == Outcome::Ok {
                    let known = (op.end, op.id);
                    element.known = Some(element.known.map_or(known, |at| at.min(known)));
                }
            } else if op.f == "read" && op.outcome == Outcome::Ok {
                let Some(items) = op.output.as_items() else {
                    return Err(misfit(history, op.id, "a read of a set returns its elements"));
                };
                reads.push((op.begin, op.end, op.id, items));
            }
        }
        for &(begin, end, id, items) in &reads {
            let mut seen: FxHashSet<&Value> = FxHashSet::default();
            for item in items {
                if !seen.insert(item) {
                    let message =
                        format!("{item} stands twice in a read: {}", history.describe(id as usize));
                    findings.add("duplicated", message, &[id]);
                }
                let element = elements.entry(item).or_default();
                if element.begin.is_none_or(|begin| begin > end) {
                    let message = format!(
                        "{item} was read, and nobody had added it: {}",
                        history.describe(id as usize)
                    );
                    findings.add("unexpected", message, &[id]);
                }
                element.last_present = element.last_present.max(Some(begin));
                element.first_seen =
                    Some(element.first_seen.map_or((end, id), |s| s.min((end, id))));
            }
        }
        self.follow(history, &elements, &mut reads, &mut findings);
        let text = format!("{} elements in {} reads", elements.len(), reads.len());
        Ok(findings.analysis("set-full", (reads.len(), text)))
    }
}

impl SetFull {
    fn follow(
        &self,
        history: &History,
        elements: &FxHashMap<&Value, Element>,
        reads: &mut [(u32, u32, u32, &[Value])],
        findings: &mut Findings,
    ) {
        reads.sort_unstable_by_key(|read| read.0);
        let sets: Vec<FxHashSet<&Value>> =
            reads.iter().map(|read| read.3.iter().collect()).collect();
        let mut sorted: Vec<_> = elements.iter().collect();
        sorted.sort_unstable_by_key(|(value, _)| *value);
        for (value, element) in sorted {
            let known = match (element.known, element.first_seen) {
                (Some(a), Some(b)) => a.min(b),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => continue,
            };
            // From the last read backwards: the latest that should show it and does not.
            let from = reads.partition_point(|read| read.0 <= known.0);
            let missing = |n: &usize| !sets[*n].contains(value);
            let lost = (from..reads.len()).rev().find(missing).filter(|&n| {
                // Lost if no read that is later than the one that misses it shows it.
                element.last_present.is_none_or(|present| present < reads[n].0)
            });
            if let Some(n) = lost {
                let message = format!(
                    "{value} was there ({}) and is gone in {}",
                    history.describe(known.1 as usize),
                    history.describe(reads[n].2 as usize)
                );
                findings.add("lost", message, &[known.1, reads[n].2]);
            } else if self.linearizable
                && let Some(n) = (from..reads.len()).find(missing)
            {
                let message = format!(
                    "{value} was there ({}) and was not seen by {}",
                    history.describe(known.1 as usize),
                    history.describe(reads[n].2 as usize)
                );
                findings.add("stale", message, &[known.1, reads[n].2]);
            }
        }
    }
}
