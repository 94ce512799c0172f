//! Transactions without times: Plume's `r(k,v,session,txn)` and AWDIT's `r k v`.
//!
//! Each session becomes a process, each transaction an operation `txn`. The events of different
//! sessions stand in no order that means anything, so these histories are never checked in real
//! time.

use std::io::BufRead;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::history::{Event, EventKind, History, Process};
use crate::syntax::word;
use crate::value::Value;

/// `r(…)` or `w(…)`: what, and the numbers.
fn plume(line: &str) -> Option<(&'static str, Vec<i64>)> {
    let line = line.trim().trim_end_matches([',', ';']);
    let (f, rest) = match line.split_at_checked(1)? {
        ("r" | "R", rest) => ("r", rest),
        ("w" | "W", rest) => ("w", rest),
        _ => return None,
    };
    let inner = rest.trim().strip_prefix('(')?.strip_suffix(')')?;
    let numbers: Option<Vec<i64>> = inner.split(',').map(|n| n.trim().parse().ok()).collect();
    Some((f, numbers?)).filter(|(_, numbers)| numbers.len() == 4)
}

fn awdit(line: &str) -> Option<(&'static str, i64, i64)> {
    let mut words = line.split_whitespace();
    let f = match words.next()? {
        "r" | "R" => "r",
        "w" | "W" => "w",
        _ => return None,
    };
    let key = words.next()?.parse().ok()?;
    let value = words.next()?.parse().ok()?;
    words.next().is_none().then_some((f, key, value))
}

pub(super) fn is_plume(line: &str) -> bool {
    plume(line).is_some()
}

fn rule(line: &str, of: char) -> bool {
    line.len() >= 3 && line.chars().all(|c| c == of)
}

pub(super) fn is_awdit(line: &str) -> bool {
    awdit(line).is_some() || rule(line, '-') || rule(line, '=')
}

fn micro(f: &'static str, key: i64, value: i64) -> Value {
    Value::from(vec![Value::Keyword(word(f)), Value::Int(key), Value::Int(value)])
}

struct Transactions {
    events: Vec<Event>,
    f: Arc<str>,
}

impl Transactions {
    fn push(&mut self, session: i64, kind: EventKind, micros: Vec<Value>) {
        let value = Value::from(micros);
        let (process, f) = (Process(session), self.f.clone());
        for kind in [EventKind::Invoke, kind] {
            let value = value.clone();
            self.events.push(Event {
                process,
                kind,
                f: f.clone(),
                key: None,
                value,
                time: None,
                error: None,
            });
        }
    }
}

pub(super) fn load_plume(input: impl BufRead) -> Result<History> {
    let mut order: Vec<(i64, EventKind, Vec<Value>)> = Vec::new();
    let mut sessions: FxHashMap<i64, i64> = FxHashMap::default();
    let mut places: FxHashMap<(i64, i64), usize> = FxHashMap::default();
    for (n, line) in (1..).zip(input.lines()) {
        let line = line.map_err(|error| Error::read(error, n))?;
        if line.trim().is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let Some((f, numbers)) = plume(&line) else {
            let message = format!("'{}' is not r(key,value,session,txn) or w(…)", line.trim());
            return Err(Error::at(ErrorKind::Syntax, n, message));
        };
        let (session, txn) = (numbers[2], numbers[3]);
        let next = i64::from(crate::index(sessions.len()));
        let session = *sessions.entry(session).or_insert(next);
        let op = micro(f, numbers[0], numbers[1]);
        if txn == -1 {
            // Each aborted write is an attempt of its own, outside of its session's order.
            if f == "w" {
                order.push((session, EventKind::Fail, vec![op]));
            }
            continue;
        }
        let place = *places.entry((session, txn)).or_insert_with(|| {
            order.push((session, EventKind::Ok, Vec::new()));
            order.len() - 1
        });
        order[place].2.push(op);
    }
    let mut out = Transactions { events: Vec::new(), f: "txn".into() };
    for (session, kind, micros) in order {
        out.push(session, kind, micros);
    }
    History::new(out.events)
}

pub(super) fn load_awdit(input: impl BufRead) -> Result<History> {
    let mut out = Transactions { events: Vec::new(), f: "txn".into() };
    let (mut session, mut micros) = (0, Vec::new());
    for (n, line) in (1..).zip(input.lines()) {
        let line = line.map_err(|error| Error::read(error, n))?;
        let line = line.trim();
        let (ends, next) = (rule(line, '-') || rule(line, '='), rule(line, '='));
        if ends {
            if !micros.is_empty() {
                out.push(session, EventKind::Ok, std::mem::take(&mut micros));
            }
            session += i64::from(next);
        } else if let Some((f, key, value)) = awdit(line) {
            micros.push(micro(f, key, value));
        } else if !(line.is_empty() || line.starts_with(['#', ';'])) {
            let message = format!("'{line}' is not 'r key value', 'w key value', ----- or =====");
            return Err(Error::at(ErrorKind::Syntax, n, message));
        }
    }
    if !micros.is_empty() {
        out.push(session, EventKind::Ok, micros);
    }
    History::new(out.events)
}
