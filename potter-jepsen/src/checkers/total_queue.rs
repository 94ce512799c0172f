//! What goes into a queue comes out, once, in any order.

use rustc_hash::FxHashMap;

use super::{Findings, Op, misfit, operations};
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{History, Outcome};
use crate::value::Value;
use crate::verdict::{Analysis, Checker, no_evidence};

/// Every element that was dequeued had been enqueued, and no more often than that (*unexpected*,
/// *duplicate*); every element whose `enqueue` succeeded was dequeued (*lost*), if the queue was seen
/// to be empty in the end. Elements come out in any order: Jepsen's `total-queue`.
///
/// Operations are `enqueue`, `dequeue` (completed with the element; `nil` found nothing) and `drain`
/// (completed with all elements that were left). Empty in the end means: a `drain` succeeded, or a
/// `dequeue` found nothing, that was invoked after the last successful `enqueue` had completed. Then
/// elements that a crashed dequeue or drain may have taken are not lost either.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TotalQueue {
    duplicates: bool,
}

#[derive(Default)]
struct Element {
    /// How often it was tried to enqueue, without a failure.
    tried: usize,
    /// How often that succeeded.
    put: usize,
    taken: Vec<u32>,
    /// The last operation that enqueued it, and the first invocation of one.
    last_put: Option<u32>,
    first_begin: Option<u32>,
    /// The earliest completion of a dequeue of it.
    first_end: Option<u32>,
}

impl TotalQueue {
    /// The checker.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for a queue that delivers at least once: more dequeues than enqueues are no anomaly.
    #[must_use]
    pub fn allow_duplicates(mut self) -> Self {
        self.duplicates = true;
        self
    }
}

/// What an operation took out.
fn taken<'h>(history: &History, op: &Op<'h>) -> Result<&'h [Value]> {
    match (op.f, op.outcome) {
        (_, Outcome::Fail | Outcome::Info) => Ok(&[]),
        ("drain", _) => op
            .output
            .as_items()
            .ok_or_else(|| misfit(history, op.id, "a drain returns the elements that were left")),
        _ if op.output.is_nil() => Ok(&[]),
        _ => Ok(std::slice::from_ref(op.output)),
    }
}

impl Checker for TotalQueue {
    fn check(&self, history: &History, _: &Budget) -> Result<Analysis> {
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("total-queue", verdict));
        }
        let mut elements: FxHashMap<&Value, Element> = FxHashMap::default();
        let (mut last_put, mut emptied, mut crashed) = (0, None, 0);
        let (mut put, mut out) = (0, 0);
        for op in operations(history) {
            match op.f {
                "enqueue" | "enq" | "push" | "put" => {
                    if op.outcome == Outcome::Fail {
                        continue;
                    }
                    let element = elements.entry(op.input).or_default();
                    element.tried += 1;
                    element.first_begin.get_or_insert(op.begin);
                    if op.outcome == Outcome::Ok {
                        element.put += 1;
                        element.last_put = Some(op.id);
                        last_put = last_put.max(op.end);
                        put += 1;
                    }
                }
                "dequeue" | "deq" | "pop" | "take" | "drain" => {
                    let items = taken(history, &op)?;
                    let last = op.outcome == Outcome::Ok && (op.f == "drain" || items.is_empty());
                    if last {
                        emptied = emptied.max(Some(op.begin));
                    }
                    crashed += usize::from(op.outcome == Outcome::Info);
                    out += items.len();
                    for item in items {
                        let element = elements.entry(item).or_default();
                        element.taken.push(op.id);
                        let end = element.first_end.unwrap_or(op.end);
                        element.first_end = Some(end.min(op.end));
                    }
                }
                _ => {
                    return Err(misfit(
                        history,
                        op.id,
                        "a queue is enqueued, dequeued and drained",
                    ));
                }
            }
        }
        // In the order of the history, not of the table.
        let mut all: Vec<(&Value, &Element)> = elements.iter().map(|(v, e)| (*v, e)).collect();
        all.sort_unstable_by_key(|(_, e)| {
            (e.first_begin.unwrap_or(u32::MAX), e.taken.first().copied())
        });
        let drained = emptied.is_some_and(|begin| begin > last_put);
        let mut findings = Findings::default();
        let mut missing: Vec<(&Value, &Element)> = Vec::new();
        for &(value, element) in &all {
            let early = element.first_begin.zip(element.first_end).is_some_and(|(b, e)| e < b);
            if element.tried == 0 || early {
                let when = if early {
                    "before anybody began to enqueue it"
                } else {
                    "and nobody enqueued it"
                };
                findings.add("unexpected", format!("{value} was dequeued {when}"), &element.taken);
            } else if element.taken.len() > element.tried && !self.duplicates {
                let (taken, tried) = (element.taken.len(), element.tried);
                let message =
                    format!("{value} was dequeued {taken} times and enqueued {tried} times");
                findings.add("duplicate", message, &element.taken);
            } else if element.taken.len() < element.put {
                missing.push((value, element));
            }
        }
        // A crashed dequeue took one element at most; a crashed drain any number.
        let drains = operations(history).any(|op| op.f == "drain" && op.outcome == Outcome::Info);
        let count: usize = missing.iter().map(|(_, e)| e.put - e.taken.len()).sum();
        if drained && !drains && count > crashed {
            for (value, element) in &missing {
                let message = format!("{value} was enqueued and never came out");
                let ops: Vec<u32> = element.last_put.into_iter().collect();
                findings.add("lost", message, &ops);
            }
        }
        let text = format!("{put} elements enqueued, {out} dequeued");
        let mut analysis = findings.analysis("total-queue", (put + out, text));
        if !missing.is_empty() && !drained {
            analysis.notes.push(format!(
                "{count} elements did not come out; the queue was not emptied in the end, so that \
                 they may still be in it"
            ));
        }
        Ok(analysis)
    }
}
