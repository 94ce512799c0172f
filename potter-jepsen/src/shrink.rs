//! Making a failing history small: first the key, then the failing prefix, then delta debugging
//! (Zeller & Hildebrandt, 2002) over whole operations.
//!
//! A smaller history must fail for the same reason, not for a new one. So it has to show the same
//! anomaly, and an operation whose value some kept operation saw is never taken away: without the
//! write, the read would be garbage, and the history would fail for that.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::budget::{Budget, Meter};
use crate::error::Result;
use crate::history::{History, Outcome};
use crate::value::Value;
use crate::verdict::{Analysis, Checker};

/// A smaller history with the same anomaly.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Shrunk {
    /// What is left.
    pub history: History,
    /// The analysis of what is left.
    pub analysis: Analysis,
    /// How often the checker was asked.
    pub checks: usize,
    /// Whether no single operation more can be taken away; if not, the budget ended it.
    pub minimal: bool,
}

/// Shrinks `history`, of which `analysis` says that it is invalid. `None` if it does not say so.
pub fn shrink(
    checker: &dyn Checker,
    history: &History,
    analysis: &Analysis,
    budget: &Budget,
) -> Option<Shrunk> {
    let found = analysis.verdict.counterexample()?;
    let mut search = Search {
        checker,
        anomaly: found.anomaly.clone(),
        meter: budget.start(),
        budget: budget.clone(),
        checks: 0,
        best: (history.clone(), analysis.clone()),
    };
    if let Some(key) = &found.key {
        let of_key = |id: usize| history.key(id).is_none_or(|own| own.to_string() == *key);
        search.attempt(&history.filter(of_key));
    }
    search.shortest_prefix();
    let minimal = match Grouping::of(&analysis.model) {
        Grouping::None => false,
        grouping => search.delta_debugging(grouping),
    };
    let Search { checks, best: (history, analysis), .. } = search;
    Some(Shrunk { history, analysis, checks, minimal })
}

/// Which operations may be taken away on their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grouping {
    /// Those that nobody saw.
    Seen,
    /// Whole values of a queue or stack: what put them there and what took them.
    Values,
    /// Sums, locks and sagas depend on everything: the prefix must do.
    None,
}

impl Grouping {
    fn of(model: &str) -> Self {
        let name = model.split_whitespace().next().unwrap_or_default();
        match name {
            "queue" | "stack" => Self::Values,
            "cas-register" | "multi-register" | "kv" | "set" | "set-full" | "list-append"
            | "rw-register" | "long-fork" | "monotonic" | "sequential" | "bank" => Self::Seen,
            _ => Self::None,
        }
    }
}

struct Search<'c> {
    checker: &'c dyn Checker,
    anomaly: String,
    meter: Meter,
    budget: Budget,
    checks: usize,
    best: (History, Analysis),
}

/// A value under a key, as text, so that values of all workloads look the same.
type Atom = (String, String);

impl Search<'_> {
    fn attempt(&mut self, history: &History) -> bool {
        if self.meter.check().is_err() {
            return false;
        }
        self.checks += 1;
        let mut budget = self.budget.clone();
        budget.time = self.meter.left().min(self.budget.time);
        let answer: Result<Analysis> = self.checker.check(history, &budget);
        let Ok(analysis) = answer else { return false };
        let same = analysis.verdict.counterexample().is_some_and(|f| f.anomaly == self.anomaly);
        if same {
            self.best = (history.clone(), analysis);
        }
        same
    }

    /// Cuts the events after the first point at which the anomaly is there. If the anomaly is not
    /// monotonic, the point is some such point.
    fn shortest_prefix(&mut self) {
        let (mut without, mut with) = (0, self.best.0.events().len());
        while with - without > 1 && self.meter.check().is_ok() {
            let middle = without + (with - without) / 2;
            let events = self.best.0.events()[..middle].to_vec();
            let fails = History::new(events).is_ok_and(|prefix| self.attempt(&prefix));
            if fails { with = middle } else { without = middle }
        }
    }

    fn delta_debugging(&mut self, grouping: Grouping) -> bool {
        let mut units = units(&self.best.0, grouping);
        let mut size = units.len().div_ceil(2).max(1);
        loop {
            let mut removed_any = false;
            let mut at = 0;
            while at < units.len() {
                if self.meter.check().is_err() {
                    return false;
                }
                let end = (at + size).min(units.len());
                let gone: FxHashSet<usize> = units[at..end].iter().flatten().copied().collect();
                let history = &self.best.0;
                let smaller = history.filter(|id| !gone.contains(&id));
                let honest = grouping == Grouping::Values || keeps_what_was_seen(history, &gone);
                if !gone.is_empty() && honest && self.attempt(&smaller) {
                    units = self::units(&self.best.0, grouping);
                    removed_any = true;
                } else {
                    at = end;
                }
            }
            match (size, removed_any) {
                (1, false) => return true,
                (1, true) => {}
                _ => size = size.div_ceil(2),
            }
        }
    }
}

