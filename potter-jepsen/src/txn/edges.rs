//! What the analyses of lists and registers find, and the graph that follows from it.

use rustc_hash::{FxHashMap, FxHashSet};

use super::Level;
use super::compile::Txns;
use super::graph::{Graph, rel};
use crate::history::{History, Outcome};
use crate::index;
use crate::value::Value;
use crate::verdict::Counterexample;

/// The writer of the values before everything.
pub(super) const INITIAL: u32 = u32::MAX;

/// A read of what another transaction wrote, in the order in which transactions read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) txn: u32,
    pub(super) key: u32,
    /// The transaction, or [`INITIAL`].
    pub(super) from: u32,
}

/// Every reader comes before every writer but itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    pub(super) readers: Vec<u32>,
    pub(super) writers: Vec<u32>,
}

/// The result of an analysis.
#[derive(Debug)]
pub(super) struct Facts<'h> {
    pub(super) history: &'h History,
    pub(super) txns: Txns<'h>,
    /// Committed, or of unknown outcome and seen: nodes of the graph.
    pub(super) included: Vec<bool>,
    /// Anomalies that are no cycles, and the weakest level that each breaks.
    pub(super) anomalies: Vec<(Level, Counterexample)>,
    pub(super) edges: Vec<(u32, u32, u8)>,
    pub(super) gates: Vec<Gate>,
    pub(super) reads: Vec<Read>,
    /// By key, the included transactions that wrote it.
    pub(super) writers: Vec<Vec<u32>>,
    /// By key, the versions in their order, if they are lists.
    pub(super) trunks: Option<Vec<&'h [Value]>>,
    /// Values that were written more than once: not every dependency is known.
    pub(super) ambiguous: Option<String>,
    /// Some versions stand in no known order.
    pub(super) order_open: bool,
    pub(super) initial: Option<Value>,
    /// Transactions that only set up what was there before everything.
    pub(super) setup: FxHashSet<u32>,
    pub(super) notes: Vec<String>,
    /// (key, value) pairs whose reads prove nothing.
    pub(super) outside: FxHashSet<(u32, &'h Value)>,
    /// Who read a value from outside and wrote the key: the first one.
    pub(super) updated: FxHashMap<(u32, &'h Value), u32>,
    /// Edges that follow from what is assumed of keys: the key, and the version before the other.
    pub(super) versions: FxHashMap<(u32, u32, u8), Ordered<'h>>,
}

/// A key, a version of it, and a later one.
pub(super) type Ordered<'h> = (u32, &'h Value, &'h Value);

impl<'h> Facts<'h> {
    pub(super) fn new(history: &'h History, txns: Txns<'h>) -> Self {
        let included = txns.all.iter().map(|txn| txn.outcome == Outcome::Ok).collect();
        let writers = vec![Vec::new(); txns.keys.len()];
        Self {
            history,
            txns,
            included,
            anomalies: Vec::new(),
            edges: Vec::new(),
            gates: Vec::new(),
            reads: Vec::new(),
            writers,
            trunks: None,
            ambiguous: None,
            order_open: false,
            initial: None,
            setup: FxHashSet::default(),
            notes: history.notes().to_vec(),
            outside: FxHashSet::default(),
            updated: FxHashMap::default(),
            versions: FxHashMap::default(),
        }
    }

    pub(super) fn op(&self, txn: u32) -> u32 {
        self.txns.all[txn as usize].op
    }

    /// Keeps one example of each anomaly and counts the others.
    pub(super) fn anomaly(&mut self, level: Level, name: &str, message: String, txns: &[u32]) {
        if let Some((_, known)) = self.anomalies.iter_mut().find(|(_, a)| a.anomaly == name) {
            if known.details.len() < 8 {
                known.details.push(message);
            }
            return;
        }
        let ops: Vec<u32> = txns.iter().map(|&txn| self.op(txn)).collect();
        self.anomalies.push((level, Counterexample::new(name, message).about(ops)));
    }

    /// Two transactions saw the same version of a key, and both wrote it.
    pub(super) fn lost_update(&mut self, key: u32, first: u32, second: u32) {
        let message = format!(
            "both read the same version of key {} and wrote it: {} and {}",
            self.key(key),
            self.history.describe(self.op(first) as usize),
            self.history.describe(self.op(second) as usize),
        );
        self.anomaly(Level::SnapshotIsolation, "lost-update", message, &[first, second]);
    }

    pub(super) fn key(&self, key: u32) -> &'h Value {
        self.txns.keys[key as usize]
    }

    /// The committed and seen transactions of each process, in its order.
    pub(super) fn sessions(&self) -> Vec<Vec<u32>> {
        let mut places: FxHashMap<i64, usize> = FxHashMap::default();
        let mut sessions: Vec<Vec<u32>> = Vec::new();
        for (n, txn) in self.txns.all.iter().enumerate() {
            if !self.included[n] || self.setup.contains(&index(n)) {
                continue;
            }
            let place = *places.entry(txn.process).or_insert_with(|| {
                sessions.push(Vec::new());
                sessions.len() - 1
            });
            sessions[place].push(index(n));
        }
        sessions
    }

    /// The graph with the edges of `mask`.
    pub(super) fn graph(&self, mask: u8) -> Graph {
        let sessions = if mask & rel::PROCESS != 0 { self.sessions() } else { Vec::new() };
        let times = if mask & rel::REALTIME != 0 { self.times() } else { Vec::new() };
        Graph::filled(self.txns.all.len(), |graph| {
            for &(from, to, rel) in self.edges.iter().filter(|(_, _, rel)| rel & mask != 0) {
                graph.add(from, to, rel);
            }
            if mask & rel::RW != 0 {
                for gate in &self.gates {
                    add_gate(graph, gate);
                }
            }
            for pair in sessions.iter().flat_map(|session| session.windows(2)) {
                graph.add(pair[0], pair[1], rel::PROCESS);
            }
            add_real_time(graph, &times);
        })
    }

    /// Invocations and completions in their order: (position, is it the completion?, transaction).
    fn times(&self) -> Vec<(u32, bool, u32)> {
        let mut events = Vec::with_capacity(self.txns.all.len() * 2);
        for (n, txn) in self.txns.all.iter().enumerate() {
            if self.included[n] {
                events.push((txn.begin, false, index(n)));
                if txn.end != u32::MAX {
                    events.push((txn.end, true, index(n)));
                }
            }
        }
        events.sort_unstable();
        events
    }
}

