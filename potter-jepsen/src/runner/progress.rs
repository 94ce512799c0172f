//! How far a test is.

use std::time::Duration;

use crate::history::{Event, EventKind, Process};
use crate::value::Value;

/// What a test is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The system is started and prepared.
    #[default]
    Setup,
    /// Clients and nemesis at work.
    Running,
    /// What was recorded is checked.
    Checking,
    /// There is a result.
    Done,
}

impl Phase {
    /// The name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Running => "running",
            Self::Checking => "checking",
            Self::Done => "done",
        }
    }
}

/// How far a test is, and what it did until now.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Since the first operation.
    pub elapsed: Duration,
    /// Operations of clients that were sent.
    pub operations: u64,
    /// Those that succeeded.
    pub ok: u64,
    /// Those that certainly did not happen.
    pub fail: u64,
    /// Those whose outcome is not known.
    pub info: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// The faults that are in effect now.
    pub active_faults: Vec<String>,
}

impl Progress {
    pub(crate) fn count(&mut self, event: &Event) {
        if event.process == Process::NEMESIS {
            if event.kind == EventKind::Invoke {
                return;
            }
            if &*event.f == "heal" {
                self.active_faults.clear();
            } else {
                self.faults += 1;
                self.active_faults.push(event.f.to_string());
            }
            return;
        }
        match event.kind {
            EventKind::Invoke => self.operations += 1,
            EventKind::Ok => self.ok += 1,
            EventKind::Fail => self.fail += 1,
            EventKind::Info => self.info += 1,
        }
    }
}

/// An event of the nemesis as a line for people.
pub(crate) fn fault_line(event: &Event) -> String {
    let detail = event.value.get("detail").and_then(Value::as_name).unwrap_or_default();
    match &event.error {
        Some(error) => format!("{}: {error}", event.f),
        None => format!("{}: {detail}", event.f),
    }
}
