//! Registers whose version order is unknown: for every two writers of a key one came first, and all
//! readers of the first one's value came before the second (a polygraph; Papadimitriou, 1979).
//!
//! Choices that would close a cycle are excluded, which forces others, until nothing more follows;
//! what is left open is tried. With every transaction split in two, "was the last edge an rw?", the
//! same search decides snapshot isolation (as PolySI does with a solver).

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::cycle::Cycle;
use super::edges::Facts;
use super::graph::{Graph, rel};
use crate::budget::Meter;
use crate::index;
use crate::verdict::{Reason, ReasonKind};

/// Which cycles count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All of them.
    Serial,
    /// Those without two rw edges in a row.
    Snapshot,
}

pub(super) enum Solved {
    /// An order that explains everything; serial for [`Kind::Serial`].
    Order(Vec<u32>),
    /// A cycle that no choice avoids; empty if it took several choices to see it.
    Cycle(Cycle, Vec<String>),
}

/// Reachability as a bit matrix.
#[derive(Clone)]
struct Reach {
    words: usize,
    rows: Vec<u64>,
}

impl Reach {
    fn get(&self, from: u32, to: u32) -> bool {
        self.rows[from as usize * self.words + to as usize / 64] >> (to % 64) & 1 == 1
    }

    /// Adds an edge; false if it closes a cycle.
    fn add(&mut self, from: u32, to: u32) -> bool {
        if from == to || self.get(to, from) {
            return false;
        }
        if self.get(from, to) {
            return true;
        }
        let words = self.words;
        let mut gained = self.rows[to as usize * words..(to as usize + 1) * words].to_vec();
        gained[to as usize / 64] |= 1 << (to % 64);
        let nodes = index(self.rows.len() / words.max(1));
        for node in 0..nodes {
            if node == from || self.get(node, from) {
                let row = &mut self.rows[node as usize * words..(node as usize + 1) * words];
                for (word, more) in row.iter_mut().zip(&gained) {
                    *word |= more;
                }
            }
        }
        true
    }
}

/// One of two writers of a key came first.
#[derive(Clone, Copy)]
struct Choice {
    key: u32,
    a: u32,
    b: u32,
}

struct Solver<'f, 'h> {
    facts: &'f Facts<'h>,
    kind: Kind,
    readers: FxHashMap<(u32, u32), Vec<u32>>,
    /// Edges by where they begin, for the words of a counterexample: (to, relation).
    known: Vec<Vec<(u32, u8)>>,
    meter: Meter,
}

/// What to go back to, and the choice to turn round then.
type Undo = (Reach, Vec<Choice>, Choice);

pub(super) fn solve(
    facts: &Facts<'_>,
    graph: &Graph,
    kind: Kind,
    meter: &mut Meter,
) -> Result<Solved, Reason> {
    let split = if kind == Kind::Snapshot { 2 } else { 1 };
    let nodes = graph.nodes() * split;
    let words = nodes.div_ceil(64);
    let bytes = nodes.saturating_mul(words).saturating_mul(8);
    let pairs: usize = facts.writers.iter().map(|w| w.len() * w.len() / 2).sum();
    meter.grow(bytes.saturating_add(pairs.saturating_mul(12)));
    let granted = meter.check();
    let too_large = nodes > 60_000 || pairs > 20_000_000;
    if granted.is_err() || too_large {
        meter.shrink(bytes.saturating_add(pairs.saturating_mul(12)));
        granted?;
        let message = format!(
            "{} transactions are too many to try all version orders of registers",
            facts.txns.all.len()
        );
        return Err(Reason::new(ReasonKind::MemoryLimit, message));
    }
    let mut solver = Solver {
        facts,
        kind,
        readers: FxHashMap::default(),
        known: vec![Vec::new(); graph.nodes()],
        meter: meter.clone(),
    };
    for read in &facts.reads {
        let readers = solver.readers.entry((read.key, read.from)).or_default();
        if readers.last() != Some(&read.txn) {
            readers.push(read.txn);
        }
    }
    let answer = solver.run(graph, Reach { words, rows: vec![0; nodes * words] });
    meter.shrink(bytes.saturating_add(pairs.saturating_mul(12)));
    answer
}

