//! Linearizability (Herlihy & Wing, 1990): every operation takes effect at one instant between its
//! invocation and its completion.
//!
//! A history is split by key first (Horn & Kroening, 2015). Where every value is written once, a
//! log-linear monitor decides. Otherwise a just-in-time search (Lowe, 2017) goes through the events
//! once and keeps what is possible, in passes from narrow to exact; after a moment a depth-first
//! search with memory (Wing & Gong, 1993; Lowe, 2017) joins in on a second thread, and the first
//! answer counts.

mod jit;
mod memo;
mod model;
mod models;
mod monitor;
mod problem;
mod replay;
mod used;
mod wgl;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::budget::{Budget, Meter};
use crate::error::Result;
use crate::history::History;
use crate::verdict::{
    Analysis, Checker, Counterexample, Reason, ReasonKind, Verdict, Witness, no_evidence,
};

pub use model::{Call, Merge, Model, Partition, Role};
pub use models::{
    Counter, FailedCas, Fifo, KeyValue, MultiRegister, Mutex, Register, SetModel, Stack,
    UnorderedQueue,
};
use problem::Problem;

/// How long the first search runs alone, before a second one is worth a thread.
const ALONE: Duration = Duration::from_millis(200);

/// How long keys are looked at one after the other, before threads are worth it.
const SHARE_AFTER: Duration = Duration::from_millis(2);

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
    width: usize,
}

impl<M: Model> Linearizability<M> {
    /// Checks against `model`.
    pub fn new(model: M) -> Self {
        Self { model, algorithm: Algorithm::Auto, width: jit::WIDTH }
    }

    /// The same with one algorithm only.
    #[must_use]
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// The same with a first pass of the just-in-time search that keeps `width` configurations. Its
    /// later passes are wider and the last one is exact, so that no verdict depends on it.
    #[must_use]
    pub fn with_first_width(mut self, width: usize) -> Self {
        self.width = width.max(1);
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
        for (problem, judged) in problems.iter().zip(self.judge_all(&problems, &meter)) {
            match judged {
                Judged::Order(ids) => orders.push(ids),
                Judged::Contradiction(stuck) => {
                    let found = self.counterexample(history, problem, &stuck);
                    return Ok(Analysis::new(name, Verdict::invalid(found)));
                }
                Judged::Unknown(reason) => _ = unknown.get_or_insert(reason),
            }
        }
        let verdict = match unknown {
            Some(reason) => Verdict::Unknown { reason },
            None => Verdict::Valid { witness: Witness::Linearization(orders) },
        };
        Ok(Analysis::new(name, verdict))
    }
}

/// What is known of one key, checked.
enum Judged {
    /// Indices into the history's operations, in a legal order.
    Order(Vec<u32>),
    Contradiction(Stuck),
    Unknown(Reason),
}

impl<M: Model> Linearizability<M> {
    /// One answer for each key, up to and with the first contradiction. Keys know nothing of each
    /// other: when the first ones have taken a while, all processors share the rest. Which
    /// contradiction is reported does not depend on that.
    fn judge_all(&self, problems: &[Problem<M::Op>], meter: &Meter) -> Vec<Judged> {
        let begin = Instant::now();
        let mut answers = Vec::with_capacity(problems.len());
        for problem in problems {
            if begin.elapsed() > SHARE_AFTER && problems.len() > answers.len() + 1 {
                let rest = &problems[answers.len()..];
                answers.extend(self.judge_together(rest, meter));
                break;
            }
            answers.push(self.judge(problem, meter));
            if matches!(answers.last(), Some(Judged::Contradiction(_))) {
                break;
            }
        }
        answers
    }

