//! Lists: the longest read of a key is the order of its versions, every other read is a prefix.

use rustc_hash::{FxHashMap, FxHashSet};

use super::compile::Txns;
use super::edges::{Facts, Gate, INITIAL, Read};
use super::graph::rel;
use super::{Level, Options};
use crate::history::{History, Outcome};
use crate::index;
use crate::value::Value;

/// Who appended an element, and whether it appended more to the same key later.
#[derive(Clone, Copy)]
struct Append {
    txn: u32,
    last: bool,
}

type Appends<'h> = FxHashMap<(u32, &'h Value), Append>;

pub(super) fn analyse<'h>(history: &'h History, txns: Txns<'h>, options: &Options) -> Facts<'h> {
    let mut facts = Facts::new(history, txns);
    facts.initial = Some(Value::Nil);
    let appends = appends(&mut facts);
    let trunks = trunks(&facts.txns);
    for (key, trunk) in (0_u32..).zip(&trunks) {
        check_trunk(&mut facts, &appends, key, trunk, options);
    }
    let seen = read_all(&mut facts, &appends, &trunks);
    connect(&mut facts, &appends, &trunks, &seen);
    facts.trunks = Some(trunks);
    facts
}

fn appends<'h>(facts: &mut Facts<'h>) -> Appends<'h> {
    let mut appends: Appends<'h> = FxHashMap::default();
    for n in 0..facts.txns.all.len() {
        let mut mine: Vec<(u32, &Value)> = Vec::new();
        for micro in facts.txns.micros(n).iter().filter(|micro| micro.write) {
            let append = Append { txn: index(n), last: true };
            if let Some(before) = appends.insert((micro.key, micro.value), append) {
                facts.ambiguous = Some(format!(
                    "{} was appended to key {} by {} and again by {}: elements of a key must differ",
                    micro.value,
                    facts.key(micro.key),
                    facts.history.describe(facts.op(before.txn) as usize),
                    facts.history.describe(facts.op(index(n)) as usize),
                ));
            }
            if let Some(earlier) = mine.iter_mut().find(|(key, _)| *key == micro.key) {
                if let Some(append) = appends.get_mut(&(micro.key, earlier.1)) {
                    append.last = false;
                }
                earlier.1 = micro.value;
            } else {
                mine.push((micro.key, micro.value));
            }
        }
    }
    appends
}

fn items(value: &Value) -> &[Value] {
    value.as_items().unwrap_or(&[])
}

fn trunks<'h>(txns: &Txns<'h>) -> Vec<&'h [Value]> {
    let mut trunks: Vec<&'h [Value]> = vec![&[]; txns.keys.len()];
    for n in 0..txns.all.len() {
        for micro in txns.micros(n).iter().filter(|micro| !micro.write) {
            let seen = items(micro.value);
            let trunk = &mut trunks[micro.key as usize];
            if seen.len() > trunk.len() {
                *trunk = seen;
            }
        }
    }
    trunks
}

/// Elements that stand twice, that nobody appended, or that were taken back. Marks those of unknown
/// outcome as having happened.
fn check_trunk<'h>(
    facts: &mut Facts<'h>,
    appends: &Appends<'h>,
    key: u32,
    trunk: &'h [Value],
    options: &Options,
) {
    let mut seen: FxHashSet<&Value> = FxHashSet::default();
    for element in trunk {
        let name = facts.key(key);
        if !seen.insert(element) {
            let message = format!("a read of key {name} shows {element} twice: {}", Short(trunk));
            facts.anomaly(Level::ReadUncommitted, "duplicate-elements", message, &[]);
        }
        match appends.get(&(key, element)).map(|append| append.txn) {
            None if options.unwritten_is_anomaly => {
                let message = format!("key {name} shows {element}, which nobody appended");
                facts.anomaly(Level::ReadCommitted, "garbage-read", message, &[]);
            }
            None => {
                facts.notes.push(format!("nobody here appended {element} to key {name}"));
                facts.notes.truncate(50);
            }
            Some(writer) if facts.txns.all[writer as usize].outcome == Outcome::Fail => {
                let who = facts.history.describe(facts.op(writer) as usize);
                let message = format!("key {name} shows {element}, which was aborted: {who}");
                facts.anomaly(Level::ReadCommitted, "G1a", message, &[writer]);
            }
            Some(writer) => facts.included[writer as usize] = true,
        }
    }
}

