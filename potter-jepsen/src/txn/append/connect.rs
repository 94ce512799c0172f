//! The edges that follow from the order of the elements of each list.

use super::super::edges::{Facts, Gate, INITIAL, Read};
use super::super::graph::rel;
use super::{Found, NONE};
use crate::index;

pub(super) fn connect(facts: &mut Facts<'_>, found: &Found<'_>) {
    let mut reads = Vec::with_capacity(found.seen.items.len());
    for key in 0..index(found.trunks.len()) {
        let mut unread = Vec::new();
        for &(txn, unseen) in found.appenders.of(key) {
            if facts.included[txn as usize] {
                facts.writers[key as usize].push(txn);
                if unseen {
                    unread.push(txn);
                }
            }
        }
        facts.order_open |= unread.len() > 1;
        let seen = found.seen.of(key);
        connect_key(facts, key, found.rows.of(key), unread, seen, &mut reads);
        lost_updates(facts, key, seen);
    }
    reads.sort_by_key(|read: &Read| read.txn);
    facts.reads = reads;
}

fn connect_key(
    facts: &mut Facts<'_>,
    key: u32,
    row: &[u32],
    unread: Vec<u32>,
    seen: &[(u32, u32)],
    reads: &mut Vec<Read>,
) {
    let known = |txn: u32| txn != NONE && facts.included[txn as usize];
    // After[i]: the first known writer at or behind position i.
    let mut after = vec![NONE; row.len() + 1];
    for at in (0..row.len()).rev() {
        after[at] = if known(row[at]) { row[at] } else { after[at + 1] };
    }
    let row: Vec<u32> = row.iter().map(|&txn| if known(txn) { txn } else { NONE }).collect();
    let mut last = NONE;
    for &writer in row.iter().filter(|&&txn| txn != NONE) {
        if last != NONE && last != writer {
            facts.edges.push((last, writer, rel::WW));
        }
        last = writer;
    }
    if last != NONE {
        facts.edges.extend(unread.iter().map(|&writer| (last, writer, rel::WW)));
    }
    if row.contains(&NONE) {
        past_strangers(facts, &row, seen);
    }
    let mut gate = Gate { readers: Vec::new(), writers: unread };
    for &(length, reader) in seen {
        let length = length as usize;
        if length == 0 {
            reads.push(Read { txn: reader, key, from: INITIAL });
        } else if row[length - 1] != NONE {
            let writer = row[length - 1];
            reads.push(Read { txn: reader, key, from: writer });
            if writer != reader {
                facts.edges.push((writer, reader, rel::WR));
            }
        }
        match after[length] {
            NONE if gate.writers.is_empty() => {}
            NONE => gate.readers.push(reader),
            // What stands behind the reader's own append is behind that writer anyway.
            writer if writer != reader => facts.edges.push((reader, writer, rel::RW)),
            _ => {}
        }
    }
    if !gate.readers.is_empty() {
        facts.gates.push(gate);
    }
}

/// Where elements stand that nobody here appended: who saw one of those last has also seen who
/// appended before it, and comes after those who saw less.
fn past_strangers(facts: &mut Facts<'_>, row: &[u32], seen: &[(u32, u32)]) {
    let mut sorted: Vec<(u32, u32)> = seen.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let (mut before, mut at): (u32, usize) = (NONE, 0);
    let mut shorter: Option<&[(u32, u32)]> = None;
    for same in sorted.chunk_by(|a, b| a.0 == b.0) {
        let from = at;
        while at < same[0].0 as usize {
            if row[at] != NONE {
                before = row[at];
            }
            at += 1;
        }
        if before != NONE && row[at - 1] == NONE {
            let readers = same.iter().map(|(_, reader)| *reader).filter(|&r| r != before);
            facts.edges.extend(readers.map(|reader| (before, reader, rel::WR)));
        }
        if let Some(shorter) = shorter.replace(same)
            && row[from..at].iter().all(|&writer| writer == NONE)
        {
            let txns = |reads: &[(u32, u32)]| reads.iter().map(|read| read.1).collect();
            facts.gates.push(Gate { readers: txns(shorter), writers: txns(same) });
        }
    }
}

/// Two transactions that saw the same version of a key and both wrote it.
fn lost_updates(facts: &mut Facts<'_>, key: u32, seen: &[(u32, u32)]) {
    // By length of what was seen. The writers are sorted: transactions come in their order.
    let mut first: Vec<u32> = Vec::new();
    for &(length, reader) in seen {
        if facts.writers[key as usize].binary_search(&reader).is_err() {
            continue;
        }
        let length = length as usize;
        if first.len() <= length {
            first.resize(length + 1, NONE);
        }
        if first[length] == NONE {
            first[length] = reader;
        }
        let before = first[length];
        if before != reader {
            facts.lost_update(key, before, reader);
        }
    }
}
