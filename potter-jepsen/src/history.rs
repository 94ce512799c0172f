//! What was observed: operations that were invoked and, mostly, completed.
//!
//! The order of a history is the order of its events, never a clock: `time` is for plots only.

use std::fmt::Write as _;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::value::{Value, json_string};

/// Who did it: one logical single-threaded client. Negative ids are no clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process(pub i64);

impl Process {
    /// The process that injects faults. Its operations are not checked; its `start`s and `stop`s
    /// become the shaded windows of reports.
    pub const NEMESIS: Self = Self(-1);
}

/// The four kinds of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The operation was sent.
    Invoke,
    /// It certainly took effect, between invocation and now.
    Ok,
    /// It certainly did not take effect.
    Fail,
    /// Nobody knows: it may take effect at any time from its invocation on, or never.
    Info,
}

impl EventKind {
    /// The word that Jepsen uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invoke => "invoke",
            Self::Ok => "ok",
            Self::Fail => "fail",
            Self::Info => "info",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Whose.
    pub process: Process,
    /// Invocation, or which completion.
    pub kind: EventKind,
    /// What was done: `read`, `write`, `cas`, `txn`, …
    pub f: Arc<str>,
    /// What it was done to, if the workload has keys.
    pub key: Option<Value>,
    /// The argument; in a completion, the result.
    pub value: Value,
    /// Nanoseconds from the start, for plots. No verdict depends on it.
    pub time: Option<i64>,
    /// Why it failed, or is not known.
    pub error: Option<Box<str>>,
}

impl Event {
    /// An event without key, time and error.
    pub fn new(process: i64, kind: EventKind, f: &str, value: Value) -> Self {
        let process = Process(process);
        Self { process, kind, f: f.into(), key: None, value, time: None, error: None }
    }

    /// The event as one line of EDN, as Jepsen writes it.
    pub fn to_edn(&self) -> String {
        let mut out = String::from("{:process ");
        match self.process {
            Process::NEMESIS => out.push_str(":nemesis"),
            Process(id) => _ = write!(out, "{id}"),
        }
        _ = write!(out, ", :type :{}, :f :{}", self.kind.as_str(), self.f);
        if let Some(key) = &self.key {
            _ = write!(out, ", :key {key}");
        }
        _ = write!(out, ", :value {}", self.value);
        if let Some(time) = self.time {
            _ = write!(out, ", :time {time}");
        }
        if let Some(error) = &self.error {
            _ = write!(out, ", :error {}", Value::Str((**error).into()));
        }
        out.push('}');
        out
    }

    /// The event as one line of JSON.
    pub fn to_json(&self) -> String {
        let mut out = String::from("{\"process\":");
        match self.process {
            Process::NEMESIS => out.push_str("\"nemesis\""),
            Process(id) => _ = write!(out, "{id}"),
        }
        _ = write!(out, ",\"type\":\"{}\",\"f\":", self.kind.as_str());
        json_string(&mut out, &self.f);
        if let Some(key) = &self.key {
            out.push_str(",\"key\":");
            key.write_json(&mut out);
        }
        out.push_str(",\"value\":");
        self.value.write_json(&mut out);
        if let Some(time) = self.time {
            _ = write!(out, ",\"time\":{time}");
        }
        if let Some(error) = &self.error {
            out.push_str(",\"error\":");
            json_string(&mut out, error);
        }
        out.push('}');
        out
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It took effect.
    Ok,
    /// It did not.
    Fail,
    /// Not known: an `info`, or no completion at all.
    Info,
}

/// An invocation and its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Whose.
    pub process: Process,
    /// How it ended.
    pub outcome: Outcome,
    /// The index of the invocation in [`History::events`]; of the completion if there is only that.
    pub invoke: u32,
    /// The index of the completion.
    pub complete: Option<u32>,
    /// There is no invocation: it may have begun any time before.
    pub begin_unknown: bool,
}

impl Operation {
    /// The position from which on it may have taken effect.
    pub fn begin(&self) -> u32 {
        if self.begin_unknown { 0 } else { self.invoke }
    }

    /// The position up to which it took effect; `u32::MAX` if that is open.
    pub fn end(&self) -> u32 {
        match (self.outcome, self.complete) {
            (Outcome::Ok | Outcome::Fail, Some(at)) => at,
            _ => u32::MAX,
        }
    }
}

/// Events in the order in which they were observed, paired to operations.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: Vec<Event>,
    operations: Vec<Operation>,
    notes: Vec<String>,
}

