//! Streams without gaps, and readers of everything that miss nothing.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Findings, misfit, operations};
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{History, Outcome};
use crate::value::Value;
use crate::verdict::{Analysis, Checker, no_evidence};

/// | `f` | invoked with | returns |
/// |---|---|---|
/// | `append` | `[stream [event …]]` | `[stream [[version event position] …]]` |
/// | `read-stream` | `[stream nil]` | `[stream [[version event] …]]` |
/// | `poll` | `nil` | `[[position event] …]`, what follows the process' earlier polls |
///
/// Versions of a stream are 1, 2, 3, … with one event each. What was appended is in every later read
/// of its stream. A process that polls gets positions that only rise, nothing twice, and never
/// passes a position whose event it did not get: the defect of readers that trust identity columns.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct EventStore {}

impl EventStore {
    /// The checker.
    pub fn new() -> Self {
        Self::default()
    }
}

#[derive(Default)]
struct Seen<'h> {
    /// Event → its position, from acknowledged appends and from polls.
    positions: FxHashMap<&'h Value, (i64, u32)>,
    versions: BTreeMap<(&'h Value, i64), (&'h Value, u32)>,
    failed: FxHashMap<&'h Value, u32>,
    /// Process → what it got: (position, event, operation).
    polls: BTreeMap<i64, Vec<(i64, &'h Value, u32)>>,
    stream_reads: Vec<(u32, u32, &'h Value, BTreeSet<&'h Value>)>,
    /// Event → (stream, completion of its append, operation).
    acknowledged: BTreeMap<&'h Value, (&'h Value, u32, u32)>,
    events: usize,
}

impl Checker for EventStore {
    fn check(&self, history: &History, _: &Budget) -> Result<Analysis> {
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("event-store", verdict));
        }
        let mut seen = Seen::default();
        let mut findings = Findings::default();
        for op in operations(history) {
            let fault = |what| misfit(history, op.id, what);
            match op.f {
                "append" if op.outcome == Outcome::Fail => {
                    let events = op.input.as_items().and_then(|pair| pair.get(1)?.as_items());
                    for event in events.unwrap_or_default() {
                        seen.failed.insert(event, op.id);
                    }
                }
                _ if op.outcome != Outcome::Ok => {}
                "append" | "read-stream" => {
                    let Some([stream, rows]) = op.output.as_items() else {
                        return Err(fault("it returns [stream [[version event …] …]]"));
                    };
                    let rows = rows.as_items().ok_or_else(|| fault("the second part is a list"))?;
                    let mut events = BTreeSet::new();
                    for row in rows {
                        let Some([version, event, rest @ ..]) = row.as_items() else {
                            return Err(fault(
                                "a row is [version event] or [version event position]",
                            ));
                        };
                        let version =
                            version.as_int().ok_or_else(|| fault("versions are numbers"))?;
                        events.insert(event);
                        seen.version(stream, version, event, op.id, history, &mut findings);
                        if let Some(position) = rest.first().and_then(Value::as_int) {
                            seen.position(event, position, op.id, history, &mut findings);
                        }
                        if op.f == "append" {
                            seen.acknowledged.insert(event, (stream, op.end, op.id));
                        }
                    }
                    if op.f == "read-stream" {
                        seen.stream_reads.push((op.begin, op.id, stream, events));
                    }
                }
                "poll" => {
                    for row in op.output.as_items().ok_or_else(|| fault("a poll returns a list"))? {
                        let Some([position, event, ..]) = row.as_items() else {
                            return Err(fault("a row is [position event]"));
                        };
                        let position =
                            position.as_int().ok_or_else(|| fault("positions are numbers"))?;
                        seen.position(event, position, op.id, history, &mut findings);
                        seen.polls.entry(op.process).or_default().push((position, event, op.id));
                    }
                }
                _ => return Err(fault("f is append, read-stream or poll")),
            }
        }
        seen.conclude(history, &mut findings);
        let text = format!(
            "{} events, {} readers",
            seen.events.max(seen.versions.len()),
            seen.polls.len()
        );
        let looked = seen.versions.len() + seen.positions.len();
        Ok(findings.analysis("event-store", (looked, text)))
    }
}

impl<'h> Seen<'h> {
    fn version(
        &mut self,
        stream: &'h Value,
        version: i64,
        event: &'h Value,
        op: u32,
        history: &History,
        findings: &mut Findings,
    ) {
        self.events += 1;
        let known = *self.versions.entry((stream, version)).or_insert((event, op));
        if known.0 != event {
            let message = format!(
                "version {version} of {stream} is {} in {} and {event} in {}",
                known.0,
                history.describe(known.1 as usize),
                history.describe(op as usize)
            );
            findings.add("two-events-one-version", message, &[known.1, op]);
        }
    }

    fn position(
        &mut self,
        event: &'h Value,
        position: i64,
        op: u32,
        history: &History,
        findings: &mut Findings,
    ) {
        let known = *self.positions.entry(event).or_insert((position, op));
        if known.0 != position {
            let message = format!(
                "event {event} is at position {} and at {position}: {} and {}",
                known.0,
                history.describe(known.1 as usize),
                history.describe(op as usize)
            );
            findings.add("two-positions", message, &[known.1, op]);
        }
    }

    fn conclude(&self, history: &History, findings: &mut Findings) {
        let mut expected: Option<(&Value, i64)> = None;
        for (&(stream, version), &(event, op)) in &self.versions {
            let next = match expected {
                Some((last, next)) if last == stream => next,
                _ => 1,
            };
            if version != next {
                let message = format!("{stream} has version {version} and no version {next}");
                findings.add("version-gap", message, &[op]);
            }
            expected = Some((stream, version + 1));
            if let Some(&failed) = self.failed.get(event) {
                let message = format!("event {event} is there although its append failed");
                findings.add("aborted-visible", message, &[failed, op]);
            }
        }
        for (event, &(stream, end, append)) in &self.acknowledged {
            for (begin, read, of, events) in &self.stream_reads {
                if *of == stream && *begin > end && !events.contains(event) {
                    let message = format!(
                        "event {event} of {stream} is missing from {}",
                        history.describe(*read as usize)
                    );
                    findings.add("lost-event", message, &[append, *read]);
                }
            }
        }
        let mut by_position: Vec<(i64, &Value, u32)> =
            self.positions.iter().map(|(event, &(position, op))| (position, *event, op)).collect();
        by_position.sort_unstable();
        for (process, got) in &self.polls {
            reader(*process, got, &by_position, findings);
        }
    }
}

fn reader(
    process: i64,
    got: &[(i64, &Value, u32)],
    all: &[(i64, &Value, u32)],
    findings: &mut Findings,
) {
    let mut delivered: FxHashSet<&Value> = FxHashSet::default();
    for (n, &(position, event, op)) in got.iter().enumerate() {
        if !delivered.insert(event) {
            let message = format!("reader {process} got event {event} twice");
            findings.add("delivered-twice", message, &[op]);
        } else if n > 0 && got[n - 1].0 >= position {
            let message =
                format!("reader {process} got position {position} after {}", got[n - 1].0);
            findings.add("out-of-order", message, &[got[n - 1].2, op]);
        }
    }
    let (Some(first), Some(last)) = (got.iter().min(), got.iter().max()) else { return };
    for &(position, event, op) in all {
        if position >= first.0 && position <= last.0 && !delivered.contains(event) {
            let message = format!(
                "reader {process} is at position {} and never got event {event} of position {position}",
                last.0
            );
            findings.add("skipped", message, &[op, last.2]);
        }
    }
}
