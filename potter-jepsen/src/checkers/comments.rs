//! Who is visible makes visible whoever was there before.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Findings, misfit, operations};
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{History, Outcome};
use crate::value::Value;
use crate::verdict::{Analysis, Checker, no_evidence};

/// Jepsen's comments: blind inserts of different values (`write`, `add` or `insert`), and `read`s of
/// all values. If a read shows an insert, it shows every insert that had completed before that one
/// was invoked; otherwise the later transaction was visible without the earlier one, which strict
/// serializability forbids. Stale reads are no matter here, and neither are values of unknown origin:
/// [`SetFull::linearizable`](super::SetFull::linearizable) demands more.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Comments {}

impl Comments {
    /// The checker.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Checker for Comments {
    fn check(&self, history: &History, _: &Budget) -> Result<Analysis> {
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("comments", verdict));
        }
        let mut begins: FxHashMap<&Value, (u32, u32)> = FxHashMap::default();
        let mut completed: Vec<(u32, u32, &Value)> = Vec::new();
        let mut reads = Vec::new();
        for op in operations(history) {
            match (op.f, op.outcome) {
                ("write" | "add" | "insert", outcome) => {
                    if begins.insert(op.input, (op.begin, op.id)).is_some() {
                        let what = format!("{} is inserted twice", op.input);
                        return Err(misfit(history, op.id, &what));
                    }
                    if outcome == Outcome::Ok {
                        completed.push((op.end, op.id, op.input));
                    }
                }
                ("read", Outcome::Ok) => {
                    let Some(items) = op.output.as_items() else {
                        return Err(misfit(history, op.id, "a read returns the values it saw"));
                    };
                    reads.push((op.id, items));
                }
                _ => {}
            }
        }
        completed.sort_unstable_by_key(|insert| insert.0);
        let mut findings = Findings::default();
        for &(read, items) in &reads {
            // Of all that it shows, the one invoked last has the most before it.
            let Some(&(begin, latest)) = items.iter().filter_map(|item| begins.get(item)).max()
            else {
                continue;
            };
            let seen: FxHashSet<&Value> = items.iter().collect();
            let before = completed.partition_point(|insert| insert.0 < begin);
            for &(_, insert, value) in completed[..before].iter().filter(|i| !seen.contains(i.2)) {
                let message = format!(
                    "{} shows what was invoked after {value} had been written, and does not show \
                     {value}: {}, {}",
                    history.describe(read as usize),
                    history.describe(insert as usize),
                    history.describe(latest as usize),
                );
                findings.add("missing-predecessor", message, &[insert, latest, read]);
            }
        }
        let text = format!("{} inserts in {} reads", begins.len(), reads.len());
        Ok(findings.analysis("comments", (reads.len(), text)))
    }
}
