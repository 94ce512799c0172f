//! Every saga is done as a whole or undone as a whole, and nothing happens twice.

use std::collections::BTreeMap;

use super::{Findings, misfit, operations};
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{History, Outcome};
use crate::value::Value;
use crate::verdict::{Analysis, Checker, no_evidence};

/// The history of effects, as those see it who suffer them:
///
/// | `f` | value | |
/// |---|---|---|
/// | `begin` | `[saga [step …]]` | a saga was accepted, with these steps |
/// | `apply` | `[saga step]` | a step's effect |
/// | `compensate` | `[saga step]` | the effect was taken back |
/// | `end` | `[saga "completed"]` or `[saga "compensated"]` | how it ended |
///
/// A completed saga applied each of its steps once and took none back; a compensated one took back
/// each that it had applied; no effect happens twice; every accepted saga ends.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Sagas {
    /// Whether sagas may still be running at the end of the history.
    pub may_be_unfinished: bool,
}

impl Sagas {
    /// Every saga must have ended.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sagas may still be running.
    #[must_use]
    pub fn may_be_unfinished(mut self) -> Self {
        self.may_be_unfinished = true;
        self
    }
}

#[derive(Default)]
struct Step {
    applied: Vec<u32>,
    maybe_applied: usize,
    undone: Vec<u32>,
    maybe_undone: usize,
}

#[derive(Default)]
struct Saga<'h> {
    begun: Option<u32>,
    steps: BTreeMap<&'h Value, Step>,
    ended: Option<(u32, bool)>,
}

impl Checker for Sagas {
    fn check(&self, history: &History, _: &Budget) -> Result<Analysis> {
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("saga", verdict));
        }
        let mut sagas: BTreeMap<&Value, Saga<'_>> = BTreeMap::new();
        let mut findings = Findings::default();
        for op in operations(history).filter(|op| op.outcome != Outcome::Fail) {
            let Some([saga, value]) = op.input.as_items() else {
                return Err(misfit(
                    history,
                    op.id,
                    "its value is [saga step], [saga [step …]] or [saga outcome]",
                ));
            };
            let saga = sagas.entry(saga).or_default();
            let ok = op.outcome == Outcome::Ok;
            match op.f {
                "begin" => {
                    if ok {
                        saga.begun = Some(op.id);
                    }
                    for step in value.as_items().unwrap_or_default() {
                        saga.steps.entry(step).or_default();
                    }
                }
                "apply" if ok => saga.steps.entry(value).or_default().applied.push(op.id),
                "apply" => saga.steps.entry(value).or_default().maybe_applied += 1,
                "compensate" if ok => saga.steps.entry(value).or_default().undone.push(op.id),
                "compensate" => saga.steps.entry(value).or_default().maybe_undone += 1,
                "end" if ok => {
                    let completed = value.as_name() == Some("completed");
                    if saga.ended.is_some_and(|(_, before)| before != completed) {
                        let message =
                            format!("it ended both ways: {}", history.describe(op.id as usize));
                        findings.add("two-outcomes", message, &[op.id]);
                    }
                    saga.ended = Some((op.id, completed));
                }
                "end" => {}
                _ => return Err(misfit(history, op.id, "f is begin, apply, compensate or end")),
            }
        }
        for (name, saga) in &sagas {
            self.check_saga(name, saga, &mut findings);
        }
        let text = format!("{} sagas, each done or undone as a whole", sagas.len());
        Ok(findings.analysis("saga", (sagas.len(), text)))
    }
}

impl Sagas {
    fn check_saga(&self, name: &Value, saga: &Saga<'_>, findings: &mut Findings) {
        for (step, effects) in &saga.steps {
            if effects.applied.len() > 1 {
                let message = format!(
                    "step {step} of saga {name} took effect {} times",
                    effects.applied.len()
                );
                findings.add("effect-twice", message, &effects.applied);
            }
            if effects.undone.len() > 1 {
                let message = format!(
                    "step {step} of saga {name} was taken back {} times",
                    effects.undone.len()
                );
                findings.add("compensation-twice", message, &effects.undone);
            }
            if !effects.undone.is_empty()
                && effects.applied.is_empty()
                && effects.maybe_applied == 0
            {
                let message =
                    format!("step {step} of saga {name} was taken back and had never taken effect");
                findings.add("compensation-without-effect", message, &effects.undone);
            }
            match saga.ended {
                Some((end, true)) if !effects.undone.is_empty() => {
                    let message =
                        format!("saga {name} is completed, and its step {step} was taken back");
                    findings.add("half-compensated", message, &[effects.undone[0], end]);
                }
                Some((end, true)) if effects.applied.is_empty() && effects.maybe_applied == 0 => {
                    let message = format!("saga {name} is completed without its step {step}");
                    findings.add("missing-effect", message, &[end]);
                }
                Some((end, false))
                    if !effects.applied.is_empty()
                        && effects.undone.is_empty()
                        && effects.maybe_undone == 0 =>
                {
                    let message =
                        format!("saga {name} is compensated, and its step {step} still stands");
                    findings.add("not-compensated", message, &[effects.applied[0], end]);
                }
                _ => {}
            }
        }
        if let (Some(begun), None, false) = (saga.begun, saga.ended, self.may_be_unfinished) {
            let message = format!("saga {name} was accepted and never ended");
            findings.add("unfinished", message, &[begun]);
        }
    }
}
