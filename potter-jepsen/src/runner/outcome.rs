//! From what was recorded to a verdict.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Progress;
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{Event, EventKind, History, Outcome};
use crate::nemesis::{Healed, Injected};
use crate::value::Value;
use crate::verdict::{Analysis, Checker, ReasonKind, Verdict};

/// A test that has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Run {
    /// What clients and nemesis did and saw.
    pub history: History,
    /// What follows from it.
    pub analysis: Analysis,
    /// Faults and heals whose effect was not seen: a `Valid` became `Unknown` because of them.
    pub unverified: Vec<String>,
    /// The counts at the end.
    pub progress: Progress,
    /// It was cancelled before its end.
    pub cancelled: bool,
    /// Where it was written down, if anywhere.
    pub directory: Option<PathBuf>,
    /// The seed, to run the same plan again.
    pub seed: u64,
}

/// What became of the faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) unverified: Vec<String>,
}

impl Faults {
    /// Completes the nemesis's event: `ok` if the effect was seen, else `info`.
    pub(crate) fn injected(&mut self, event: &mut Event, result: Result<Injected, String>) {
        match result {
            Ok(injected) => {
                let kind = event.f.to_string();
                self.done(event, injected.verified, injected.detail, &kind);
            }
            Err(error) => self.failed(event, &error),
        }
    }

    pub(crate) fn healed(&mut self, event: &mut Event, result: Result<Healed, String>) {
        match result {
            Ok(healed) => self.done(event, healed.verified, healed.detail, "heal"),
            Err(error) => self.failed(event, &error),
        }
    }

    fn done(&mut self, event: &mut Event, verified: bool, detail: String, name: &str) {
        if !verified {
            self.unverified.push(format!("{name}: {detail}"));
        }
        event.kind = if verified { EventKind::Ok } else { EventKind::Info };
        let entry = |name: &str, value| (Value::Keyword(name.into()), value);
        let more =
            [entry("verified", Value::Bool(verified)), entry("detail", Value::Str(detail.into()))];
        match &mut event.value {
            Value::Map(entries) => entries.extend(more),
            other => *other = Value::Map(more.into()),
        }
    }

    fn failed(&mut self, event: &mut Event, error: &str) {
        self.unverified.push(format!("{}: {error}", event.f));
        event.kind = EventKind::Info;
        event.error = Some(error.into());
    }
}

/// Checks, and takes a `Valid` back that proves nothing.
pub(crate) fn judge(
    checker: &dyn Checker,
    history: &History,
    budget: &Budget,
    faults: &Faults,
    cancelled: bool,
) -> Result<Analysis> {
    let mut analysis = checker.check(history, budget)?;
    for fault in &faults.unverified {
        analysis = analysis.with_unverified_fault(fault);
    }
    if analysis.verdict.is_valid()
        && let Some(f) = never_succeeded(history)
    {
        let message = format!("no operation '{f}' ever succeeded, so nothing is known of them");
        analysis.verdict = Verdict::unknown(ReasonKind::NoEvidence, message);
    }
    if analysis.verdict.is_valid() && cancelled {
        let message = "the test was cancelled; what it saw until then is valid";
        analysis.verdict = Verdict::unknown(ReasonKind::Cancelled, message);
    }
    Ok(analysis)
}

/// An operation that was tried at least ten times and never succeeded.
fn never_succeeded(history: &History) -> Option<String> {
    let mut seen: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
    for (id, operation) in history.operations().iter().enumerate() {
        let entry = seen.entry(history.f(id)).or_default();
        entry.0 += 1;
        entry.1 |= operation.outcome == Outcome::Ok;
    }
    let poor = seen.into_iter().find(|(_, (count, ok))| *count >= 10 && !ok);
    poor.map(|(f, _)| f.to_owned())
}
