//! Checkers of invariants that need no search: each goes through the history once or twice.

mod bank;
mod comments;
mod counter;
mod event_store;
mod eventual;
mod long_fork;
mod monotonic;
mod saga;
mod sequential;
mod set;
mod set_full;
mod total_queue;

pub use bank::Bank;
pub use comments::Comments;
pub use counter::Counter;
pub use event_store::EventStore;
pub use eventual::Eventual;
pub use long_fork::LongFork;
pub use monotonic::Monotonic;
pub use saga::Sagas;
pub use sequential::Sequential;
pub use set::Set;
pub use set_full::SetFull;
pub use total_queue::TotalQueue;

use crate::error::{Error, ErrorKind};
use crate::history::{History, Outcome};
use crate::index;
use crate::value::Value;
use crate::verdict::{Analysis, Counterexample, ReasonKind, Verdict, Witness};

/// An operation as the checkers here see it.
struct Op<'h> {
    id: u32,
    f: &'h str,
    input: &'h Value,
    /// `Nil` unless the outcome is `Ok`.
    output: &'h Value,
    outcome: Outcome,
    begin: u32,
    end: u32,
    process: i64,
}

fn operations(history: &History) -> impl Iterator<Item = Op<'_>> {
    history.operations().iter().enumerate().map(|(id, op)| Op {
        id: index(id),
        f: history.f(id),
        input: history.input(id),
        output: match (op.outcome, history.output(id)) {
            (Outcome::Ok, Some(output)) => output,
            _ => &Value::Nil,
        },
        outcome: op.outcome,
        begin: op.begin(),
        end: op.end(),
        process: op.process.0,
    })
}

fn misfit(history: &History, id: u32, what: &str) -> Error {
    let message = format!("{}: {what}", history.describe(id as usize));
    Error::new(ErrorKind::InvalidHistory, message)
}

/// Collects what is wrong; the first anomaly is the verdict's.
#[derive(Default)]
struct Findings {
    all: Vec<Counterexample>,
}

impl Findings {
    fn add(&mut self, anomaly: &str, message: String, ops: &[u32]) {
        if let Some(known) = self.all.iter_mut().find(|known| known.anomaly == anomaly) {
            if known.details.len() < 10 {
                known.details.push(message);
            }
            return;
        }
        self.all.push(Counterexample::new(anomaly, message).about(ops.iter().copied()));
    }

    /// `looked` says how much evidence there was, and what was looked at.
    fn analysis(self, model: &str, looked: (usize, String)) -> Analysis {
        let verdict = match self.all.first() {
            Some(first) => Verdict::invalid(first.clone()),
            None if looked.0 == 0 => {
                Verdict::unknown(ReasonKind::NoEvidence, format!("nothing was seen: {}", looked.1))
            }
            None => Verdict::Valid { witness: Witness::Checked(looked.1) },
        };
        let mut analysis = Analysis::new(model, verdict);
        if !self.all.is_empty() {
            analysis.anomalies = self.all;
        }
        analysis
    }
}
