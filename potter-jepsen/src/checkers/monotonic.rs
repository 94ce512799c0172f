//! Values that only grow.

use super::{Findings, misfit, operations};
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{History, Outcome};
use crate::value::Value;
use crate::verdict::{Analysis, Checker, no_evidence};

use rustc_hash::FxHashMap;

/// A register that is only ever raised. Two things are looked at. A process never reads (or is told
/// by its own increment) a lower value than before. And with `real_time`, nobody reads a lower value
/// than what anybody had read before that read began.
///
/// Also reads of a whole table, `[{:val 0 :sts 10} …]`: sorted by timestamp, values must not fall.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Monotonic {
    /// Whether values may not fall between processes either.
    pub real_time: bool,
}

impl Monotonic {
    /// Monotonic for every process.
    pub fn new() -> Self {
        Self::default()
    }

    /// Monotonic for all processes together.
    #[must_use]
    pub fn real_time(mut self) -> Self {
        self.real_time = true;
        self
    }
}

impl Checker for Monotonic {
    fn check(&self, history: &History, _: &Budget) -> Result<Analysis> {
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("monotonic", verdict));
        }
        let mut findings = Findings::default();
        let mut of_process: FxHashMap<(i64, Option<&Value>), (i64, u32)> = FxHashMap::default();
        // By key: (completion, highest value so far, who), in the order of completions.
        let mut done: FxHashMap<Option<&Value>, Vec<(u32, i64, u32)>> = FxHashMap::default();
        let mut seen = Vec::new();
        for op in operations(history).filter(|op| op.outcome == Outcome::Ok) {
            if let Some(rows) = op.output.as_items() {
                check_rows(history, op.id, rows, &mut findings)?;
                continue;
            }
            let Some(value) = op.output.as_int() else { continue };
            let key = history.key(op.id as usize);
            seen.push((op.begin, op.end, op.process, key, value, op.id));
        }
        seen.sort_unstable_by_key(|&(_, end, ..)| end);
        for &(begin, end, process, key, value, id) in &seen {
            let last = of_process.entry((process, key)).or_insert((value, id));
            if value < last.0 {
                let message = format!(
                    "process {process} went back: {} after {}",
                    history.describe(id as usize),
                    history.describe(last.1 as usize)
                );
                findings.add("non-monotonic", message, &[last.1, id]);
            }
            *last = (value, id);
            let done = done.entry(key).or_default();
            let before = done[..done.partition_point(|&(end, ..)| end < begin)].last().copied();
            if let Some((_, highest, who)) =
                before.filter(|&(_, highest, _)| self.real_time && value < highest)
            {
                let message = format!(
                    "{} although {highest} had been seen by {}",
                    history.describe(id as usize),
                    history.describe(who as usize)
                );
                findings.add("stale", message, &[who, id]);
            }
            let best = done.last().copied().filter(|&(_, highest, _)| highest >= value);
            let (highest, who) = best.map_or((value, id), |(_, highest, who)| (highest, who));
            done.push((end, highest, who));
        }
        let count = seen.len() + findings.all.len() + rows_seen(history);
        Ok(findings.analysis("monotonic", (count, format!("{count} values, none fell"))))
    }
}

fn rows_seen(history: &History) -> usize {
    operations(history)
        .filter(|op| op.output.as_items().is_some_and(|rows| !rows.is_empty()))
        .count()
}

/// Rows with a value and a timestamp: in the order of the latter, the former may not fall.
fn check_rows(history: &History, id: u32, rows: &[Value], findings: &mut Findings) -> Result<()> {
    let mut sorted = Vec::with_capacity(rows.len());
    for (n, row) in (0_i64..).zip(rows) {
        let value = match row.as_entries() {
            Some(_) => row.get("val").or_else(|| row.get("value")).and_then(Value::as_int),
            None => row.as_int(),
        };
        let Some(value) = value else {
            return Err(misfit(history, id, "rows have numbers, or maps with val and sts"));
        };
        let stamp = row.get("sts").or_else(|| row.get("ts")).and_then(Value::as_int);
        sorted.push((stamp.unwrap_or(n), value));
    }
    sorted.sort_by_key(|(stamp, _)| *stamp);
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].1 > pair[1].1) {
        let message = format!(
            "{} stands before {} in {}",
            pair[0].1,
            pair[1].1,
            history.describe(id as usize)
        );
        findings.add("non-monotonic", message, &[id]);
    }
    Ok(())
}