/// Real-time order in linear size: a chain of helpers, one for each run of completions. Who
/// completes points into the chain, who is invoked is pointed to from its end.
fn add_real_time(graph: &mut Graph, times: &[(u32, bool, u32)]) {
    let (mut last, mut fresh) = (None, false);
    for &(_, end, txn) in times {
        if !end {
            if let Some(helper) = last {
                graph.add(helper, txn, rel::REALTIME);
            }
            fresh = false;
            continue;
        }
        if !fresh {
            let helper = graph.helper();
            if let Some(before) = last {
                graph.add(before, helper, rel::REALTIME);
            }
            last = Some(helper);
            fresh = true;
        }
        if let Some(helper) = last {
            graph.add(txn, helper, rel::REALTIME);
        }
    }
}

/// All pairs if they are few; otherwise two chains of helpers, so that a transaction that both
/// reads and writes is never put before itself.
fn add_gate(graph: &mut Graph, gate: &Gate) {
    let (readers, writers) = (gate.readers.len(), gate.writers.len());
    if readers * writers <= 4 * (readers + writers) + 64 {
        for &reader in &gate.readers {
            for &writer in &gate.writers {
                graph.add(reader, writer, rel::RW);
            }
        }
        return;
    }
    let up: Vec<u32> = gate.writers.iter().map(|_| graph.helper()).collect();
    let down: Vec<u32> = gate.writers.iter().map(|_| graph.helper()).collect();
    for (n, &writer) in gate.writers.iter().enumerate() {
        graph.add(up[n], writer, rel::PASS);
        graph.add(down[n], writer, rel::PASS);
        if n > 0 {
            graph.add(up[n], up[n - 1], rel::PASS);
            graph.add(down[n - 1], down[n], rel::PASS);
        }
    }
    let places: FxHashMap<u32, usize> =
        gate.writers.iter().enumerate().map(|(n, &writer)| (writer, n)).collect();
    for &reader in &gate.readers {
        match places.get(&reader) {
            None => graph.add(reader, down[0], rel::RW),
            Some(&n) => {
                if n > 0 {
                    graph.add(reader, up[n - 1], rel::RW);
                }
                if n + 1 < writers {
                    graph.add(reader, down[n + 1], rel::RW);
                }
            }
        }
    }
}
