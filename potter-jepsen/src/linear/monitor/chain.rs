//! Registers and texts where every operation that changes the value leaves a value behind that
//! nothing else does: writes of different values, compare-and-sets to different values, appends of
//! different pieces.
//!
//! A compare-and-set or an append that somebody saw stands directly behind the value that it changed,
//! with only reads of that value between. So values form chains: each begins with a write (or with
//! the value before everything), and all its operations stand together in every order. A chain is
//! possible if no operation of it was over before an earlier one began; chains among each other
//! follow the rules of registers with different writes (see [`super::register`]), a chain being the
//! cluster.

use rustc_hash::FxHashMap;

use super::super::model::Role;
use super::super::problem::{Problem, index};
use super::super::{Outcome, Stuck};
use super::{Cluster, register};
use crate::value::Value;

/// The value before everything.
const ROOT: usize = 0;

/// A value that was there at some time, and after which one.
#[derive(Debug, Default)]
struct Node {
    /// What made it; none for the value before everything.
    made: Option<u32>,
    /// The value that it was made from; none if a write made it.
    from: Option<usize>,
    /// The value that was made from it by a compare-and-set or an append.
    next: Option<usize>,
    reads: Vec<u32>,
}

struct Chains<'p, O> {
    problem: &'p Problem<O>,
    nodes: Vec<Node>,
    /// Operation → the node that it made.
    made: FxHashMap<u32, usize>,
}

fn stuck(at: u32, core: Vec<u32>, why: &str) -> Outcome {
    Outcome::Stuck(Stuck { at, core, why: vec![why.to_owned()], ..Stuck::default() })
}

impl<O> Chains<'_, O> {
    /// The node that `n` makes of `from`; the error is a contradiction.
    fn make(&mut self, n: u32, from: Option<usize>, seen: u32) -> Result<usize, Outcome> {
        if let Some(&node) = self.made.get(&n) {
            if self.nodes[node].from == from {
                return Ok(node);
            }
            let mut core = self.proof(node);
            core.extend(from.map(|from| self.proof(from)).unwrap_or_default());
            core.extend([n, seen]);
            return Err(stuck(seen, core, "one operation was seen at two places"));
        }
        let node = self.nodes.len();
        if let Some(from) = from
            && let Some(other) = self.nodes[from].next.replace(node)
        {
            let mut core = self.proof(other);
            core.extend([n, seen]);
            return Err(stuck(seen, core, "two operations changed the same value"));
        }
        self.made.insert(n, node);
        self.nodes.push(Node { made: Some(n), from, ..Node::default() });
        Ok(node)
    }

    /// What shows that `node` came about as it did: its makers, and a read of it or of what followed.
    fn proof(&self, node: usize) -> Vec<u32> {
        let back = std::iter::successors(Some(node), |&n| self.nodes[n].from);
        let mut proof: Vec<u32> = back.filter_map(|n| self.nodes[n].made).collect();
        for n in std::iter::successors(Some(node), |&n| self.nodes[n].next) {
            proof.extend(self.nodes[n].made);
            if let Some(&read) = self.nodes[n].reads.first() {
                proof.push(read);
                break;
            }
        }
        proof
    }

    /// The operations from `first` on, and whether one was over before an earlier one began.
    fn cluster(&self, first: usize) -> Result<Cluster, Outcome> {
        let mut cluster = Cluster { initial: first == ROOT, ..Cluster::default() };
        let mut all = Vec::new();
        // The latest to begin so far.
        let mut latest: Option<(u32, usize)> = None;
        for node in std::iter::successors(Some(first), |&n| self.nodes[n].next) {
            let Node { made, reads, .. } = &self.nodes[node];
            // Reads of one value can stand in any order, but none before the value was made.
            for (group, here) in [(made.as_slice(), node), (reads.as_slice(), node)] {
                for &n in group {
                    let end = self.problem.ops[n as usize].end;
                    if let Some((late, from)) = latest
                        && end < self.problem.ops[late as usize].begin
                    {
                        let mut core = self.proof(from);
                        core.extend(self.proof(here));
                        core.extend([n, late]);
                        let why = "it was over before something began that must come first";
                        return Err(stuck(n, core, why));
                    }
                }
                for &n in group {
                    let begin = |n: u32| self.problem.ops[n as usize].begin;
                    if latest.is_none_or(|(late, _)| begin(n) > begin(late)) {
                        latest = Some((n, here));
                    }
                }
                all.extend_from_slice(group);
            }
        }
        match first {
            ROOT => cluster.seen = all,
            _ => {
                cluster.put = all.first().copied();
                cluster.seen = all.split_off(1.min(all.len()));
            }
        }
        Ok(cluster)
    }

    /// The answer, once all reads have their nodes. `others` are the completed operations that
    /// change the value and that nobody saw.
    fn decide(&self, others: impl Iterator<Item = u32>) -> Outcome {
        let mut clusters = Vec::new();
        for first in (0..self.nodes.len()).filter(|&n| self.nodes[n].from.is_none()) {
            match self.cluster(first) {
                Ok(cluster) => clusters.push(cluster),
                Err(outcome) => return outcome,
            }
        }
        let alone = |n| Cluster { put: Some(n), ..Cluster::default() };
        clusters.extend(others.map(alone));
        clusters.retain(|cluster| cluster.put.is_some() || !cluster.seen.is_empty());
        let mut outcome = register::decide(self.problem, &clusters);
        if let Outcome::Stuck(stuck) = &mut outcome {
            let more = stuck.core.iter().filter_map(|n| self.node_of(*n)).map(|n| self.proof(n));
            let more: Vec<u32> = more.flatten().collect();
            stuck.core.extend(more);
        }
        outcome
    }

    fn node_of(&self, n: u32) -> Option<usize> {
        let read = || self.nodes.iter().position(|node| node.reads.contains(&n));
        self.made.get(&n).copied().or_else(read)
    }
}

