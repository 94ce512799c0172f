//! Transactions out of operations: keys as numbers, micro-operations borrowed from the history.

use rustc_hash::FxHashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::history::{History, Outcome};
use crate::index;
use crate::value::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    Append,
    Register,
}

/// One step of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Micro<'h> {
    pub(super) write: bool,
    pub(super) key: u32,
    /// What was written or seen.
    pub(super) value: &'h Value,
}

#[derive(Clone, Debug)]
pub(super) struct Txn {
    /// The operation in the history.
    pub(super) op: u32,
    pub(super) process: i64,
    pub(super) outcome: Outcome,
    pub(super) begin: u32,
    pub(super) end: u32,
    start: u32,
    stop: u32,
}

/// All transactions that wrote or saw anything, in the order of their invocations.
#[derive(Debug, Default)]
pub(super) struct Txns<'h> {
    pub(super) all: Vec<Txn>,
    pub(super) keys: Vec<&'h Value>,
    micros: Vec<Micro<'h>>,
}

impl<'h> Txns<'h> {
    pub(super) fn micros(&self, txn: usize) -> &[Micro<'h>] {
        let txn = &self.all[txn];
        &self.micros[txn.start as usize..txn.stop as usize]
    }
}

pub(super) fn transactions(history: &History, workload: Workload) -> Result<Txns<'_>> {
    let mut txns = Txns::default();
    let mut keys: FxHashMap<&Value, u32> = FxHashMap::default();
    for (id, operation) in history.operations().iter().enumerate() {
        let ok = operation.outcome == Outcome::Ok;
        let source = match history.output(id) {
            Some(output) if ok && !output.is_nil() => output,
            _ => history.input(id),
        };
        if source.is_nil() {
            continue;
        }
        let start = index(txns.micros.len());
        let fault = |what: String| {
            let message = format!("{}: {what}", history.describe(id));
            Error::new(ErrorKind::InvalidHistory, message)
        };
        let Some(steps) = source.as_items() else {
            return Err(fault(format!("a transaction is a list of steps, not {source}")));
        };
        for step in steps {
            let Some((f, [key, rest @ ..])) = step.as_items().and_then(<[_]>::split_first) else {
                return Err(fault(format!("{step} is not a step [f key value]")));
            };
            let write = match (f.as_name(), workload) {
                (Some("r" | "read"), _) => false,
                (Some("append"), Workload::Append) => true,
                (Some("w" | "write"), Workload::Register) => true,
                _ => return Err(fault(format!("{f} is no step of this workload"))),
            };
            let value = rest.first().unwrap_or(&Value::Nil);
            if !write && !ok {
                continue;
            }
            if !write
                && workload == Workload::Append
                && !value.is_nil()
                && value.as_items().is_none()
            {
                return Err(fault(format!("a read of a list returned {value}")));
            }
            let key = *keys.entry(key).or_insert_with(|| {
                txns.keys.push(key);
                index(txns.keys.len() - 1)
            });
            txns.micros.push(Micro { write, key, value });
        }
        txns.all.push(Txn {
            op: index(id),
            process: operation.process.0,
            outcome: operation.outcome,
            begin: operation.begin(),
            end: if ok { operation.end() } else { u32::MAX },
            start,
            stop: index(txns.micros.len()),
        });
    }
    Ok(txns)
}