impl History {
    /// Pairs the events of each process. A process that invokes again without a completion leaves
    /// the earlier operation open, which is the same as `info`.
    pub fn new(events: Vec<Event>) -> Result<Self> {
        if events.len() >= u32::MAX as usize {
            let message = "a history may have at most 4 294 967 294 events: check it in parts";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let mut history = Self { events, operations: Vec::new(), notes: Vec::new() };
        history.pair();
        Ok(history)
    }

    fn pair(&mut self) {
        let mut open: FxHashMap<Process, usize> = FxHashMap::default();
        let (mut left_open, mut headless) = (0_usize, 0_usize);
        for (at, event) in (0_u32..).zip(&self.events) {
            if event.process.0 < 0 {
                continue;
            }
            let process = event.process;
            let outcome = match event.kind {
                EventKind::Ok => Outcome::Ok,
                EventKind::Fail => Outcome::Fail,
                EventKind::Invoke | EventKind::Info => Outcome::Info,
            };
            if event.kind == EventKind::Invoke {
                left_open += usize::from(open.insert(process, self.operations.len()).is_some());
            } else if let Some(n) = open.remove(&process) {
                self.operations[n].outcome = outcome;
                self.operations[n].complete = Some(at);
                continue;
            } else {
                headless += 1;
            }
            let begin_unknown = event.kind != EventKind::Invoke;
            let complete = begin_unknown.then_some(at);
            let operation = Operation { process, outcome, invoke: at, complete, begin_unknown };
            self.operations.push(operation);
        }
        if left_open > 0 {
            self.notes.push(format!(
                "{left_open} operations have no completion although their process went on: taken \
                 as info"
            ));
        }
        if headless > 0 {
            self.notes.push(format!(
                "{headless} completions have no invocation: they may have begun any time before"
            ));
        }
    }

    /// All events.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// All operations of clients, by invocation. Their index is what verdicts call an operation.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// What was odd about the events, in words.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// What operation `id` did.
    pub fn f(&self, id: usize) -> &str {
        &self.events[self.operations[id].invoke as usize].f
    }

    /// The key of operation `id`.
    pub fn key(&self, id: usize) -> Option<&Value> {
        let operation = &self.operations[id];
        let completed = operation.complete.map(|at| &self.events[at as usize]);
        let invoked = &self.events[operation.invoke as usize];
        invoked.key.as_ref().or_else(|| completed.and_then(|event| event.key.as_ref()))
    }

    /// What operation `id` was invoked with.
    pub fn input(&self, id: usize) -> &Value {
        &self.events[self.operations[id].invoke as usize].value
    }

    /// What operation `id` returned, if it returned.
    pub fn output(&self, id: usize) -> Option<&Value> {
        self.operations[id].complete.map(|at| &self.events[at as usize].value)
    }

    /// Operation `id` in words: who, what, with which result.
    pub fn describe(&self, id: usize) -> String {
        let operation = &self.operations[id];
        let mut out = format!("op {id} (process {}): {}", operation.process.0, self.f(id));
        if let Some(key) = self.key(id) {
            _ = write!(out, " {key}");
        }
        let (input, output) = (self.input(id), self.output(id));
        match (operation.outcome, output) {
            (Outcome::Ok, Some(output)) => {
                if !input.is_nil() && input != output {
                    _ = write!(out, " {input}");
                }
                _ = write!(out, " → {output}");
            }
            (Outcome::Fail, _) => _ = write!(out, " {input}: failed"),
            _ => _ = write!(out, " {input}: outcome unknown"),
        }
        let end = operation.complete.map_or("…".to_owned(), |at| at.to_string());
        _ = write!(out, " [{}–{end}]", operation.invoke);
        out
    }

    /// The history with only those operations of clients for which `keep` says so.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(usize) -> bool) -> Self {
        let mut wanted = vec![true; self.events.len()];
        for (id, operation) in self.operations.iter().enumerate() {
            if !keep(id) {
                wanted[operation.invoke as usize] = false;
                if let Some(at) = operation.complete {
                    wanted[at as usize] = false;
                }
            }
        }
        let mut moved = Vec::with_capacity(self.events.len());
        let mut events = Vec::new();
        for (event, wanted) in self.events.iter().zip(&wanted) {
            moved.push(u32::try_from(events.len()).unwrap_or(u32::MAX));
            if *wanted {
                events.push(event.clone());
            }
        }
        let kept = self.operations.iter().enumerate().filter(|(id, _)| keep(*id));
        let operations = kept
            .map(|(_, op)| Operation {
                invoke: moved[op.invoke as usize],
                complete: op.complete.map(|at| moved[at as usize]),
                ..*op
            })
            .collect();
        Self { events, operations, notes: self.notes.clone() }
    }

    /// The history with the key taken out of values `[key value]`, as Jepsen's independent
    /// workloads write them.
    #[must_use]
    pub fn with_keys_from_values(mut self) -> Self {
        for event in &mut self.events {
            if event.process.0 < 0 || event.key.is_some() {
                continue;
            }
            let Value::List(items) = &mut event.value else { continue };
            if items.len() == 2 {
                let value = items.pop();
                event.key = items.pop();
                event.value = value.unwrap_or_default();
            }
        }
        self
    }

    /// The history as lines of EDN.
    pub fn to_edn(&self) -> String {
        self.lines(Event::to_edn)
    }

    /// The history as lines of JSON.
    pub fn to_json_lines(&self) -> String {
        self.lines(Event::to_json)
    }

    fn lines(&self, line: impl Fn(&Event) -> String) -> String {
        let mut out = String::new();
        for event in &self.events {
            out.push_str(&line(event));
            out.push('\n');
        }
        out
    }
}
