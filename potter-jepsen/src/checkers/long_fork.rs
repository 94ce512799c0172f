//! Two reads may not see two writes in opposite orders.

use rustc_hash::FxHashMap;

use super::{Findings, misfit, operations};
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{History, Outcome};
use crate::value::Value;
use crate::verdict::{Analysis, Checker, no_evidence};

/// Each key is written once; reads `[[:r k v] …]` look at groups of keys. One read that saw key A
/// written and key B not, and another that saw it the other way round, are a long fork, which
/// parallel snapshot isolation allows and snapshot isolation does not.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LongFork {}

impl LongFork {
    /// The checker; groups are found by the keys that reads share.
    pub fn new() -> Self {
        Self::default()
    }
}

type Seen<'h> = Vec<(&'h Value, &'h Value)>;

impl Checker for LongFork {
    fn check(&self, history: &History, _: &Budget) -> Result<Analysis> {
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("long-fork", verdict));
        }
        let mut findings = Findings::default();
        let mut written: FxHashMap<&Value, u32> = FxHashMap::default();
        let mut groups: FxHashMap<Vec<&Value>, Vec<(u32, Seen<'_>)>> = FxHashMap::default();
        let mut reads = 0;
        for op in operations(history) {
            let value = if op.outcome == Outcome::Ok { op.output } else { op.input };
            let Some(steps) = value.as_items() else { continue };
            let mut seen: Seen<'_> = Vec::new();
            for step in steps {
                let (f, key, value) = match step.as_items() {
                    Some([f, key, value]) => (f, key, value),
                    Some([f, key]) => (f, key, &Value::Nil),
                    _ => {
                        let what = "steps are [:r key value] or [:w key value]";
                        return Err(misfit(history, op.id, what));
                    }
                };
                match f.as_name() {
                    Some("r" | "read") if op.outcome == Outcome::Ok => seen.push((key, value)),
                    Some("w" | "write") if op.outcome != Outcome::Fail => {
                        if let Some(first) = written.insert(key, op.id) {
                            let message = format!(
                                "key {key} is written twice: every key must be written once"
                            );
                            return Err(misfit(history, first, &message));
                        }
                    }
                    _ => {}
                }
            }
            if seen.len() > 1 {
                seen.sort_unstable_by_key(|(key, _)| *key);
                reads += 1;
                let group = seen.iter().map(|(key, _)| *key).collect();
                groups.entry(group).or_default().push((op.id, seen));
            }
        }
        let mut sorted: Vec<_> = groups.into_iter().collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (_, group) in &sorted {
            check_group(history, group, &mut findings);
        }
        Ok(findings.analysis("long-fork", (reads, format!("{reads} reads of several keys"))))
    }
}

/// The reads of one group must form a chain, sorted by how many keys they saw written.
fn check_group(history: &History, group: &[(u32, Seen<'_>)], findings: &mut Findings) {
    let mut order: Vec<&(u32, Seen<'_>)> = group.iter().collect();
    order.sort_by_key(|(_, seen)| seen.iter().filter(|(_, value)| !value.is_nil()).count());
    for pair in order.windows(2) {
        let (less, more) = (pair[0], pair[1]);
        for (a, b) in less.1.iter().zip(&more.1) {
            let what = |name: &str| {
                format!(
                    "{name} key {}: {} and {}",
                    a.0,
                    history.describe(less.0 as usize),
                    history.describe(more.0 as usize)
                )
            };
            if !a.1.is_nil() && !b.1.is_nil() && a.1 != b.1 {
                findings.add("distinct-values", what("two values of"), &[less.0, more.0]);
            } else if !a.1.is_nil() && b.1.is_nil() {
                findings.add(
                    "long-fork",
                    what("two reads disagree on which write came first, see"),
                    &[less.0, more.0],
                );
            }
        }
    }
}
