//! Operation maps, `{:process 0, :type :invoke, :f :read, :value nil}`, in EDN and JSON.

use std::io::BufRead;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Open;
use crate::error::{Error, ErrorKind, Result};
use crate::history::{Event, EventKind, History, Process};
use crate::syntax::{self, Forms};
use crate::value::Value;

pub(super) fn load(input: impl BufRead, json: bool) -> Result<History> {
    let mut forms = Forms::new(input, json);
    let mut reader = Reader::default();
    let mut events = Vec::new();
    while let Some((line, form)) = forms.next_map()? {
        // A whole test around its history.
        if let (None, Some(Value::List(all))) = (form.get("type"), form.get("history")) {
            for form in all {
                if let Some(event) = reader.event(line, form.clone())? {
                    reader.open.event(&event, line)?;
                    events.push(event);
                }
            }
            continue;
        }
        if let Some(event) = reader.event(line, form)? {
            reader.open.event(&event, line)?;
            events.push(event);
        }
    }
    let mut history = History::new(events)?;
    if reader.skipped > 0 {
        history.note(format!("{} maps have no :type and were skipped", reader.skipped));
    }
    Ok(history)
}

/// Whether operations stand as `[process :type :f value error]`, one a line: Knossos' short form.
pub(super) fn is_rows(text: &str) -> bool {
    let lines = text.lines().map(|line| line.trim_start_matches('\u{FEFF}').trim());
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with(';'));
    lines.next().is_some_and(|line| line.starts_with('[') && row(line, 1).is_some())
}

/// The operation map that a row stands for.
fn row(line: &str, n: u64) -> Option<Value> {
    // The first row may stand behind the bracket that opens the whole.
    let line = if line.starts_with("[[") { &line[1..] } else { line };
    let Ok(Value::List(items)) = syntax::parse(line, false, n) else { return None };
    if !matches!(items.get(1)?.as_name()?, "invoke" | "ok" | "fail" | "info") {
        return None;
    }
    let names = ["process", "type", "f", "value", "error"].map(|name| Value::Keyword(name.into()));
    Some(Value::Map(names.into_iter().zip(items).collect()))
}

pub(super) fn load_rows(input: impl BufRead) -> Result<History> {
    let mut reader = Reader::default();
    let mut events = Vec::new();
    for (n, line) in (1..).zip(input.lines()) {
        let line = line.map_err(|error| Error::read(error, n))?;
        let line = line.trim_start_matches('\u{FEFF}').trim();
        if line.is_empty() || line.starts_with(';') || line == "[" || line == "]" {
            continue;
        }
        let Some(form) = row(line, n) else {
            let message = format!("'{line}' is not [process :type :f value]");
            return Err(Error::at(ErrorKind::Syntax, n, message));
        };
        if let Some(event) = reader.event(n, form)? {
            reader.open.event(&event, n)?;
            events.push(event);
        }
    }
    History::new(events)
}

#[derive(Default)]
struct Reader {
    names: FxHashMap<Box<str>, Arc<str>>,
    processes: FxHashMap<Value, i64>,
    /// Operations of histories that name no process: who has what open.
    anonymous: Vec<(i64, Arc<str>, Value)>,
    next_anonymous: i64,
    open: Open,
    skipped: usize,
}

impl Reader {
    fn event(&mut self, line: u64, form: Value) -> Result<Option<Event>> {
        let Value::Map(entries) = form else { return Ok(None) };
        let (mut process, mut kind, mut f, mut key) = (None, None, None, None);
        let (mut value, mut time, mut error) = (Value::Nil, None, None);
        for (name, entry) in entries {
            match name.as_name() {
                Some("process") => process = Some(entry),
                Some("type") => kind = Some(entry),
                Some("f") => f = Some(entry),
                Some("key") => key = Some(entry),
                Some("value") => value = entry,
                Some("time") => time = entry.as_int(),
                Some("error") if !entry.is_nil() => error = Some(entry.to_string().into()),
                _ => {}
            }
        }
        let Some(kind) = kind else {
            self.skipped += 1;
            return Ok(None);
        };
        let kind = match kind.as_name() {
            Some("invoke") => EventKind::Invoke,
            Some("ok") => EventKind::Ok,
            Some("fail") => EventKind::Fail,
            Some("info") => EventKind::Info,
            _ => {
                let message = format!("the type is {kind}; it must be invoke, ok, fail or info");
                return Err(Error::at(ErrorKind::InvalidHistory, line, message));
            }
        };
        let f = match f {
            None | Some(Value::Nil) => self.name("txn"),
            Some(f) => match f.as_name() {
                Some(name) => self.name(name),
                None => self.name(&f.to_string()),
            },
        };
        let process = match process {
            None | Some(Value::Nil) => self.anonymous(kind, &f, &value),
            Some(process) => self.process(process),
        };
        Ok(Some(Event { process: Process(process), kind, f, key, value, time, error }))
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let shared: Arc<str> = name.into();
        self.names.insert(name.into(), shared.clone());
        shared
    }

    fn process(&mut self, process: Value) -> i64 {
        match process {
            Value::Int(number) if number >= 0 => number,
            other if other.as_name() == Some("nemesis") => Process::NEMESIS.0,
            other => {
                // Any other name is a client of its own, far from the numbered ones.
                let next = (1 << 40) + i64::from(crate::index(self.processes.len()));
                *self.processes.entry(other).or_insert(next)
            }
        }
    }

    /// Without processes a completion belongs to the open invocation that it looks most like.
    fn anonymous(&mut self, kind: EventKind, f: &Arc<str>, value: &Value) -> i64 {
        if kind == EventKind::Invoke {
            // Nobody says who did what, so no two of them are by the same process.
            let id = self.next_anonymous;
            self.next_anonymous += 1;
            self.anonymous.push((id, f.clone(), value.clone()));
            return id;
        }
        let like = |(_, g, sent): &(i64, Arc<str>, Value)| g == f && alike(sent, value);
        let same_f = |(_, g, _): &(i64, Arc<str>, Value)| g == f;
        let at = self
            .anonymous
            .iter()
            .rposition(like)
            .or_else(|| self.anonymous.iter().rposition(same_f));
        match at {
            Some(at) => self.anonymous.remove(at).0,
            None => {
                self.next_anonymous += 1;
                self.next_anonymous - 1
            }
        }
    }
}

/// Whether `got` can be the result of what was invoked as `sent`: equal but for `nil`s filled in.
fn alike(sent: &Value, got: &Value) -> bool {
    match (sent, got) {
        (Value::Nil, _) => true,
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
        }
        _ => sent == got,
    }
}
