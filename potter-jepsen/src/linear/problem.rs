//! The operations on one key, ready for a search.

use rustc_hash::FxHashMap;

use super::model::{Call, Model, Partition};
use crate::error::{Error, ErrorKind, Result};
use crate::history::{History, Outcome};
use crate::value::Value;

/// An operation of a problem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    /// Its index in the history.
    pub(crate) id: u32,
    /// Its index in [`Problem::kinds`]: what it does.
    pub(crate) kind: u32,
    pub(crate) begin: u32,
    /// `u32::MAX`: it may have taken effect later than everything, or never.
    pub(crate) end: u32,
    pub(crate) pure: bool,
}

impl Item {
    pub(crate) fn crashed(&self) -> bool {
        self.end == u32::MAX
    }
}

/// The operations on one key, by invocation. Equal operations share a kind.
#[derive(Clone, Debug)]
pub(crate) struct Problem<O> {
    pub(crate) key: Option<Value>,
    pub(crate) ops: Vec<Item>,
    pub(crate) kinds: Vec<O>,
}

impl<O: Clone> Problem<O> {
    pub(crate) fn ids(&self, items: &[u32]) -> Vec<u32> {
        items.iter().map(|&n| self.ops[n as usize].id).collect()
    }

    /// What was known at event `end`: later invocations are gone, later completions are open.
    pub(crate) fn prefix(&self, end: u32) -> Self {
        let seen = self.ops.iter().filter(|op| op.begin < end);
        let cut = seen.map(|op| Item { end: if op.end > end { u32::MAX } else { op.end }, ..*op });
        let ops = cut.filter(|op| !(op.pure && op.crashed())).collect();
        Self { key: self.key.clone(), ops, kinds: self.kinds.clone() }
    }

    pub(crate) fn only(&self, items: &[u32]) -> Self {
        let mut items = items.to_vec();
        items.sort_unstable();
        items.dedup();
        let ops = items.iter().map(|&n| self.ops[n as usize]).collect();
        Self { key: self.key.clone(), ops, kinds: self.kinds.clone() }
    }

    /// The operations that completed at `end` or were running then, without those that crashed
    /// long before: the history's ids.
    pub(crate) fn open_at(&self, end: u32) -> Vec<u32> {
        let running = |op: &&Item| op.begin <= end && op.end >= end && !op.crashed();
        self.ops.iter().filter(running).map(|op| op.id).take(200).collect()
    }

    /// The events of this problem in order: (position, operation, is it the completion?).
    pub(crate) fn events(&self) -> Vec<(u32, u32, bool)> {
        let mut events = Vec::with_capacity(self.ops.len() * 2);
        for (n, op) in (0_u32..).zip(&self.ops) {
            events.push((op.begin, n, false));
            if !op.crashed() {
                events.push((op.end, n, true));
            }
        }
        // Operations without an invocation begin at 0 together with the first event.
        events.sort_unstable_by_key(|&(at, n, end)| (at, end, n));
        events
    }
}

/// Prepares every operation and puts it with those of its key.
pub(crate) fn split<M: Model>(model: &M, history: &History) -> Result<Vec<Problem<M::Op>>> {
    let mut prepared = Vec::new();
    let mut whole = false;
    for (id, operation) in history.operations().iter().enumerate() {
        let completed = operation.complete.map(|at| &history.events()[at as usize]);
        let ok = operation.outcome == Outcome::Ok;
        let call = Call {
            f: history.f(id),
            key: history.key(id),
            input: history.input(id),
            output: completed.filter(|_| ok).map_or(&Value::Nil, |event| &event.value),
            outcome: operation.outcome,
            has_error: completed.is_some_and(|event| event.error.is_some()),
        };
        let op = model.prepare(&call).map_err(|why| {
            let message = format!("{}: {why}", history.describe(id));
            Error::new(ErrorKind::InvalidHistory, message)
        })?;
        let Some(op) = op else { continue };
        let partition = model.partition(&call);
        whole |= partition == Partition::Whole;
        let end = if operation.outcome == Outcome::Info { u32::MAX } else { operation.end() };
        let pure = model.reads_only(&op);
        // A read that crashed proves nothing.
        if !(pure && end == u32::MAX) {
            let item = Item { id: index(id), kind: 0, begin: operation.begin(), end, pure };
            prepared.push((partition, op, item));
        }
    }
    let mut places: FxHashMap<Option<Value>, usize> = FxHashMap::default();
    let mut kinds: Vec<FxHashMap<M::Op, u32>> = Vec::new();
    let mut problems: Vec<Problem<M::Op>> = Vec::new();
    for (partition, op, mut item) in prepared {
        let key = match partition {
            Partition::Key(key) if !whole => Some(key),
            _ => None,
        };
        let place = *places.entry(key).or_insert_with_key(|key| {
            problems.push(Problem { key: key.clone(), ops: Vec::new(), kinds: Vec::new() });
            kinds.push(FxHashMap::default());
            problems.len() - 1
        });
        let problem = &mut problems[place];
        item.kind = *kinds[place].entry(op).or_insert_with_key(|op| {
            problem.kinds.push(op.clone());
            index(problem.kinds.len() - 1)
        });
        problem.ops.push(item);
    }
    for problem in &mut problems {
        problem.ops.sort_by_key(|op| op.begin);
    }
    Ok(problems)
}

/// Histories have fewer than 2³² events, so every index fits.
pub(crate) fn index(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
