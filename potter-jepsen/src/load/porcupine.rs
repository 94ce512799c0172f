//! Jepsen's log lines: `INFO  jepsen.util - 0 :invoke :write 2`, with tabs between.

use std::io::BufRead;
use std::sync::Arc;

use super::Open;
use crate::error::{Error, ErrorKind, Result};
use crate::history::{Event, EventKind, History, Process};
use crate::syntax;
use crate::value::Value;

/// The fields of a line: process, type, f, and the rest.
fn fields(line: &str) -> Option<(&str, EventKind, &str, &str)> {
    let rest = match line.find("jepsen.util - ") {
        Some(at) => &line[at + "jepsen.util - ".len()..],
        None => line,
    };
    let (process, rest) = word(rest)?;
    // An operation map that begins with its type is none.
    if process.starts_with(['{', '[', '(', '#', '"']) {
        return None;
    }
    let (kind, rest) = word(rest)?;
    let (f, rest) = word(rest)?;
    let kind = match kind {
        ":invoke" => EventKind::Invoke,
        ":ok" => EventKind::Ok,
        ":fail" => EventKind::Fail,
        ":info" => EventKind::Info,
        _ => return None,
    };
    Some((process, kind, f.strip_prefix(':')?, rest.trim()))
}

fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

pub(super) fn is_log(line: &str) -> bool {
    line.contains("jepsen.util - ") || fields(line).is_some() || line.starts_with("INFO ")
}

pub(super) fn load(input: impl BufRead) -> Result<History> {
    let mut events = Vec::new();
    let mut names: Vec<Arc<str>> = Vec::new();
    let (mut open, mut skipped) = (Open::default(), 0_usize);
    for (n, line) in (1..).zip(input.lines()) {
        let line = line.map_err(|error| Error::read(error, n))?;
        let Some((process, kind, f, rest)) = fields(&line) else {
            skipped += usize::from(!line.trim().is_empty());
            continue;
        };
        let process = match process.parse::<i64>() {
            Ok(process) => Process(process),
            Err(_) => Process::NEMESIS,
        };
        let f = match names.iter().find(|name| &***name == f) {
            Some(name) => name.clone(),
            None => {
                names.push(f.into());
                names[names.len() - 1].clone()
            }
        };
        // A completion without a result says why instead: `:timed-out`.
        let reason = matches!(kind, EventKind::Fail | EventKind::Info) && rest.starts_with(':');
        let (value, error) = match reason {
            true => (Value::Nil, Some(rest.into())),
            false if rest.is_empty() => (Value::Nil, None),
            false => (syntax::parse(rest, false, n)?, None),
        };
        let event = Event { process, kind, f, key: None, value, time: None, error };
        open.event(&event, n)?;
        events.push(event);
    }
    if events.is_empty() && skipped > 0 {
        let message = "no line has the form 'INFO jepsen.util - process :type :f value'";
        return Err(Error::at(ErrorKind::Syntax, 1, message));
    }
    let mut history = History::new(events)?;
    if skipped > 0 {
        history.note(format!("{skipped} lines are no operations and were skipped"));
    }
    Ok(history)
}