/// Texts that are written, appended to and read; `None` if pieces are not unique, or some text can
/// be put together in two ways.
pub(super) fn texts<O>(problem: &Problem<O>, roles: &[Role]) -> Option<Outcome> {
    // Piece → (its operation, does it overwrite?)
    let mut pieces: FxHashMap<&[u8], (u32, bool)> = FxHashMap::default();
    let mut reads: Vec<Vec<u32>> = vec![Vec::new(); roles.len()];
    for (n, op) in (0..).zip(&problem.ops) {
        let (text, puts) = match &roles[op.kind as usize] {
            Role::Write(text) => (text, true),
            Role::Append(text) => (text, false),
            Role::Read(_) => {
                reads[op.kind as usize].push(n);
                continue;
            }
            _ => return None,
        };
        let Value::Str(text) = text else { return None };
        if text.is_empty() || pieces.insert(text.as_bytes(), (n, puts)).is_some() {
            return None;
        }
    }
    let mut lengths: Vec<usize> = pieces.keys().map(|piece| piece.len()).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let mut chains = Chains { problem, nodes: vec![Node::default()], made: FxHashMap::default() };
    for (role, reads) in roles.iter().zip(&reads) {
        let Some(&seen) = reads.first() else { continue };
        let Role::Read(Value::Str(text)) = role else { return None };
        let parts = match split(text.as_bytes(), &pieces, &lengths) {
            Split::One(parts) => parts,
            Split::Many => return None,
            Split::None => {
                // Only pieces that occur in the text could have made it.
                let part = |piece: &[u8]| {
                    std::str::from_utf8(piece).is_ok_and(|piece| text.contains(piece))
                };
                let mut core: Vec<u32> =
                    pieces.iter().filter(|(piece, _)| part(piece)).map(|(_, &(n, _))| n).collect();
                core.sort_unstable();
                core.push(seen);
                return Some(stuck(seen, core, "what was written does not make what was read"));
            }
        };
        let mut node = ROOT;
        for part in &parts {
            let (n, puts) = pieces[part];
            match chains.make(n, (!puts).then_some(node), seen) {
                Ok(next) => node = next,
                Err(mut outcome) => {
                    if let Outcome::Stuck(stuck) = &mut outcome {
                        stuck.core.extend(parts.iter().map(|part| pieces[part].0));
                    }
                    return Some(outcome);
                }
            }
        }
        chains.nodes[node].reads.extend_from_slice(reads);
    }
    let unseen = |&n: &u32| {
        let op = &problem.ops[n as usize];
        let changes = !matches!(roles[op.kind as usize], Role::Read(_));
        changes && !op.crashed() && !chains.made.contains_key(&n)
    };
    Some(chains.decide((0..index(problem.ops.len())).filter(unseen)))
}

enum Split<'t> {
    One(Vec<&'t [u8]>),
    Many,
    None,
}

