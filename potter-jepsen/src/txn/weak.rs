//! Read committed (in sessions), read atomic and causal consistency by Biswas & Enea's axioms ("On
//! the complexity of checking transactional consistency", OOPSLA 2019): whatever order of commits
//! an axiom demands is added to what is known; the level holds exactly if no cycle comes of it.
//! All three take polynomial time (as in Plume and AWDIT).

use rustc_hash::{FxHashMap, FxHashSet};

use super::Level;
use super::cycle::{Class, Cycle, Cycles};
use super::edges::{Facts, INITIAL};
use super::graph::{Graph, rel};
use crate::budget::Meter;
use crate::index;
use crate::verdict::{Reason, ReasonKind};

/// What the axioms of a level lead to: a cycle, or nothing.
pub(super) fn check(
    facts: &Facts<'_>,
    level: Level,
    sessions_only: bool,
    meter: &mut Meter,
) -> Result<Option<Cycle>, Reason> {
    let mut graph = Graph::new(facts.txns.all.len() + 1);
    let initial = index(facts.txns.all.len());
    for &(from, to, rel) in &facts.edges {
        if rel & (rel::WW | rel::WR) != 0 {
            graph.add(from, to, rel);
        }
    }
    // Atomic reads know no sessions, unless those are all that the history knows: what is serializable
    // is read atomic. Causality begins with them.
    let with_sessions = sessions_only || level != Level::ReadAtomic;
    let sessions = if with_sessions { facts.sessions() } else { Vec::new() };
    for session in &sessions {
        if let Some(&first) = session.first() {
            graph.add(initial, first, rel::PROCESS);
        }
        for pair in session.windows(2) {
            graph.add(pair[0], pair[1], rel::PROCESS);
        }
    }
    let mut writes: FxHashSet<(u32, u32)> = FxHashSet::default();
    for (key, writers) in (0_u32..).zip(&facts.writers) {
        writes.extend(writers.iter().map(|&writer| (writer, key)));
    }
    let node = |from: u32| if from == INITIAL { initial } else { from };
    let mut forced: Vec<(u32, u32)> = Vec::new();
    match level {
        Level::ReadCommitted => {
            for reads in by_txn(facts) {
                for (at, read) in reads.iter().enumerate() {
                    meter.tick()?;
                    for earlier in &reads[..at] {
                        if earlier.from != read.from && writes.contains(&(earlier.from, read.key)) {
                            forced.push((earlier.from, node(read.from)));
                        }
                    }
                }
            }
        }
        Level::ReadAtomic => {
            for reads in by_txn(facts) {
                for read in reads {
                    meter.tick()?;
                    for other in reads {
                        if other.from != read.from && writes.contains(&(other.from, read.key)) {
                            forced.push((other.from, node(read.from)));
                        }
                    }
                }
            }
            earlier_in_session(facts, &sessions, |writer, from| forced.push((writer, node(from))));
        }
        _ => causal(facts, &sessions, meter, |writer, from| forced.push((writer, node(from))))?,
    }
    for (from, to) in forced {
        // An order that the level forces counts as an overwrite.
        graph.add(from, to, rel::WW);
    }
    graph.finish();
    let cycles = Cycles { graph: &graph, extra: rel::PROCESS };
    if cycles.components(rel::WW | rel::WR).acyclic() {
        return Ok(None);
    }
    let found = cycles.find(Class::G1c, meter).or_else(|| cycles.find(Class::G0, meter));
    match found {
        Some(mut cycle) => {
            cycle.retain(|edge| edge.0 != initial && edge.1 != initial);
            Ok(Some(cycle))
        }
        None => {
            meter.check()?;
            Ok(Some(Vec::new()))
        }
    }
}

/// The reads of each transaction, in its order.
fn by_txn<'f>(facts: &'f Facts<'_>) -> impl Iterator<Item = &'f [super::edges::Read]> {
    facts.reads.chunk_by(|a, b| a.txn == b.txn)
}