fn units(history: &History, grouping: Grouping) -> Vec<Vec<usize>> {
    if grouping == Grouping::Seen {
        return (0..history.operations().len()).map(|id| vec![id]).collect();
    }
    let mut by_value: FxHashMap<String, usize> = FxHashMap::default();
    let mut units: Vec<Vec<usize>> = Vec::new();
    for (id, op) in history.operations().iter().enumerate() {
        let taken = matches!(history.f(id), "dequeue" | "deq" | "pop" | "take");
        let value = match taken {
            true if op.outcome == Outcome::Ok => history.output(id),
            true => None,
            false => Some(history.input(id)),
        };
        match value.filter(|value| !value.is_nil()) {
            None => units.push(vec![id]),
            Some(value) => {
                let place = *by_value.entry(value.to_string()).or_insert_with(|| {
                    units.push(Vec::new());
                    units.len() - 1
                });
                units[place].push(id);
            }
        }
    }
    units
}

/// Whether everything that the rest saw is still written by all that wrote it, and nothing failed
/// because of what is gone.
fn keeps_what_was_seen(history: &History, gone: &FxHashSet<usize>) -> bool {
    let mut lost: FxHashSet<Atom> = FxHashSet::default();
    // What failed wrote nothing: nobody was refused because of it.
    let (mut had_effect, refused) =
        (false, |id: usize| history.operations()[id].outcome == Outcome::Fail);
    for &id in gone {
        let wrote = atoms(history, id).0;
        had_effect |= !wrote.is_empty() && !refused(id);
        lost.extend(wrote);
    }
    (0..history.operations().len()).filter(|id| !gone.contains(id)).all(|id| {
        let seen = atoms(history, id).1;
        let text = seen.iter().any(|(key, seen)| {
            // Texts that were appended to are seen as parts of a longer one. 12 is no part of 1213.
            seen.parse::<i64>().is_err()
                && lost.iter().any(|(k, part)| {
                    k == key && part.len() > 2 && seen.contains(part.trim_matches('"'))
                })
        });
        !(text || had_effect && refused(id) || seen.iter().any(|atom| lost.contains(atom)))
    })
}

/// What operation `id` wrote and what it saw.
fn atoms(history: &History, id: usize) -> (Vec<Atom>, Vec<Atom>) {
    let (mut wrote, mut saw) = (Vec::new(), Vec::new());
    let op = &history.operations()[id];
    let key = history.key(id).map(ToString::to_string).unwrap_or_default();
    let input = history.input(id);
    let output = history.output(id).filter(|_| op.outcome == Outcome::Ok);
    let each = |key: &str, value: &Value, into: &mut Vec<Atom>| match value.as_items() {
        Some(items) => into.extend(items.iter().map(|item| (key.to_owned(), item.to_string()))),
        None => into.push((key.to_owned(), value.to_string())),
    };
    match history.f(id) {
        "read" | "get" | "contains" if !is_steps(output.unwrap_or(input)) => {
            if let Some(output) = output {
                each(&key, output, &mut saw);
            }
        }
        "cas" => {
            if let Some([from, to]) = input.as_items() {
                saw.push((key.clone(), from.to_string()));
                wrote.push((key, to.to_string()));
            }
        }
        _ if is_steps(output.unwrap_or(input)) => {
            for step in output.unwrap_or(input).as_items().unwrap_or_default() {
                let Some([f, key, value]) = step.as_items() else { continue };
                let reads = matches!(f.as_name(), Some("r" | "read"));
                each(&key.to_string(), value, if reads { &mut saw } else { &mut wrote });
            }
        }
        _ => wrote.push((key, input.to_string())),
    }
    (wrote, saw)
}

/// `[[:r key value] …]`.
fn is_steps(value: &Value) -> bool {
    let step = |step: &Value| {
        step.as_items().is_some_and(|parts| parts.len() == 3 && parts[0].as_name().is_some())
    };
    value.as_items().is_some_and(|steps| !steps.is_empty() && steps.iter().all(step))
}
