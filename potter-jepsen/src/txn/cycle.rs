//! Cycles: which classes exist, and a short one of each.
//!
//! A walk remembers whether its last edge was an `rw`. In the graph of (transaction, was it rw?),
//! where an `rw` may not follow an `rw`, the cycles are exactly those that snapshot isolation
//! forbids (Cerone & Gotsman). So existence is a matter of components, in linear time, and a short
//! example a breadth-first search; no time-out is needed for either.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::graph::{Graph, rel};
use super::scc::{Components, Successors, components};
use crate::budget::Meter;

/// The edges of `mask` only.
pub(super) struct Masked<'g> {
    pub(super) graph: &'g Graph,
    pub(super) mask: u8,
}

impl Successors for Masked<'_> {
    fn nodes(&self) -> usize {
        self.graph.nodes()
    }

    fn nth(&self, node: u32, n: u32) -> Option<Option<u32>> {
        let range = self.graph.range(node);
        let at = range.start + n as usize;
        (at < range.end).then(|| {
            let (to, rel) = self.graph.edge(at);
            (rel & (self.mask | rel::PASS) != 0).then_some(to)
        })
    }
}

/// (transaction, was the last edge rw?) as node `2 * transaction + rw`; no rw after rw.
pub(super) struct NonAdjacent<'g> {
    pub(super) graph: &'g Graph,
    pub(super) mask: u8,
}

impl NonAdjacent<'_> {
    fn step(node: u32, to: u32, rel: u8) -> Option<u32> {
        match rel {
            rel::RW if node % 2 == 1 => None,
            rel::RW => Some(2 * to + 1),
            rel::PASS => Some(2 * to + node % 2),
            _ => Some(2 * to),
        }
    }
}

impl Successors for NonAdjacent<'_> {
    fn nodes(&self) -> usize {
        2 * self.graph.nodes()
    }

    fn nth(&self, node: u32, n: u32) -> Option<Option<u32>> {
        let range = self.graph.range(node / 2);
        let at = range.start + n as usize;
        (at < range.end).then(|| {
            let (to, rel) = self.graph.edge(at);
            if rel & (self.mask | rel::PASS) == 0 { None } else { Self::step(node, to, rel) }
        })
    }
}

/// Adya's classes, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    G0,
    G1c,
    GSingle,
    GNonadjacent,
    G2Item,
}

impl Class {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::G0 => "G0",
            Self::G1c => "G1c",
            Self::GSingle => "G-single",
            Self::GNonadjacent => "G-nonadjacent",
            Self::G2Item => "G2-item",
        }
    }

    /// The class of a cycle, given by its relations in order.
    pub(super) fn of(cycle: &[(u32, u32, u8)]) -> Self {
        let rws = cycle.iter().filter(|edge| edge.2 == rel::RW).count();
        let adjacent = (0..cycle.len()).any(|n| {
            cycle[n].2 == rel::RW && cycle[(n + 1) % cycle.len()].2 == rel::RW && cycle.len() > 1
        });
        match rws {
            0 if cycle.iter().any(|edge| edge.2 == rel::WR) => Self::G1c,
            0 => Self::G0,
            1 => Self::GSingle,
            _ if adjacent => Self::G2Item,
            _ => Self::GNonadjacent,
        }
    }
}

/// How many edges a search for a short example starts from, at most.
const TRIES: usize = 200;

/// The cycles of a graph.
pub(super) struct Cycles<'g> {
    pub(super) graph: &'g Graph,
    /// Relations beside ww, wr and rw that may be part of a cycle.
    pub(super) extra: u8,
}

/// A cycle of transactions, helpers left out: (from, to, relation).
pub(super) type Cycle = Vec<(u32, u32, u8)>;