    fn judge_together(&self, problems: &[Problem<M::Op>], meter: &Meter) -> Vec<Judged> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        // Nobody asks what stands behind the first contradiction: not begun, or stopped.
        let end = AtomicUsize::new(problems.len());
        let running: std::sync::Mutex<Vec<(usize, Arc<AtomicBool>)>> = std::sync::Mutex::default();
        let list = || running.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || {
            let mut mine = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let (meter, stop) = meter.racer();
                list().push((at, stop));
                // After that: who finds a contradiction lowers the end first, then stops the list.
                if at >= end.load(Ordering::SeqCst) {
                    return mine;
                }
                let judged = self.judge(&problems[at], &meter);
                if matches!(judged, Judged::Contradiction(_)) {
                    end.fetch_min(at + 1, Ordering::SeqCst);
                    list().iter().filter(|(n, _)| *n > at).for_each(|(_, stop)| {
                        stop.store(true, Ordering::Relaxed);
                    });
                }
                list().retain(|(n, _)| *n != at);
                mine.push((at, judged));
            }
        };
        let mut all = std::thread::scope(|scope| {
            let others: Vec<_> =
                (1..threads.min(problems.len())).map(|_| scope.spawn(work)).collect();
            let mut all = work();
            for other in others {
                match other.join() {
                    Ok(theirs) => all.extend(theirs),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        });
        all.sort_by_key(|(at, _)| *at);
        all.truncate(end.into_inner());
        all.into_iter().map(|(_, judged)| judged).collect()
    }

    fn judge(&self, problem: &Problem<M::Op>, meter: &Meter) -> Judged {
        let begin = Instant::now();
        match self.decide(problem, meter) {
            Ok(Outcome::Order(order)) => match replay::order(&self.model, problem, &order) {
                Ok(()) => Judged::Order(problem.ids(&order)),
                Err(why) => Judged::Unknown(Reason::new(ReasonKind::NotVerified, why)),
            },
            Ok(Outcome::Stuck(stuck)) => match self.confirm(problem, &stuck, begin, meter) {
                Ok(()) => Judged::Contradiction(stuck),
                Err(reason) => Judged::Unknown(reason),
            },
            Err(reason) => Judged::Unknown(reason),
        }
    }
}

impl<M: Model> Linearizability<M> {
    fn decide(&self, problem: &Problem<M::Op>, meter: &Meter) -> Result<Outcome, Reason> {
        meter.check()?;
        match self.algorithm {
            Algorithm::JustInTime => {
                return jit::search(&self.model, problem, meter, self.width);
            }
            Algorithm::WingGong => return wgl::search(&self.model, problem, meter.clone()),
            Algorithm::Auto => {}
        }
        let begin = Instant::now();
        if let Some(outcome) = monitor::decide(&self.model, problem) {
            // What the monitor says is checked like everything else; if it does not hold, search.
            match &outcome {
                Outcome::Order(order) if replay::order(&self.model, problem, order).is_err() => {}
                Outcome::Stuck(stuck) if self.confirm(problem, stuck, begin, meter).is_err() => {}
                _ => return Ok(outcome),
            }
        }
        let alone = Budget::new(ALONE.min(meter.left()), usize::MAX).start();
        match jit::search(&self.model, problem, &alone.sharing(meter), self.width) {
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
                    stop_jit.store(true, Ordering::Relaxed);
                }
                answer
            });
            let answer = jit::search(&self.model, problem, &jit_meter, self.width);
            if answer.is_ok() {
                stop_wgl.store(true, Ordering::Relaxed);
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
        begin: Instant,
        meter: &Meter,
    ) -> Result<(), Reason> {
        let small = match (stuck.whole, stuck.core.is_empty()) {
            (true, _) => problem.clone(),
            (_, true) => problem.prefix(problem.ops[stuck.at as usize].end),
            (_, false) => problem.only(&stuck.core),
        };
        // As long as the first opinion took, within bounds.
        let time = begin.elapsed().clamp(Duration::from_millis(50), Duration::from_secs(2));
        let limit = Budget::new(meter.left().min(time), 256 << 20).start();
        match replay::contradiction(&self.model, &small, !stuck.core.is_empty(), limit) {
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
        ids.push(at.id);
        // Each once, in the order of the history.
        ids.sort_unstable();
        ids.dedup();
        let what = history.describe(at.id as usize);
        let (message, rest) = match stuck.why.split_first() {
            Some((why, rest)) if !stuck.core.is_empty() => (format!("{what}: {why}"), rest),
            _ => {
                let why = "can't be placed: no order of what was running explains it";
                (format!("{what} {why}"), stuck.why.as_slice())
            }
        };
        let mut found = Counterexample::new("nonlinearizable", message).about(ids);
        found.key = problem.key.as_ref().map(ToString::to_string);
        found.details = rest.to_vec();
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
