//! Linearizability (Herlihy & Wing, 1990): every operation takes effect at one instant between its
//! invocation and its completion.
//!
//! A history is split by key first (Horn & Kroening, 2015). Where every value is written once, a
//! log-linear monitor decides. Otherwise a just-in-time search (Lowe, 2017) goes through the events
//! once and keeps all configurations that are possible; after a moment a depth-first search with
//! memory (Wing & Gong, 1993; Lowe, 2017) joins in on a second thread, and the first answer counts.

mod jit;
mod memo;
mod model;
mod models;
mod monitor;
mod problem;
mod replay;
mod used;
mod wgl;

use std::time::Duration;

use crate::budget::{Budget, Meter};
use crate::error::Result;
use crate::history::History;
use crate::verdict::{
    Analysis, Checker, Counterexample, Reason, ReasonKind, Verdict, Witness, no_evidence,
};

pub use model::{Call, Model, Partition, Role};
pub use models::{
    Counter, FailedCas, Fifo, KeyValue, MultiRegister, Mutex, Register, SetModel, Stack,
};
use problem::Problem;

/// How long the first search runs alone, before a second one is worth a thread.
const ALONE: Duration = Duration::from_millis(30);

/// Which algorithms may be used; all, unless a test or a benchmark looks at one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Algorithm {
    /// The fastest that fits.
    #[default]
    Auto,
    /// The just-in-time search over configurations.
    JustInTime,
    /// The depth-first search with memory of Wing & Gong and Lowe.
    WingGong,
}

/// The checker of linearizability for a [`Model`].
#[derive(Clone, Debug)]
pub struct Linearizability<M> {
    model: M,
    algorithm: Algorithm,
}

impl<M: Model> Linearizability<M> {
    /// Checks against `model`.
    pub fn new(model: M) -> Self {
        Self { model, algorithm: Algorithm::Auto }
    }

    /// The same with one algorithm only.
    #[must_use]
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }
}

/// How one key's search ended.
pub(crate) enum Outcome {
    /// Indices into the problem's operations, in a legal order.
    Order(Vec<u32>),
    /// No order exists.
    Stuck(Stuck),
}

/// What is known when no order exists.
#[derive(Debug, Default)]
pub(crate) struct Stuck {
    /// The problem's operation that can't be placed.
    pub(crate) at: u32,
    /// A longest legal order that was found.
    pub(crate) prefix: Vec<u32>,
    /// Why, in words.
    pub(crate) why: Vec<String>,
    /// The problem's operations that are a contradiction by themselves, if the search knows.
    pub(crate) core: Vec<u32>,
    /// It takes the whole history to see it, not only what came before `at` completed.
    pub(crate) whole: bool,
}

impl<M: Model> Checker for Linearizability<M> {
    fn check(&self, history: &History, budget: &Budget) -> Result<Analysis> {
        let name = self.model.name();
        let problems = problem::split(&self.model, history)?;
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new(name, verdict));
        }
        let meter = budget.start();
        let (mut orders, mut unknown) = (Vec::with_capacity(problems.len()), None);
        for problem in &problems {
            match self.decide(problem, &meter) {
                Ok(Outcome::Order(order)) => match replay::order(&self.model, problem, &order) {
                    Ok(()) => orders.push(problem.ids(&order)),
                    Err(why) => {
                        unknown.get_or_insert(Reason::new(ReasonKind::NotVerified, why));
                    }
                },
                Ok(Outcome::Stuck(stuck)) => match self.confirm(problem, &stuck, &meter) {
                    Ok(()) => {
                        let found = self.counterexample(history, problem, &stuck);
                        return Ok(Analysis::new(name, Verdict::invalid(found)));
                    }
                    Err(reason) => _ = unknown.get_or_insert(reason),
                },
                Err(reason) => _ = unknown.get_or_insert(reason),
            }
        }
        let verdict = match unknown {
            Some(reason) => Verdict::Unknown { reason },
            None => Verdict::Valid { witness: Witness::Linearization(orders) },
        };
        Ok(Analysis::new(name, verdict))
    }
}