struct Short<'v>(&'v [Value]);

impl std::fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.len() <= 24 {
            return write!(f, "{}", Value::List(self.0.to_vec()));
        }
        let tail = Value::List(self.0[self.0.len() - 12..].to_vec());
        write!(f, "{} elements, at the end {tail}", self.0.len())
    }
}

/// A key, what a transaction saw of it, and what it appended since.
type Known<'h> = (u32, Option<&'h [Value]>, Vec<&'h Value>);

/// By key, who saw how much of the trunk: (length, transaction).
type Seen = Vec<Vec<(u32, u32)>>;

fn read_all<'h>(facts: &mut Facts<'h>, appends: &Appends<'h>, trunks: &[&'h [Value]]) -> Seen {
    let mut seen: Seen = vec![Vec::new(); facts.txns.keys.len()];
    for n in 0..facts.txns.all.len() {
        if facts.txns.all[n].outcome != Outcome::Ok {
            continue;
        }
        // What this transaction knows of a key: what it saw, and what it appended since.
        let mut known: Vec<Known<'h>> = Vec::new();
        let micros = facts.txns.micros(n).to_vec();
        for micro in micros {
            let place = match known.iter().position(|(key, ..)| *key == micro.key) {
                Some(place) => place,
                None => {
                    known.push((micro.key, None, Vec::new()));
                    known.len() - 1
                }
            };
            let (_, base, own) = &mut known[place];
            if micro.write {
                own.push(micro.value);
                continue;
            }
            let list = items(micro.value);
            let before = list.len().checked_sub(own.len());
            let own_there = before.is_some_and(|at| list[at..].iter().eq(own.iter().copied()));
            let base_there = base.is_none_or(|base| before.is_some_and(|at| &list[..at] == base));
            let first = base.is_none() && own.is_empty();
            *base = Some(list);
            own.clear();
            let name = facts.key(micro.key);
            if !(own_there && base_there) {
                let message = format!(
                    "{} read key {name} as {}, which contradicts its own earlier steps",
                    facts.history.describe(facts.op(index(n)) as usize),
                    Short(list),
                );
                facts.anomaly(Level::ReadCommitted, "internal", message, &[index(n)]);
            }
            let trunk = trunks[micro.key as usize];
            if !trunk.starts_with(list) {
                let message = format!(
                    "key {name} was read as {} and as {}: neither is the beginning of the other",
                    Short(list),
                    Short(trunk),
                );
                facts.anomaly(Level::ReadCommitted, "incompatible-order", message, &[index(n)]);
                check_stray(facts, appends, micro.key, list, index(n));
                continue;
            }
            if first || !base_there {
                seen[micro.key as usize].push((index(list.len()), index(n)));
                intermediate(facts, appends, micro.key, list, index(n));
            }
        }
    }
    seen
}

/// A read that is not part of the trunk still may not show what was aborted.
fn check_stray<'h>(
    facts: &mut Facts<'h>,
    appends: &Appends<'h>,
    key: u32,
    list: &'h [Value],
    reader: u32,
) {
    for element in list {
        let Some(append) = appends.get(&(key, element)) else { continue };
        if facts.txns.all[append.txn as usize].outcome == Outcome::Fail {
            let message = format!("key {} showed {element}, which was aborted", facts.key(key));
            facts.anomaly(Level::ReadCommitted, "G1a", message, &[append.txn, reader]);
        }
    }
}

fn intermediate<'h>(
    facts: &mut Facts<'h>,
    appends: &Appends<'h>,
    key: u32,
    list: &'h [Value],
    reader: u32,
) {
    let Some(last) = list.last() else { return };
    if let Some(append) = appends.get(&(key, last))
        && !append.last
        && append.txn != reader
    {
        let message = format!(
            "{} saw key {} end with {last}, in the middle of {}",
            facts.history.describe(facts.op(reader) as usize),
            facts.key(key),
            facts.history.describe(facts.op(append.txn) as usize),
        );
        facts.anomaly(Level::ReadCommitted, "G1b", message, &[append.txn, reader]);
    }
}