impl Solver<'_, '_> {
    /// The edges of the split graph that one edge stands for.
    fn split(&self, from: u32, to: u32, relation: u8) -> [(u32, u32); 2] {
        match (self.kind, relation) {
            (Kind::Serial, _) => [(from, to); 2],
            (Kind::Snapshot, rel::RW) => [(2 * from, 2 * to + 1); 2],
            (Kind::Snapshot, rel::PASS) => [(2 * from, 2 * to), (2 * from + 1, 2 * to + 1)],
            (Kind::Snapshot, _) => [(2 * from, 2 * to), (2 * from + 1, 2 * to)],
        }
    }

    /// In the serial graph every walk counts; in the split one a walk begins at either half.
    fn closes(&self, reach: &Reach, from: u32, to: u32, relation: u8) -> bool {
        self.split(from, to, relation).iter().any(|&(a, b)| a == b || reach.get(b, a))
    }

    fn insert(&mut self, reach: &mut Reach, from: u32, to: u32, relation: u8) -> bool {
        self.known[from as usize].push((to, relation));
        self.split(from, to, relation).iter().all(|&(a, b)| reach.add(a, b))
    }

    /// What `first` before `second` means: (from, to, relation).
    fn consequences(&self, key: u32, first: u32, second: u32) -> Vec<(u32, u32, u8)> {
        let mut edges = vec![(first, second, rel::WW)];
        let readers = self.readers.get(&(key, first)).into_iter().flatten();
        edges.extend(readers.filter(|&&r| r != second).map(|&r| (r, second, rel::RW)));
        edges
    }

    fn run(&mut self, graph: &Graph, mut reach: Reach) -> Result<Solved, Reason> {
        for node in 0..index(graph.nodes()) {
            for (to, relation) in graph.out(node) {
                self.meter.tick()?;
                if !self.insert(&mut reach, node, to, relation) {
                    let cycle = self.cycle(node, to, relation);
                    return Ok(Solved::Cycle(cycle, Vec::new()));
                }
            }
        }
        let mut open = Vec::new();
        for (key, writers) in (0_u32..).zip(&self.facts.writers) {
            for (n, &a) in writers.iter().enumerate() {
                open.extend(writers[n + 1..].iter().map(|&b| Choice { key, a, b }));
            }
        }
        let mut undo: Vec<Undo> = Vec::new();
        let mut conflict = false;
        loop {
            if !conflict {
                match self.propagate(&mut reach, &mut open)? {
                    Some(found) if undo.is_empty() => return Ok(found),
                    found => conflict = found.is_some(),
                }
            }
            if conflict {
                let Some((before, left, Choice { key, a, b })) = undo.pop() else {
                    let why = vec!["every order of the writes leads to a cycle".to_owned()];
                    return Ok(Solved::Cycle(Vec::new(), why));
                };
                self.meter.check()?;
                (reach, open) = (before, left);
                conflict = !self.force(&mut reach, key, b, a);
                continue;
            }
            let Some(choice) = open.pop() else {
                return Ok(Solved::Order(self.order(&reach)));
            };
            self.meter.grow(reach.rows.len() * 8);
            self.meter.check()?;
            undo.push((reach.clone(), open.clone(), choice));
            let Choice { key, a, b } = choice;
            conflict = !self.force(&mut reach, key, a, b);
        }
    }

    fn force(&mut self, reach: &mut Reach, key: u32, first: u32, second: u32) -> bool {
        let edges = self.consequences(key, first, second);
        edges.into_iter().all(|(from, to, relation)| self.insert(reach, from, to, relation))
    }

