//! Registers: a read shows whose write it saw, but not how the writes are ordered. What is certain:
//! the initial value came first, and what a transaction wrote to a key it had read came after what
//! it had read.

use rustc_hash::FxHashMap;

use super::compile::Txns;
use super::edges::{Facts, Gate, INITIAL, Read};
use super::graph::rel;
use super::{Level, Options, versions};
use crate::history::{History, Outcome};
use crate::index;
use crate::value::Value;

#[derive(Clone, Copy)]
pub(super) struct Write {
    pub(super) txn: u32,
    /// It wrote the key again later.
    pub(super) intermediate: bool,
    /// Somebody else wrote the same value too.
    pub(super) twice: bool,
}

pub(super) type Writes<'h> = FxHashMap<(u32, &'h Value), Write>;

pub(super) fn analyse<'h>(history: &'h History, txns: Txns<'h>, options: &Options) -> Facts<'h> {
    let mut facts = Facts::new(history, txns);
    facts.initial.clone_from(&options.initial);
    facts.order_open = true;
    find_setup(&mut facts, options);
    let writes = writes(&mut facts);
    find_seen(&mut facts, &writes);
    read_all(&mut facts, &writes, options);
    connect(&mut facts);
    versions::order(&mut facts, &writes, options);
    facts
}

/// A first transaction that writes nothing but initial values only says what was there before.
fn find_setup(facts: &mut Facts<'_>, options: &Options) {
    let Some(initial) = options.initial.as_ref().filter(|_| options.sessions_only) else { return };
    for n in 0..facts.txns.all.len() {
        let micros = facts.txns.micros(n);
        if !micros.is_empty() && micros.iter().all(|micro| micro.write && micro.value == initial) {
            facts.setup.insert(index(n));
        }
    }
}

fn writes<'h>(facts: &mut Facts<'h>) -> Writes<'h> {
    let mut writes: Writes<'h> = FxHashMap::default();
    for n in 0..facts.txns.all.len() {
        if facts.setup.contains(&index(n)) {
            continue;
        }
        let micros = facts.txns.micros(n);
        let mut twice = None;
        for (at, micro) in micros.iter().enumerate().filter(|(_, micro)| micro.write) {
            let later = micros[at + 1..].iter().any(|next| next.write && next.key == micro.key);
            let write = Write { txn: index(n), intermediate: later, twice: false };
            let known = writes.entry((micro.key, micro.value)).or_insert(write);
            let failed = facts.txns.all[known.txn as usize].outcome == Outcome::Fail;
            if known.txn == index(n) {
                known.intermediate = later;
            } else if failed && facts.txns.all[n].outcome == Outcome::Fail {
                // Two attempts, both undone: still nobody wrote it.
            } else {
                known.twice = true;
                twice = Some((*micro, known.txn));
            }
        }
        if let Some((micro, other)) = twice {
            facts.ambiguous = Some(format!(
                "{} was written to key {} by {} and by {}: it is not known which one a read saw",
                micro.value,
                facts.key(micro.key),
                facts.history.describe(facts.op(other) as usize),
                facts.history.describe(facts.op(index(n)) as usize),
            ));
        }
    }
    writes
}

/// Of transactions with unknown outcome those count that somebody saw.
fn find_seen(facts: &mut Facts<'_>, writes: &Writes<'_>) {
    for n in 0..facts.txns.all.len() {
        if facts.txns.all[n].outcome != Outcome::Ok {
            continue;
        }
        for micro in facts.txns.micros(n).iter().filter(|micro| !micro.write) {
            if let Some(write) = writes.get(&(micro.key, micro.value))
                && !write.twice
                && facts.txns.all[write.txn as usize].outcome == Outcome::Info
            {
                facts.included[write.txn as usize] = true;
            }
        }
    }
    for n in 0..facts.txns.all.len() {
        if !facts.included[n] || facts.setup.contains(&index(n)) {
            continue;
        }
        let mut mine: Vec<u32> = Vec::new();
        for micro in facts.txns.micros(n).iter().filter(|micro| micro.write) {
            if !mine.contains(&micro.key) {
                mine.push(micro.key);
            }
        }
        for key in mine {
            facts.writers[key as usize].push(index(n));
        }
    }
}