fn connect<'h>(facts: &mut Facts<'h>, appends: &Appends<'h>, trunks: &[&'h [Value]], seen: &Seen) {
    let mut unread: Vec<Vec<u32>> = vec![Vec::new(); trunks.len()];
    let mut in_trunk: FxHashSet<(u32, &Value)> = FxHashSet::default();
    let mut writers: Vec<Vec<Option<u32>>> = Vec::with_capacity(trunks.len());
    for (key, trunk) in (0_u32..).zip(trunks) {
        let of = |element: &&'h Value| {
            let writer = appends.get(&(key, *element)).map(|append| append.txn);
            writer.filter(|&writer| facts.included[writer as usize])
        };
        let row: Vec<Option<u32>> = trunk.iter().map(|element| of(&element)).collect();
        in_trunk.extend(trunk.iter().map(|element| (key, element)));
        writers.push(row);
    }
    for n in 0..facts.txns.all.len() {
        if !facts.included[n] {
            continue;
        }
        // (key, was one of its elements never seen?)
        let mut mine: Vec<(u32, bool)> = Vec::new();
        for micro in facts.txns.micros(n).iter().filter(|micro| micro.write) {
            let unseen = !in_trunk.contains(&(micro.key, micro.value));
            match mine.iter_mut().find(|(key, _)| *key == micro.key) {
                Some((_, any)) => *any |= unseen,
                None => mine.push((micro.key, unseen)),
            }
        }
        for (key, unseen) in mine {
            facts.writers[key as usize].push(index(n));
            if unseen {
                unread[key as usize].push(index(n));
            }
        }
    }
    facts.order_open = unread.iter().any(|unread| unread.len() > 1);
    let mut reads = Vec::new();
    for (key, row) in (0_u32..).zip(&writers) {
        connect_key(facts, key, row, &unread[key as usize], &seen[key as usize], &mut reads);
    }
    reads.sort_by_key(|read: &Read| read.txn);
    facts.reads = reads;
    lost_updates(facts, seen);
}

fn connect_key(
    facts: &mut Facts<'_>,
    key: u32,
    row: &[Option<u32>],
    unread: &[u32],
    seen: &[(u32, u32)],
    reads: &mut Vec<Read>,
) {
    let known: Vec<u32> = row.iter().copied().flatten().collect();
    for pair in known.windows(2) {
        if pair[0] != pair[1] {
            facts.edges.push((pair[0], pair[1], rel::WW));
        }
    }
    if let Some(&last) = known.last() {
        facts.edges.extend(unread.iter().map(|&writer| (last, writer, rel::WW)));
    }
    // After[i]: the first known writer at or behind position i.
    let mut after = vec![None; row.len() + 1];
    for at in (0..row.len()).rev() {
        after[at] = row[at].or(after[at + 1]);
    }
    let mut gate = Gate { readers: Vec::new(), writers: unread.to_vec() };
    for &(length, reader) in seen {
        let length = length as usize;
        if length == 0 {
            reads.push(Read { txn: reader, key, from: INITIAL });
        } else if let Some(writer) = row[length - 1] {
            reads.push(Read { txn: reader, key, from: writer });
            if writer != reader {
                facts.edges.push((writer, reader, rel::WR));
            }
        }
        match after[length] {
            // What stands behind the reader's own append is behind that writer anyway.
            Some(writer) if writer != reader => facts.edges.push((reader, writer, rel::RW)),
            Some(_) => {}
            None if !unread.is_empty() => gate.readers.push(reader),
            None => {}
        }
    }
    if !gate.readers.is_empty() {
        facts.gates.push(gate);
    }
}

/// Two transactions that saw the same version of a key and both wrote it.
fn lost_updates(facts: &mut Facts<'_>, seen: &Seen) {
    for (key, seen) in (0_u32..).zip(seen) {
        let writers: FxHashSet<u32> = facts.writers[key as usize].iter().copied().collect();
        let mut first: FxHashMap<u32, u32> = FxHashMap::default();
        for &(length, reader) in seen {
            if !writers.contains(&reader) {
                continue;
            }
            let before = *first.entry(length).or_insert(reader);
            if before != reader {
                let message = format!(
                    "both read the same version of key {} and wrote it: {} and {}",
                    facts.key(key),
                    facts.history.describe(facts.op(before) as usize),
                    facts.history.describe(facts.op(reader) as usize),
                );
                facts.anomaly(Level::SnapshotIsolation, "lost-update", message, &[before, reader]);
            }
        }
    }
}