    /// Follows what is forced until nothing more is; a contradiction if there is one.
    fn propagate(
        &mut self,
        reach: &mut Reach,
        open: &mut Vec<Choice>,
    ) -> Result<Option<Solved>, Reason> {
        loop {
            let mut changed = false;
            let mut left = Vec::with_capacity(open.len());
            for choice in std::mem::take(open) {
                self.meter.tick()?;
                let Choice { key, a, b } = choice;
                let (ab, ba) = (self.consequences(key, a, b), self.consequences(key, b, a));
                let bad = |edges: &[(u32, u32, u8)]| {
                    edges.iter().copied().find(|&(f, t, r)| self.closes(reach, f, t, r))
                };
                let next = match (bad(&ab), bad(&ba)) {
                    (Some(x), Some(y)) => {
                        let cycle = self.cycle(x.0, x.1, x.2);
                        let other = self.cycle(y.0, y.1, y.2);
                        return Ok(Some(Solved::Cycle(cycle, self.two_ways(choice, &other))));
                    }
                    (Some(_), None) => ba,
                    (None, Some(_)) => ab,
                    (None, None) => {
                        left.push(choice);
                        continue;
                    }
                };
                changed = true;
                for (from, to, relation) in next {
                    if !self.insert(reach, from, to, relation) {
                        let cycle = self.cycle(from, to, relation);
                        return Ok(Some(Solved::Cycle(cycle, Vec::new())));
                    }
                }
            }
            *open = left;
            if !changed {
                return Ok(None);
            }
        }
    }

    fn two_ways(&self, choice: Choice, other: &Cycle) -> Vec<String> {
        let name = |n: u32| self.facts.history.describe(self.facts.op(n) as usize);
        let mut why = vec![format!(
            "of the writes of key {} by {} and {} one must have been first; each way round there \
             is a cycle. The other way round it runs through:",
            self.facts.key(choice.key),
            name(choice.a),
            name(choice.b),
        )];
        why.extend(other.iter().map(|edge| format!("  {}", name(edge.0))));
        why
    }

    /// A shortest cycle through an edge that closes one.
    fn cycle(&self, from: u32, to: u32, relation: u8) -> Cycle {
        let txns = self.facts.txns.all.len();
        for (goal, start) in self.split(from, to, relation) {
            let mut before: FxHashMap<u32, (u32, u8)> = FxHashMap::default();
            let mut queue = VecDeque::from([start]);
            before.insert(start, (start, 0));
            while let Some(state) = queue.pop_front() {
                if state == goal {
                    break;
                }
                let node = if self.kind == Kind::Snapshot { state / 2 } else { state };
                for &(next, relation) in &self.known[node as usize] {
                    for (a, b) in self.split(node, next, relation) {
                        if a == state && !before.contains_key(&b) {
                            before.insert(b, (state, relation));
                            queue.push_back(b);
                        }
                    }
                }
            }
            if !before.contains_key(&goal) {
                continue;
            }
            let mut path = Vec::new();
            let mut at = goal;
            let whole = |state: u32| if self.kind == Kind::Snapshot { state / 2 } else { state };
            while at != start {
                let (back, relation) = before[&at];
                path.push((whole(back), whole(at), relation));
                at = back;
            }
            path.push((from, to, relation));
            path.reverse();
            // Helpers out: the edge goes on with the relation it began with.
            let mut out: Cycle = Vec::new();
            for edge in path {
                match out.last_mut() {
                    Some(last) if edge.0 as usize >= txns => last.1 = edge.1,
                    _ => out.push(edge),
                }
            }
            return out;
        }
        Vec::new()
    }

    fn order(&self, reach: &Reach) -> Vec<u32> {
        if self.kind == Kind::Snapshot {
            return Vec::new();
        }
        let reached = |node: u32| {
            let row = &reach.rows[node as usize * reach.words..(node as usize + 1) * reach.words];
            row.iter().map(|word| word.count_ones()).sum::<u32>()
        };
        let mut order: Vec<u32> = (0..index(self.facts.txns.all.len()))
            .filter(|&n| self.facts.included[n as usize])
            .collect();
        // Who reaches more comes earlier: what a node reaches is a proper subset of its own.
        order.sort_by_key(|&n| std::cmp::Reverse(reached(n)));
        order
    }
}
