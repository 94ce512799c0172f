//! Sequential consistency (Lamport, 1979): one order of everything that keeps each process' own.

use super::{Findings, operations};
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{Event, History, Outcome};
use crate::txn::{Level, Options, RwRegister};
use crate::value::Value;
use crate::verdict::{Analysis, Checker, no_evidence};

/// Two kinds of history. Registers (`read`, `write` with different values): there must be one order
/// that keeps that of each process, which is decided like strong session serializability of
/// one-step transactions. And Jepsen's: a writer inserts k1, k2, … kn in turn, a `read` looks for kn
/// first and k1 last; once it has found one, it must find all that follow in its list.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Sequential {}

impl Sequential {
    /// The checker.
    pub fn new() -> Self {
        Self::default()
    }
}

/// The list that a read of Jepsen's workload returned: `[…]` or `[key […]]`.
fn list(value: &Value) -> Option<&[Value]> {
    match value.as_items() {
        Some([_, inner]) if inner.as_items().is_some() => inner.as_items(),
        other => other,
    }
}

impl Checker for Sequential {
    fn check(&self, history: &History, budget: &Budget) -> Result<Analysis> {
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("sequential", verdict));
        }
        if operations(history).any(|op| op.f == "read" && list(op.output).is_some()) {
            return Ok(trailing(history));
        }
        let events =
            history.events().iter().enumerate().map(|(at, event)| as_txn(history, at, event));
        let txns = History::new(events.collect())?;
        let options = Options::default().level(Level::StrongSessionSerializable);
        let mut analysis = RwRegister::new(options).check(&txns, budget)?;
        analysis.model = "sequential".into();
        analysis.levels.clear();
        Ok(analysis)
    }
}

fn as_txn(_: &History, _: usize, event: &Event) -> Event {
    let mut event = event.clone();
    let f = if &*event.f == "write" { "w" } else { "r" };
    let key = event.key.take().unwrap_or(Value::Keyword("x".into()));
    let value = std::mem::take(&mut event.value);
    event.value = Value::from(vec![Value::from(vec![Value::Keyword(f.into()), key, value])]);
    event.f = "txn".into();
    event
}

fn trailing(history: &History) -> Analysis {
    let mut findings = Findings::default();
    let mut reads = 0;
    for op in operations(history).filter(|op| op.f == "read" && op.outcome == Outcome::Ok) {
        let Some(items) = list(op.output) else { continue };
        reads += 1;
        let first = items.iter().position(|item| !item.is_nil());
        if first.is_some_and(|at| items[at..].iter().any(Value::is_nil)) {
            let message = format!(
                "a later insert was seen and an earlier one of the same process not: {}",
                history.describe(op.id as usize)
            );
            findings.add("trailing-nil", message, &[op.id]);
        }
    }
    findings.analysis("sequential", (reads, format!("{reads} reads without a gap")))
}