/// Each read of a key that the reader's own session wrote before.
fn earlier_in_session(facts: &Facts<'_>, sessions: &[Vec<u32>], mut found: impl FnMut(u32, u32)) {
    let mut of: FxHashMap<u32, &[super::edges::Read]> = FxHashMap::default();
    for reads in by_txn(facts) {
        of.insert(reads[0].txn, reads);
    }
    let keys = keys_of_writers(facts);
    for session in sessions {
        let mut last: FxHashMap<u32, u32> = FxHashMap::default();
        for &txn in session {
            for read in of.get(&txn).copied().unwrap_or_default() {
                if let Some(&writer) = last.get(&read.key)
                    && writer != read.from
                {
                    found(writer, read.from);
                }
            }
            for &key in &keys[txn as usize] {
                last.insert(key, txn);
            }
        }
    }
}

fn keys_of_writers(facts: &Facts<'_>) -> Vec<Vec<u32>> {
    let mut keys = vec![Vec::new(); facts.txns.all.len()];
    for (key, writers) in (0_u32..).zip(&facts.writers) {
        for &writer in writers {
            keys[writer as usize].push(key);
        }
    }
    keys
}

/// Each read of a key, with the last writer of it in every session that the reader's past holds.
fn causal(
    facts: &Facts<'_>,
    sessions: &[Vec<u32>],
    meter: &mut Meter,
    mut found: impl FnMut(u32, u32),
) -> Result<(), Reason> {
    let count = facts.txns.all.len();
    let width = sessions.len();
    let bytes = count.saturating_mul(width).saturating_mul(4);
    meter.grow(bytes);
    let granted = meter.check();
    if granted.is_err() {
        meter.shrink(bytes);
        granted?;
    }
    let mut place = vec![(0_u32, 0_u32); count];
    let mut past = Graph::new(count);
    for (s, session) in (0_u32..).zip(sessions) {
        for (at, &txn) in (0_u32..).zip(session) {
            place[txn as usize] = (s, at);
        }
        for pair in session.windows(2) {
            past.add(pair[0], pair[1], rel::PROCESS);
        }
    }
    for &(from, to, rel) in facts.edges.iter().filter(|edge| edge.2 == rel::WR) {
        past.add(from, to, rel);
    }
    past.finish();
    // Without an order of causes there is no past; the cycle is in the graph already.
    let Some(order) = super::serial::topological(facts, &past) else {
        meter.shrink(bytes);
        return Ok(());
    };
    let mut clocks = vec![0_u32; count * width];
    let mut writers: FxHashMap<(u32, u32), Vec<u32>> = FxHashMap::default();
    for (key, all) in (0_u32..).zip(&facts.writers) {
        let mut in_key: Vec<(u32, u32)> = all.iter().map(|&w| place[w as usize]).collect();
        in_key.sort_unstable();
        for (s, at) in in_key {
            writers.entry((key, s)).or_default().push(at);
        }
    }
    let mut writing_sessions: Vec<Vec<u32>> = vec![Vec::new(); facts.txns.keys.len()];
    for &(key, s) in writers.keys() {
        writing_sessions[key as usize].push(s);
    }
    for &txn in &order {
        meter.tick()?;
        for (to, _) in past.out(txn) {
            let (from, into) = (txn as usize * width, to as usize * width);
            for s in 0..width {
                clocks[into + s] = clocks[into + s].max(clocks[from + s]);
            }
            let (s, at) = place[txn as usize];
            let seen = &mut clocks[into + s as usize];
            *seen = (*seen).max(at + 1);
        }
    }
    for read in &facts.reads {
        meter.tick()?;
        for &s in &writing_sessions[read.key as usize] {
            let limit = clocks[read.txn as usize * width + s as usize];
            let all = &writers[&(read.key, s)];
            let last = all[..all.partition_point(|&at| at < limit)].last();
            if let Some(&at) = last {
                let writer = sessions[s as usize][at as usize];
                if writer != read.from {
                    found(writer, read.from);
                }
            }
        }
    }
    meter.shrink(bytes);
    Ok(())
}

/// What a level's axioms are about, for the words of a counterexample.
pub(super) fn in_words(level: Level) -> &'static str {
    match level {
        Level::ReadCommitted => {
            "a later read of one transaction saw an older state than an earlier one"
        }
        Level::ReadAtomic => {
            "a transaction saw another one only in part, or not what its own session had done"
        }
        _ => "a transaction did not see what causally came before it",
    }
}

/// A limit was hit while looking for the reason of a violation.
pub(super) fn undecided() -> Reason {
    Reason::new(ReasonKind::TimeLimit, "the time limit was reached")
}