impl<M: Model> Linearizability<M> {
    fn decide(&self, problem: &Problem<M::Op>, meter: &Meter) -> Result<Outcome, Reason> {
        meter.check()?;
        match self.algorithm {
            Algorithm::JustInTime => return jit::search(&self.model, problem, meter.clone()),
            Algorithm::WingGong => return wgl::search(&self.model, problem, meter.clone()),
            Algorithm::Auto => {}
        }
        if let Some(outcome) = monitor::decide(&self.model, problem) {
            // What the monitor says is checked like everything else; if it does not hold, search.
            match &outcome {
                Outcome::Order(order) if replay::order(&self.model, problem, order).is_err() => {}
                Outcome::Stuck(stuck) if self.confirm(problem, stuck, meter).is_err() => {}
                _ => return Ok(outcome),
            }
        }
        let alone = Budget::new(ALONE.min(meter.left()), usize::MAX).start();
        match jit::search(&self.model, problem, alone.sharing(meter)) {
            Err(reason) if reason.kind() == ReasonKind::TimeLimit => {}
            other => return other,
        }
        meter.check()?;
        self.race(problem, meter)
    }

    fn race(&self, problem: &Problem<M::Op>, meter: &Meter) -> Result<Outcome, Reason> {
        let (jit_meter, stop_jit) = meter.racer();
        let (wgl_meter, stop_wgl) = meter.racer();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let answer = wgl::search(&self.model, problem, wgl_meter);
                if answer.is_ok() {
                    stop_jit.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                answer
            });
            let answer = jit::search(&self.model, problem, jit_meter);
            if answer.is_ok() {
                stop_wgl.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            let other = other.join().unwrap_or_else(|_| {
                Err(Reason::new(ReasonKind::NotVerified, "the model panicked in a search"))
            });
            match (answer, other) {
                (Ok(outcome), _) | (Err(_), Ok(outcome)) => Ok(outcome),
                // The reason that is not "the other one was stopped".
                (Err(mine), Err(theirs)) if mine.kind() == ReasonKind::Cancelled => {
                    Err(if theirs.kind() == ReasonKind::Cancelled { mine } else { theirs })
                }
                (Err(mine), Err(_)) => Err(mine),
            }
        })
    }

    /// A contradiction is believed if the other algorithm finds it too: in the operations that the
    /// monitor names, or else in the prefix of the history up to the operation that is stuck.
    fn confirm(
        &self,
        problem: &Problem<M::Op>,
        stuck: &Stuck,
        meter: &Meter,
    ) -> Result<(), Reason> {
        let small = match (stuck.whole, stuck.core.is_empty()) {
            (true, _) => problem.clone(),
            (_, true) => problem.prefix(problem.ops[stuck.at as usize].end),
            (_, false) => problem.only(&stuck.core),
        };
        let limit = Budget::new(meter.left().min(Duration::from_secs(2)), 256 << 20).start();
        match replay::contradiction(&self.model, &small, limit) {
            Some(false) => {
                let why = "one search found an order and the other none";
                Err(Reason::new(ReasonKind::NotVerified, why))
            }
            // Too large for the second opinion in its time: the first was exhaustive.
            Some(true) | None => Ok(()),
        }
    }

    fn counterexample(
        &self,
        history: &History,
        problem: &Problem<M::Op>,
        stuck: &Stuck,
    ) -> Counterexample {
        let at = &problem.ops[stuck.at as usize];
        let mut ids = match stuck.core.is_empty() {
            true => problem.open_at(at.end),
            false => problem.ids(&stuck.core),
        };
        if !ids.contains(&at.id) {
            ids.push(at.id);
        }
        let what = history.describe(at.id as usize);
        let message = match stuck.core.is_empty() {
            true => format!("{what} can't be placed: no order of what was running explains it"),
            false => format!("{what} contradicts the operations around it"),
        };
        let mut found = Counterexample::new("nonlinearizable", message).about(ids);
        found.key = problem.key.as_ref().map(ToString::to_string);
        found.details.clone_from(&stuck.why);
        let tail = stuck.prefix.len().saturating_sub(6);
        if !stuck.prefix.is_empty() {
            found.details.push(format!(
                "the longest legal order has {} operations and ends with:",
                stuck.prefix.len()
            ));
            for &n in &stuck.prefix[tail..] {
                found
                    .details
                    .push(format!("  {}", history.describe(problem.ops[n as usize].id as usize)));
            }
        }
        found
    }
}
