//! What was found, for people and for programs.
//!
//! None of the reports grows with the history: the HTML file of ten million operations is as large
//! as that of ten thousand.

mod html;
mod plot;
mod timeline;

use std::fmt::Write as _;

use rustc_hash::FxHashSet;

use crate::history::{EventKind, History, Outcome, Process};
use crate::value::{Value, json_string};
use crate::verdict::{Analysis, Counterexample, Verdict, Witness};

pub use html::html;

/// The numbers of a history that every report begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// All operations of clients.
    pub operations: usize,
    /// Those that succeeded.
    pub ok: usize,
    /// Those that certainly did not happen.
    pub fail: usize,
    /// Those whose outcome is not known.
    pub info: usize,
}

impl Counts {
    /// Counts the operations of `history`.
    pub fn of(history: &History) -> Self {
        let mut counts = Self::default();
        for operation in history.operations() {
            counts.operations += 1;
            match operation.outcome {
                Outcome::Ok => counts.ok += 1,
                Outcome::Fail => counts.fail += 1,
                Outcome::Info => counts.info += 1,
            }
        }
        counts
    }
}

/// A time in which a fault was in effect: (name, first event, last event).
pub(crate) fn faults(history: &History) -> Vec<(String, usize, usize)> {
    let mut windows: Vec<(String, usize, usize)> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let last = history.events().len().saturating_sub(1);
    for (at, event) in history.events().iter().enumerate() {
        if event.process != Process::NEMESIS || event.kind == EventKind::Invoke {
            continue;
        }
        // The runner's own events say which they are; of others the name has to do.
        let injected = event.value.get("kind").is_some();
        let heals = ["stop", "heal", "resume", "reset", "restart", "recover"];
        if &*event.f == "heal" {
            for n in open.drain(..) {
                windows[n].2 = at;
            }
        } else if !injected && heals.iter().any(|word| event.f.contains(word)) {
            if let Some(n) = open.pop() {
                windows[n].2 = at;
            }
        } else if windows.len() < 500 {
            open.push(windows.len());
            windows.push((event.f.to_string(), at, last));
        }
    }
    windows
}

fn one_line(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Valid { witness } => match witness {
            Witness::Linearization(orders) => {
                let count: usize = orders.iter().map(Vec::len).sum();
                format!(
                    "an order of {count} operations on {} keys was found and replayed",
                    orders.len()
                )
            }
            Witness::SerialOrder(order) => {
                format!("a serial order of {} transactions was found and replayed", order.len())
            }
            Witness::Checked(text) => text.clone(),
        },
        Verdict::Invalid { counterexample } => {
            format!("{}: {}", counterexample.anomaly, counterexample.message)
        }
        Verdict::Unknown { reason } => reason.to_string(),
    }
}

/// The report as text for a terminal.
pub fn text(history: &History, analysis: &Analysis) -> String {
    let counts = Counts::of(history);
    let mut out = String::new();
    _ = writeln!(out, "{}: {}", analysis.model, analysis.verdict.name().to_uppercase());
    _ = writeln!(out, "  {}", one_line(&analysis.verdict));
    _ = writeln!(
        out,
        "  {} operations: {} ok, {} failed, {} unknown",
        counts.operations, counts.ok, counts.fail, counts.info
    );
    write_faults(&mut out, history);
    if !analysis.levels.is_empty() {
        out.push_str("\nlevels\n");
        for (level, verdict) in &analysis.levels {
            let why = match verdict {
                Verdict::Invalid { counterexample } => format!("  {}", counterexample.anomaly),
                Verdict::Unknown { reason } => format!("  {reason}"),
                Verdict::Valid { .. } => String::new(),
            };
            _ = writeln!(out, "  {:<33} {:<8}{why}", level.name(), verdict.name());
        }
    }
    for found in &analysis.anomalies {
        _ = writeln!(out, "\n{}", found.anomaly);
        write_anomaly(&mut out, history, found);
    }
    if !analysis.notes.is_empty() {
        out.push_str("\nnotes\n");
        for note in &analysis.notes {
            _ = writeln!(out, "  {note}");
        }
    }
    out
}

/// What was done to the system, when, and whether it was seen.
fn write_faults(out: &mut String, history: &History) {
    const SHOWN: usize = 20;
    let windows = faults(history);
    if windows.is_empty() {
        return;
    }
    out.push_str("\nfaults\n");
    let seconds = |at: usize| history.events()[at].time.map(|nanos| nanos as f64 / 1e9);
    for (name, from, to) in windows.iter().take(SHOWN) {
        let event = &history.events()[*from];
        let when = match (seconds(*from), seconds(*to)) {
            (Some(from), Some(to)) => format!("{from:.2}–{to:.2} s"),
            _ => format!("events {from}–{to}"),
        };
        let targets = event.value.get("targets").and_then(Value::as_items).unwrap_or_default();
        let targets: Vec<_> = targets.iter().filter_map(Value::as_name).collect();
        let to =
            if targets.is_empty() { String::new() } else { format!(" {}", targets.join(", ")) };
        let seen = match event.value.get("verified") {
            Some(Value::Bool(true)) => ", seen",
            Some(_) => ", NOT SEEN",
            None => "",
        };
        _ = writeln!(out, "  {when} {name}{to}{seen}");
    }
    if windows.len() > SHOWN {
        _ = writeln!(out, "  and {} more", windows.len() - SHOWN);
    }
}

