//! Registers whose versions stand in an order because something is assumed of every single key:
//! that it is linearizable, or sequentially consistent, or that a transaction which reads a key and
//! writes it overwrites what it read. The assumptions are Elle's, under Elle's names.
//!
//! The order of the transactions that touch a key is then the order of what they saw and left there.
//! Every value was written once, so an order that comes back to a value is an anomaly by itself.

use rustc_hash::{FxHashMap, FxHashSet};

use super::edges::Facts;
use super::graph::rel;
use super::register::Writes;
use super::{Keys, Level, Options};
use crate::history::Outcome;
use crate::index;
use crate::value::Value;

/// What a transaction saw of a key, and what it left there, as numbers of versions.
struct Touch {
    txn: u32,
    read: Option<u32>,
    write: Option<u32>,
}

impl Touch {
    fn first(&self) -> Option<u32> {
        self.read.or(self.write)
    }

    fn last(&self) -> Option<u32> {
        self.write.or(self.read)
    }
}

/// The versions of one key, with who touched them.
#[derive(Default)]
struct Versions<'h> {
    values: Vec<&'h Value>,
    numbers: FxHashMap<&'h Value, u32>,
    touches: Vec<Touch>,
}

impl<'h> Versions<'h> {
    fn number(&mut self, value: &'h Value) -> u32 {
        *self.numbers.entry(value).or_insert_with(|| {
            self.values.push(value);
            index(self.values.len() - 1)
        })
    }
}

/// Adds the edges that follow from the order of versions, or the anomaly that there is none.
pub(super) fn order<'h>(facts: &mut Facts<'h>, writes: &Writes<'h>, options: &Options) {
    let keys = options.keys;
    if !(keys.linearizable || keys.sequential || keys.writes_follow_reads) {
        return;
    }
    let repeated: FxHashSet<u32> =
        writes.iter().filter(|(_, write)| write.twice).map(|((key, _), _)| *key).collect();
    for (key, versions) in (0_u32..).zip(touched(facts)) {
        // Where a value was written twice it says nothing about the order.
        if repeated.contains(&key) {
            continue;
        }
        let edges = version_edges(facts, &versions, keys);
        match circle(versions.values.len(), &edges) {
            Some(circle) => cyclic(facts, key, &versions, &circle),
            None => connect(facts, writes, key, &versions, &edges),
        }
    }
}

fn touched<'h>(facts: &Facts<'h>) -> Vec<Versions<'h>> {
    let mut all: Vec<Versions<'h>> = Vec::new();
    all.resize_with(facts.txns.keys.len(), Versions::default);
    for (n, txn) in facts.txns.all.iter().enumerate() {
        if !facts.included[n] || facts.setup.contains(&index(n)) {
            continue;
        }
        for micro in facts.txns.micros(n) {
            let versions = &mut all[micro.key as usize];
            if versions.touches.last().is_none_or(|touch| touch.txn != index(n)) {
                versions.touches.push(Touch { txn: index(n), read: None, write: None });
            }
            let version = versions.number(micro.value);
            let Some(touch) = versions.touches.last_mut() else { continue };
            if micro.write {
                touch.write = Some(version);
            } else if touch.write.is_none() && txn.outcome == Outcome::Ok {
                touch.read = touch.read.or(Some(version));
            }
        }
    }
    all
}

/// Which version came before which, sorted and without repetition.
fn version_edges(facts: &Facts<'_>, versions: &Versions<'_>, keys: Keys) -> Vec<(u32, u32)> {
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut add = |from: Option<u32>, to: Option<u32>| {
        if let (Some(from), Some(to)) = (from, to)
            && from != to
        {
            edges.push((from, to));
        }
    };
    if keys.writes_follow_reads {
        for touch in &versions.touches {
            add(touch.read, touch.write);
        }
    }
    if keys.sequential {
        let mut latest: FxHashMap<i64, Option<u32>> = FxHashMap::default();
        for touch in &versions.touches {
            let process = facts.txns.all[touch.txn as usize].process;
            let before = latest.insert(process, touch.last());
            add(before.flatten(), touch.first());
        }
    }
    if keys.linearizable {
        for (from, to) in in_real_time(facts, &versions.touches) {
            add(versions.touches[from].last(), versions.touches[to].first());
        }
    }
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// Pairs of touches of which the first had completed when the second began, without those that
/// follow from others.
fn in_real_time(facts: &Facts<'_>, touches: &[Touch]) -> Vec<(usize, usize)> {
    let mut events = Vec::with_capacity(touches.len() * 2);
    for (n, touch) in touches.iter().enumerate() {
        let txn = &facts.txns.all[touch.txn as usize];
        events.push((txn.begin, false, n));
        if txn.end != u32::MAX {
            events.push((txn.end, true, n));
        }
    }
    events.sort_unstable();
    let mut pairs = Vec::new();
    // Who has completed, with nobody completed who began after that.
    let mut front: Vec<usize> = Vec::new();
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); touches.len()];
    for (_, end, n) in events {
        if end {
            front.retain(|other| !before[n].contains(other));
            front.push(n);
        } else {
            pairs.extend(front.iter().map(|&other| (other, n)));
            before[n].clone_from(&front);
        }
    }
    pairs
}