fn read_all<'h>(facts: &mut Facts<'h>, writes: &Writes<'h>, options: &Options) {
    for n in 0..facts.txns.all.len() {
        if facts.txns.all[n].outcome != Outcome::Ok {
            continue;
        }
        let micros = facts.txns.micros(n).to_vec();
        let mut own: FxHashMap<u32, &Value> = FxHashMap::default();
        let mut seen: FxHashMap<u32, &Value> = FxHashMap::default();
        for micro in micros {
            if micro.write {
                own.insert(micro.key, micro.value);
                continue;
            }
            let who = || facts.history.describe(facts.op(index(n)) as usize);
            let name = facts.key(micro.key);
            if let Some(mine) = own.get(&micro.key) {
                if *mine != micro.value {
                    let message = format!(
                        "{} had written {mine} to key {name} and read {}",
                        who(),
                        micro.value
                    );
                    facts.anomaly(Level::ReadCommitted, "internal", message, &[index(n)]);
                }
                continue;
            }
            if let Some(before) = seen.insert(micro.key, micro.value)
                && before != micro.value
            {
                let message = format!(
                    "{} read {before} from key {name}, wrote nothing to it and read {}",
                    who(),
                    micro.value
                );
                facts.anomaly(Level::ReadAtomic, "internal", message, &[index(n)]);
            }
            external(facts, writes, options, index(n), micro.key, micro.value);
        }
    }
}

fn external<'h>(
    facts: &mut Facts<'h>,
    writes: &Writes<'h>,
    options: &Options,
    reader: u32,
    key: u32,
    value: &'h Value,
) {
    let history = facts.history;
    let op = facts.op(reader) as usize;
    let who = || history.describe(op);
    let name = facts.key(key);
    let initial = options.initial.as_ref() == Some(value);
    match writes.get(&(key, value)).copied() {
        None if initial => facts.reads.push(Read { txn: reader, key, from: INITIAL }),
        None if options.unwritten_is_anomaly => {
            let message = format!("{} read {value} from key {name}, which nobody wrote", who());
            facts.anomaly(Level::ReadCommitted, "garbage-read", message, &[reader]);
        }
        None => {
            facts.outside.insert((key, value));
            lost_update(facts, reader, key, value);
            if facts.notes.len() < 50 {
                let note = format!("{value} of key {name} was written by nobody here: {}", who());
                facts.notes.push(note);
            }
        }
        Some(write) if write.twice || initial => {
            facts.outside.insert((key, value));
            if initial && facts.ambiguous.is_none() {
                let note = format!("the initial value {value} of key {name} was written too");
                facts.ambiguous = Some(note);
            }
        }
        Some(write) if write.txn == reader => {
            let message =
                format!("{} read {value} from key {name} before it wrote that itself", who());
            facts.anomaly(Level::ReadCommitted, "future-read", message, &[reader]);
        }
        Some(write) if facts.txns.all[write.txn as usize].outcome == Outcome::Fail => {
            let writer = facts.history.describe(facts.op(write.txn) as usize);
            let message =
                format!("{} read {value} from key {name}, which was aborted: {writer}", who());
            facts.anomaly(Level::ReadCommitted, "G1a", message, &[write.txn, reader]);
        }
        Some(write) => {
            if write.intermediate {
                let writer = facts.history.describe(facts.op(write.txn) as usize);
                let message =
                    format!("{} read {value} from key {name}, in the middle of {writer}", who());
                facts.anomaly(Level::ReadCommitted, "G1b", message, &[write.txn, reader]);
            }
            facts.reads.push(Read { txn: reader, key, from: write.txn });
        }
    }
}

/// Of a value from outside one thing is certain, since values are written once: who reads it and
/// writes the key has replaced it, and that can't happen twice.
fn lost_update<'h>(facts: &mut Facts<'h>, reader: u32, key: u32, value: &'h Value) {
    if facts.writers[key as usize].binary_search(&reader).is_err() {
        return;
    }
    let first = *facts.updated.entry((key, value)).or_insert(reader);
    if first != reader {
        facts.lost_update(key, first, reader);
    }
}

fn connect(facts: &mut Facts<'_>) {
    let mut readers: FxHashMap<(u32, u32), Vec<u32>> = FxHashMap::default();
    for read in &facts.reads {
        readers.entry((read.key, read.from)).or_default().push(read.txn);
        if read.from != INITIAL {
            facts.edges.push((read.from, read.txn, rel::WR));
        }
    }
    let mut sorted: Vec<_> = readers.into_iter().collect();
    sorted.sort_unstable();
    for ((key, from), mut readers) in sorted {
        readers.dedup();
        if from == INITIAL {
            let writers = facts.writers[key as usize].clone();
            if !writers.is_empty() {
                facts.gates.push(Gate { readers: readers.clone(), writers });
            }
        }
        let updaters: Vec<u32> = readers
            .iter()
            .copied()
            .filter(|&txn| facts.writers[key as usize].binary_search(&txn).is_ok())
            .collect();
        // What was read, and then written by one who had read it: all other readers came before.
        if from != INITIAL {
            for &updater in updaters.iter().take(8) {
                let others = readers.iter().filter(|&&reader| reader != updater);
                facts.edges.extend(others.map(|&reader| (reader, updater, rel::RW)));
            }
        }
        if let [first, second, ..] = updaters[..] {
            facts.lost_update(key, first, second);
        }
    }
}
