//! What a thread is asked to do.

use std::sync::Arc;

use crate::generator::Thread;
use crate::nemesis::Fault;
use crate::value::Value;

/// One operation: what to do, to which key, with which argument.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Op {
    /// What to do, in the workload's words: `read`, `write`, `cas`, `txn`, …
    pub f: Arc<str>,
    /// To what, if the workload has keys.
    pub key: Option<Value>,
    /// With what; `Nil` for a read.
    pub value: Value,
    pub(crate) action: Action,
    pub(crate) thread: Option<Thread>,
}

/// Who does it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Client,
    Inject(Fault),
    Heal,
}

impl Op {
    /// An operation without key and argument.
    pub fn new(f: &str) -> Self {
        let (value, action) = (Value::Nil, Action::Client);
        Self { f: f.into(), key: None, value, action, thread: None }
    }

    /// The same to a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Value>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same with an argument.
    #[must_use]
    pub fn value(mut self, value: impl Into<Value>) -> Self {
        self.value = value.into();
        self
    }

    /// A fault, for the nemesis.
    pub fn inject(fault: Fault) -> Self {
        let mut op = Self::new(&fault.kind).value(fault.to_value());
        op.action = Action::Inject(fault);
        op
    }

    /// All faults undone.
    pub fn heal() -> Self {
        let mut op = Self::new("heal");
        op.action = Action::Heal;
        op
    }

    /// Binds it to a thread, unless it is bound already.
    pub(crate) fn on_thread(mut self, thread: Thread) -> Self {
        self.thread.get_or_insert(thread);
        self
    }
}
