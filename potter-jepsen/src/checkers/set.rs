//! What was added is there in the end.

use rustc_hash::FxHashMap;

use super::{Findings, misfit, operations};
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{History, Outcome};
use crate::value::Value;
use crate::verdict::{Analysis, Checker, no_evidence};

/// The last successful `read` must show every element whose `add` succeeded before the read began,
/// and none that nobody tried to add or whose `add` certainly failed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Set {}

impl Set {
    /// The checker.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Checker for Set {
    fn check(&self, history: &History, _: &Budget) -> Result<Analysis> {
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("set", verdict));
        }
        let reads = operations(history).filter(|op| op.f == "read" && op.outcome == Outcome::Ok);
        let Some(last) = reads.max_by_key(|op| op.end) else {
            let text = "no read succeeded".to_owned();
            return Ok(Findings::default().analysis("set", (0, text)));
        };
        let Some(items) = last.output.as_items() else {
            return Err(misfit(history, last.id, "a read of a set returns its elements"));
        };
        let mut seen: FxHashMap<&Value, u32> = FxHashMap::default();
        for item in items {
            *seen.entry(item).or_default() += 1;
        }
        let mut findings = Findings::default();
        let mut tried: FxHashMap<&Value, bool> = FxHashMap::default();
        let mut adds = 0;
        for op in operations(history).filter(|op| op.f == "add") {
            let possible = op.outcome != Outcome::Fail && op.begin < last.end;
            *tried.entry(op.input).or_default() |= possible;
            if op.outcome == Outcome::Ok && op.end < last.begin {
                adds += 1;
                if !seen.contains_key(op.input) {
                    let message = format!(
                        "{} was added and is not in the final read: {}",
                        op.input,
                        history.describe(op.id as usize)
                    );
                    findings.add("lost", message, &[op.id, last.id]);
                }
            }
        }
        for item in items {
            if !tried.get(item).copied().unwrap_or(false) {
                let message = format!("{item} is in the final read, and nobody added it");
                findings.add("unexpected", message, &[last.id]);
            }
        }
        let text = format!("{adds} elements added, {} in the final read", items.len());
        Ok(findings.analysis("set", (1, text)))
    }
}
