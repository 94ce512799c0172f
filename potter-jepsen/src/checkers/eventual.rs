//! When nobody writes any more, everybody comes to see the same.

use rustc_hash::FxHashMap;

use super::{Findings, operations};
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{History, Outcome};
use crate::value::Value;
use crate::verdict::{Analysis, Checker, ReasonKind, Verdict, no_evidence};

/// Looks at the last read of each process for each key, if it began after the last write of that
/// key had ended: all must return the same value, and one that somebody may have written. A write
/// of unknown outcome may still come, so disagreement about its key proves nothing: `Unknown`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Eventual {}

impl Eventual {
    /// The checker.
    pub fn new() -> Self {
        Self::default()
    }
}

#[derive(Default)]
struct Key<'h> {
    last_write: u32,
    open: bool,
    written: Vec<&'h Value>,
    /// By process: the last read.
    reads: FxHashMap<i64, (u32, u32, &'h Value)>,
}

/// Sets are equal in any order.
fn normal(value: &Value) -> Value {
    match value {
        Value::Set(items) => {
            let mut items = items.clone();
            items.sort_unstable();
            Value::Set(items)
        }
        other => other.clone(),
    }
}

impl Checker for Eventual {
    fn check(&self, history: &History, _: &Budget) -> Result<Analysis> {
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("eventual", verdict));
        }
        let mut keys: FxHashMap<Option<&Value>, Key<'_>> = FxHashMap::default();
        for op in operations(history) {
            let key = keys.entry(history.key(op.id as usize)).or_default();
            if op.f == "read" {
                if op.outcome == Outcome::Ok {
                    let last = key.reads.entry(op.process).or_insert((op.begin, op.id, op.output));
                    *last = (*last).max((op.begin, op.id, op.output));
                }
            } else if op.outcome != Outcome::Fail {
                key.written.push(op.input);
                key.open |= op.outcome == Outcome::Info;
                if op.outcome == Outcome::Ok {
                    key.last_write = key.last_write.max(op.end);
                }
            }
        }
        let mut findings = Findings::default();
        let (mut compared, mut open) = (0, None);
        let mut sorted: Vec<_> = keys.iter().collect();
        sorted.sort_unstable_by_key(|(name, _)| **name);
        for (name, key) in sorted {
            let mut finals: Vec<(u32, u32, &Value)> =
                key.reads.values().copied().filter(|read| read.0 > key.last_write).collect();
            finals.sort_unstable_by_key(|read| read.1);
            compared += finals.len();
            let Some(first) = finals.first() else { continue };
            let Some(other) = finals.iter().find(|read| normal(read.2) != normal(first.2)) else {
                let register = !matches!(first.2, Value::List(_) | Value::Set(_) | Value::Map(_));
                if register && !first.2.is_nil() && !key.written.contains(&first.2) {
                    let message =
                        format!("nobody wrote it: {}", history.describe(first.1 as usize));
                    findings.add("unexpected", message, &[first.1]);
                }
                continue;
            };
            if key.open {
                open = Some(name.map_or("the key".to_owned(), |name| format!("key {name}")));
                continue;
            }
            let message = format!(
                "after the last write they still differ: {} and {}",
                history.describe(first.1 as usize),
                history.describe(other.1 as usize)
            );
            findings.add("divergence", message, &[first.1, other.1]);
        }
        let clean = findings.all.is_empty();
        let mut analysis =
            findings.analysis("eventual", (compared, format!("{compared} final reads agree")));
        if let Some(name) = open.filter(|_| clean) {
            let message =
                format!("final reads of {name} differ, but a write of it may still be on its way");
            analysis.verdict = Verdict::unknown(ReasonKind::Ambiguous, message);
        }
        Ok(analysis)
    }
}