impl Cycles<'_> {
    pub(super) fn components(&self, mask: u8) -> Components {
        components(&Masked { graph: self.graph, mask: mask | self.extra })
    }

    pub(super) fn nonadjacent(&self) -> Components {
        let mask = rel::WW | rel::WR | rel::RW | self.extra;
        components(&NonAdjacent { graph: self.graph, mask })
    }

    /// A short cycle of `class`, or one of a weaker class if that is what turns up.
    pub(super) fn find(&self, class: Class, meter: &mut Meter) -> Option<Cycle> {
        let base = self.extra;
        let (start, mask) = match class {
            Class::G0 => (rel::WW | base, rel::WW | base),
            Class::G1c => (rel::WR, rel::WW | rel::WR | base),
            Class::GSingle => (rel::RW, rel::WW | rel::WR | base),
            _ => (rel::RW, rel::WW | rel::WR | rel::RW | base),
        };
        let parts = match class {
            Class::GSingle => self.components(rel::WW | rel::WR | rel::RW),
            Class::GNonadjacent => self.nonadjacent(),
            _ => self.components(mask),
        };
        if parts.acyclic() {
            return None;
        }
        let mut best: Option<Cycle> = None;
        let mut tries = 0;
        for node in 0..crate::index(self.graph.txns) {
            for (to, rel) in self.graph.out(node) {
                let starts = rel & start != 0
                    && match class {
                        Class::GNonadjacent => parts.together(2 * node, 2 * to + 1),
                        _ => parts.together(node, to),
                    };
                if !starts {
                    continue;
                }
                tries += 1;
                let found = match class {
                    Class::G2Item => self.adjacent(node, to, mask, &parts, meter),
                    _ => self.close(node, to, rel, mask, class, &parts, meter),
                };
                let shorter = |cycle: &Cycle| best.as_ref().is_none_or(|b| cycle.len() < b.len());
                if let Some(cycle) = found.filter(shorter) {
                    best = Some(cycle);
                }
                let enough = best.as_ref().is_some_and(|best| best.len() <= 2);
                // A G-single may have to be looked for; the other classes are found at once.
                let limit = if best.is_none() { TRIES * 20 } else { TRIES };
                if enough || tries > limit || meter.check().is_err() {
                    return best;
                }
            }
        }
        best
    }

    /// A way back from `to` to `from`, which closes the cycle that begins with `from → to`.
    #[expect(clippy::too_many_arguments, reason = "one search, all of it is needed")]
    fn close(
        &self,
        from: u32,
        to: u32,
        first: u8,
        mask: u8,
        class: Class,
        parts: &Components,
        meter: &mut Meter,
    ) -> Option<Cycle> {
        let phased = class == Class::GNonadjacent;
        let start = if phased { 2 * to + 1 } else { 2 * to };
        let inside = |state: u32| match phased {
            true => parts.together(2 * from, state),
            false => parts.together(from, state / 2),
        };
        let path = self.search(start, 2 * from, mask, phased, inside, meter)?;
        let mut edges = vec![(from, to, first)];
        edges.extend(path);
        let cycle = self.without_helpers(&edges);
        if phased { simple(cycle) } else { Some(cycle) }
    }

    /// Two rw edges in a row and a way back.
    fn adjacent(
        &self,
        from: u32,
        to: u32,
        mask: u8,
        parts: &Components,
        meter: &mut Meter,
    ) -> Option<Cycle> {
        let reach = self.pass(to);
        for (middle, second) in reach.iter().flat_map(|&m| self.graph.out(m).map(move |e| (m, e))) {
            let (next, rel) = second;
            if rel != rel::RW || !parts.together(from, next) || self.graph.is_helper(middle) {
                continue;
            }
            let mut edges = vec![(from, to, rel::RW)];
            if middle != to {
                edges.push((to, middle, rel::PASS));
            }
            edges.push((middle, next, rel::RW));
            if next != from {
                let inside = |state: u32| parts.together(from, state / 2);
                let Some(path) = self.search(2 * next, 2 * from, mask, false, inside, meter) else {
                    continue;
                };
                edges.extend(path);
            }
            let cycle = self.without_helpers(&edges);
            if cycle.len() > 1 {
                return Some(cycle);
            }
        }
        None
    }

    /// `node` and, if it is a helper, what it stands for (some of it).
    fn pass(&self, node: u32) -> Vec<u32> {
        let mut out = vec![node];
        let mut at = 0;
        while at < out.len() && out.len() < 256 {
            if self.graph.is_helper(out[at]) {
                let next = self.graph.out(out[at]).filter(|(_, rel)| *rel == rel::PASS);
                out.extend(next.map(|(to, _)| to));
            }
            at += 1;
        }
        out
    }

    /// Breadth first; edges between helpers cost nothing.
    fn search(
        &self,
        start: u32,
        goal: u32,
        mask: u8,
        phased: bool,
        inside: impl Fn(u32) -> bool,
        meter: &mut Meter,
    ) -> Option<Vec<(u32, u32, u8)>> {
        let mut before: FxHashMap<u32, (u32, u8)> = FxHashMap::default();
        let mut queue = VecDeque::from([start]);
        before.insert(start, (start, 0));
        while let Some(state) = queue.pop_front() {
            meter.tick().ok()?;
            if state == goal {
                return Some(backtrack(&before, start, goal));
            }
            for (to, rel) in self.graph.out(state / 2) {
                if rel & (mask | rel::PASS) == 0 {
                    continue;
                }
                let next = if phased { NonAdjacent::step(state, to, rel) } else { Some(2 * to) };
                let Some(next) = next.filter(|&next| inside(next)) else { continue };
                if before.contains_key(&next) {
                    continue;
                }
                before.insert(next, (state, rel));
                if self.graph.is_helper(to) {
                    queue.push_front(next);
                } else {
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// Edges through helpers become one edge with the relation they began with.
    fn without_helpers(&self, edges: &[(u32, u32, u8)]) -> Cycle {
        let mut out: Cycle = Vec::new();
        for &(from, to, rel) in edges {
            match out.last_mut() {
                Some(last) if self.graph.is_helper(from) => last.1 = to,
                _ => out.push((from, to, rel)),
            }
        }
        out
    }
}

fn backtrack(before: &FxHashMap<u32, (u32, u8)>, start: u32, goal: u32) -> Vec<(u32, u32, u8)> {
    let mut path = Vec::new();
    let mut at = goal;
    while at != start {
        let (from, rel) = before[&at];
        path.push((from / 2, at / 2, rel));
        at = from;
    }
    path.reverse();
    path
}

/// A closed walk that meets a transaction twice is cut there; of the two cycles that this makes
/// one again has no two rw in a row.
fn simple(mut cycle: Cycle) -> Option<Cycle> {
    loop {
        let mut first: FxHashMap<u32, usize> = FxHashMap::default();
        let mut cut = None;
        for (at, edge) in cycle.iter().enumerate() {
            if let Some(&start) = first.get(&edge.0) {
                cut = Some((start, at));
                break;
            }
            first.insert(edge.0, at);
        }
        let Some((start, stop)) = cut else { return Some(cycle) };
        let inner: Cycle = cycle[start..stop].to_vec();
        let outer: Cycle = cycle[..start].iter().chain(&cycle[stop..]).copied().collect();
        let fits = |cycle: &Cycle| Class::of(cycle) != Class::G2Item && !cycle.is_empty();
        cycle = if fits(&inner) { inner } else { outer };
        if !fits(&cycle) {
            return None;
        }
    }
}