/// `text` as one written piece, or none, and then appended ones.
fn split<'t>(
    text: &'t [u8],
    pieces: &FxHashMap<&[u8], (u32, bool)>,
    lengths: &[usize],
) -> Split<'t> {
    // Position → in how many ways it can be reached (two stand for more), and the last piece of one.
    let mut ways = vec![(0_u8, 0_usize); text.len() + 1];
    ways[0].0 = 1;
    for at in 0..text.len() {
        if ways[at].0 == 0 {
            continue;
        }
        for &length in lengths.iter().take_while(|&&length| at + length <= text.len()) {
            let fits =
                pieces.get(&text[at..at + length]).is_some_and(|&(_, puts)| !puts || at == 0);
            if fits {
                let way = &mut ways[at + length];
                *way = (2.min(way.0 + 1), length);
            }
        }
    }
    let (mut parts, mut at) = (Vec::new(), text.len());
    match ways[at].0 {
        0 => return Split::None,
        1 => {}
        _ => return Split::Many,
    }
    while at > 0 {
        // A way that is the only one has no part that could be made in two ways.
        let (count, length) = ways[at];
        if count > 1 {
            return Split::Many;
        }
        parts.push(&text[at - length..at]);
        at -= length;
    }
    parts.reverse();
    Split::One(parts)
}

/// Registers that are written, compared-and-set and read; `None` if two operations leave the same
/// value, or one leaves the value before everything.
pub(super) fn registers<O>(
    problem: &Problem<O>,
    roles: &[Role],
    initial: impl Fn(u32) -> bool,
) -> Option<Outcome> {
    // Value → what leaves it; and what is read.
    let mut makers: FxHashMap<&Value, u32> = FxHashMap::default();
    let mut reads: Vec<Vec<u32>> = vec![Vec::new(); roles.len()];
    for (n, op) in (0..).zip(&problem.ops) {
        let value = match &roles[op.kind as usize] {
            Role::Write(value) | Role::Cas(_, value) => value,
            Role::Read(_) => {
                reads[op.kind as usize].push(n);
                continue;
            }
            _ => return None,
        };
        if makers.insert(value, n).is_some() {
            return None;
        }
    }
    let kinds = (0..).zip(roles);
    let first = kinds.clone().find_map(|(kind, role)| match role {
        Role::Read(value) if initial(kind) => Some(value),
        _ => None,
    });
    // Without a read of it the value before everything is not known by its name.
    let first = first?;
    if makers.contains_key(first) {
        return None;
    }
    let mut chains = Chains { problem, nodes: vec![Node::default()], made: FxHashMap::default() };
    let mut places: FxHashMap<&Value, usize> = FxHashMap::default();
    places.insert(first, ROOT);
    // Every value that was certainly there: it was read, or changed by what completed.
    let mut wanted: Vec<(&Value, u32)> = Vec::new();
    for (role, reads) in roles.iter().zip(&reads) {
        if let (Role::Read(value), Some(&seen)) = (role, reads.first()) {
            wanted.push((value, seen));
        }
    }
    for (n, op) in (0..).zip(&problem.ops) {
        match &roles[op.kind as usize] {
            Role::Cas(_, to) if !op.crashed() => wanted.push((to, n)),
            _ => {}
        }
    }
    for (value, seen) in wanted {
        // Back to a value that is known, then forward again.
        let (mut way, mut at) = (Vec::new(), value);
        while !places.contains_key(at) {
            let Some(&n) = makers.get(at) else {
                let mut core: Vec<u32> = way.iter().map(|&(n, _)| n).collect();
                core.push(seen);
                return Some(stuck(seen, core, "nobody wrote the value"));
            };
            way.push((n, at));
            if way.len() > problem.ops.len() {
                let core = way.iter().map(|&(n, _)| n).collect();
                return Some(stuck(seen, core, "each needs the value of another one first"));
            }
            match &roles[problem.ops[n as usize].kind as usize] {
                Role::Cas(from, _) => at = from,
                _ => break,
            }
        }
        let mut node = places.get(at).copied();
        for (n, value) in way.into_iter().rev() {
            match chains.make(n, node, seen) {
                Ok(next) => {
                    places.insert(value, next);
                    node = Some(next);
                }
                Err(outcome) => return Some(outcome),
            }
        }
    }
    for (role, reads) in roles.iter().zip(&reads) {
        if let Role::Read(value) = role
            && let Some(&node) = places.get(value)
        {
            chains.nodes[node].reads.extend_from_slice(reads);
        }
    }
    let unseen = |&n: &u32| {
        let op = &problem.ops[n as usize];
        let writes = matches!(roles[op.kind as usize], Role::Write(_));
        writes && !op.crashed() && !chains.made.contains_key(&n)
    };
    Some(chains.decide((0..index(problem.ops.len())).filter(unseen)))
}