/// Versions that come before themselves, in their order.
fn circle(versions: usize, edges: &[(u32, u32)]) -> Option<Vec<u32>> {
    let mut open = vec![0_usize; versions];
    for &(_, to) in edges {
        open[to as usize] += 1;
    }
    let out = |node: u32| {
        let start = edges.partition_point(|edge| edge.0 < node);
        edges[start..].iter().take_while(move |edge| edge.0 == node)
    };
    let mut ready: Vec<u32> = (0..index(versions)).filter(|&n| open[n as usize] == 0).collect();
    while let Some(node) = ready.pop() {
        for &(_, to) in out(node) {
            open[to as usize] -= 1;
            if open[to as usize] == 0 {
                ready.push(to);
            }
        }
    }
    // Each that is left has one before it that is left too.
    let mut before: FxHashMap<u32, u32> = FxHashMap::default();
    for &(from, to) in edges.iter().filter(|(from, _)| open[*from as usize] > 0) {
        before.entry(to).or_insert(from);
    }
    let mut at = (0..index(versions)).find(|&n| open[n as usize] > 0)?;
    let mut seen: Vec<u32> = Vec::new();
    while !seen.contains(&at) {
        seen.push(at);
        at = *before.get(&at)?;
    }
    let mut circle = seen.split_off(seen.iter().position(|&n| n == at)?);
    circle.reverse();
    Some(circle)
}

fn cyclic(facts: &mut Facts<'_>, key: u32, versions: &Versions<'_>, circle: &[u32]) {
    let shown = circle.iter().chain(circle.first()).take(12);
    let names: Vec<String> =
        shown.map(|&version| versions.values[version as usize].to_string()).collect();
    let message = format!(
        "the versions of key {} come before themselves: {}",
        facts.key(key),
        names.join(" before ")
    );
    let inside = |version: Option<u32>| version.is_some_and(|version| circle.contains(&version));
    let touches = versions.touches.iter().filter(|t| inside(t.read) || inside(t.write));
    let txns: Vec<u32> = touches.map(|touch| touch.txn).take(12).collect();
    facts.anomaly(Level::ReadUncommitted, "cyclic-versions", message, &txns);
}

/// Who wrote a version comes before who wrote a later one, and so does who read it. Versions that
/// nobody here wrote are passed through.
fn connect<'h>(
    facts: &mut Facts<'h>,
    writes: &Writes<'h>,
    key: u32,
    versions: &Versions<'h>,
    edges: &[(u32, u32)],
) {
    let mut writer: Vec<Option<u32>> = vec![None; versions.values.len()];
    let mut readers: Vec<Vec<u32>> = vec![Vec::new(); versions.values.len()];
    for touch in &versions.touches {
        if let Some(version) = touch.write {
            writer[version as usize] = Some(touch.txn);
        }
        if let Some(version) = touch.read {
            readers[version as usize].push(touch.txn);
        }
    }
    // An intermediate or aborted write that was read has a writer, who left something else.
    for (version, value) in versions.values.iter().enumerate() {
        if writer[version].is_none()
            && let Some(write) = writes.get(&(key, *value))
            && facts.included[write.txn as usize]
        {
            writer[version] = Some(write.txn);
        }
    }
    let out = |node: u32| {
        let start = edges.partition_point(|edge| edge.0 < node);
        edges[start..].iter().take_while(move |edge| edge.0 == node).map(|edge| edge.1)
    };
    for from in 0..index(versions.values.len()) {
        let mut seen: FxHashSet<u32> = FxHashSet::default();
        let mut next: Vec<u32> = out(from).collect();
        while let Some(to) = next.pop() {
            if !seen.insert(to) {
                continue;
            }
            let Some(later) = writer[to as usize] else {
                next.extend(out(to));
                continue;
            };
            let why = (key, versions.values[from as usize], versions.values[to as usize]);
            let earlier = writer[from as usize].map(|txn| (txn, rel::WW));
            let readers = readers[from as usize].iter().map(|&txn| (txn, rel::RW));
            for (txn, relation) in earlier.into_iter().chain(readers).filter(|e| e.0 != later) {
                if facts.versions.insert((txn, later, relation), why).is_none() {
                    facts.edges.push((txn, later, relation));
                }
            }
        }
    }
}