/// Each operation once, at its first place: a counterexample may name one for several reasons.
pub(crate) fn distinct(operations: &[u32]) -> impl Iterator<Item = u32> + '_ {
    let mut seen = FxHashSet::default();
    operations.iter().copied().filter(move |id| seen.insert(*id))
}

fn write_anomaly(out: &mut String, history: &History, found: &Counterexample) {
    _ = writeln!(out, "  {}", found.message);
    if let Some(key) = &found.key {
        _ = writeln!(out, "  key {key}");
    }
    for edge in &found.cycle {
        _ = writeln!(out, "  {}", history.describe(edge.from as usize));
        _ = writeln!(out, "    before op {} ({}): {}", edge.to, edge.relation, edge.why);
    }
    if found.cycle.is_empty() {
        for id in distinct(&found.operations).take(20) {
            _ = writeln!(out, "  {}", history.describe(id as usize));
        }
        let more = distinct(&found.operations).skip(20).count();
        if more > 0 {
            _ = writeln!(out, "  and {more} more");
        }
    }
    for detail in &found.details {
        _ = writeln!(out, "  {detail}");
    }
}

/// The report as one JSON object.
pub fn json(history: &History, analysis: &Analysis) -> String {
    let counts = Counts::of(history);
    let mut out = String::from("{\"model\":");
    json_string(&mut out, &analysis.model);
    _ = write!(out, ",\"verdict\":\"{}\",\"why\":", analysis.verdict.name());
    json_string(&mut out, &one_line(&analysis.verdict));
    _ = write!(
        out,
        ",\"counts\":{{\"operations\":{},\"ok\":{},\"fail\":{},\"info\":{}}},\"levels\":{{",
        counts.operations, counts.ok, counts.fail, counts.info
    );
    for (n, (level, verdict)) in analysis.levels.iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        _ = write!(out, "{comma}\"{}\":\"{}\"", level.name(), verdict.name());
    }
    out.push_str("},\"anomalies\":[");
    for (n, found) in analysis.anomalies.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        anomaly_json(&mut out, history, found);
    }
    out.push_str("],\"notes\":");
    strings(&mut out, &analysis.notes);
    out.push('}');
    out
}

fn strings(out: &mut String, items: &[String]) {
    out.push('[');
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        json_string(out, item);
    }
    out.push(']');
}

fn anomaly_json(out: &mut String, history: &History, found: &Counterexample) {
    out.push_str("{\"anomaly\":");
    json_string(out, &found.anomaly);
    out.push_str(",\"message\":");
    json_string(out, &found.message);
    out.push_str(",\"operations\":[");
    for (n, &id) in found.operations.iter().take(1000).enumerate() {
        let comma = if n > 0 { "," } else { "" };
        _ = write!(out, "{comma}{{\"id\":{id},\"text\":");
        json_string(out, &history.describe(id as usize));
        out.push('}');
    }
    out.push_str("],\"cycle\":[");
    for (n, edge) in found.cycle.iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        let (from, to, relation) = (edge.from, edge.to, edge.relation);
        _ = write!(
            out,
            "{comma}{{\"from\":{from},\"to\":{to},\"relation\":\"{relation}\",\"why\":"
        );
        json_string(out, &edge.why);
        out.push('}');
    }
    out.push_str("],\"details\":");
    strings(out, &found.details);
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Event, History};
    use crate::value::Value;
    use crate::verdict::{Analysis, Counterexample};

    #[test]
    fn an_operation_is_listed_once_and_a_fault_by_its_name() {
        let nemesis = |f: &str, time| {
            let mut event = Event::new(Process::NEMESIS.0, EventKind::Info, f, Value::Nil);
            event.time = Some(time);
            event
        };
        let client = |kind, time| {
            let mut event = Event::new(0, kind, "read", Value::Int(7));
            event.time = Some(time);
            event
        };
        let second = 1_000_000_000;
        let history = History::new(vec![
            client(EventKind::Invoke, 0),
            nemesis("partition", second),
            nemesis("heal", 9 * second),
            client(EventKind::Ok, 10 * second),
        ])
        .unwrap();
        let mut found = Counterexample::new("stale", "an old value");
        found.operations = vec![0, 0, 0];
        let analysis = Analysis::new("register", Verdict::invalid(found));
        let text = text(&history, &analysis);
        assert_eq!(text.matches("op 0 (process 0)").count(), 1, "{text}");
        let page = html(&history, &analysis, "title");
        assert_eq!(page.matches("<li class=\"op\">op 0").count(), 1, "{page}");
        assert!(page.contains(">partition</text>"), "the shaded window has its name");
    }
}
