//! Serial orders: finding one by good guesses, and replaying one to see that it is right.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::edges::{Facts, INITIAL};
use super::graph::Graph;
use crate::history::Outcome;
use crate::index;
use crate::value::Value;

/// What a serial order has to keep beside the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Nothing,
    Sessions,
    RealTime,
}

/// An order that follows the edges, by completion where they leave a choice.
pub(super) fn topological(facts: &Facts<'_>, graph: &Graph) -> Option<Vec<u32>> {
    let mut open = incoming(graph);
    let rank = |node: u32| facts.txns.all.get(node as usize).map_or(0, |txn| txn.end);
    let mut ready: BinaryHeap<Reverse<(u32, u32)>> = (0..index(graph.nodes()))
        .filter(|&node| open[node as usize] == 0)
        .map(|node| Reverse((rank(node), node)))
        .collect();
    let (mut order, mut done) = (Vec::new(), 0);
    while let Some(Reverse((_, node))) = ready.pop() {
        done += 1;
        if !graph.is_helper(node) && facts.included[node as usize] {
            order.push(node);
        }
        for (to, _) in graph.out(node) {
            open[to as usize] -= 1;
            if open[to as usize] == 0 {
                ready.push(Reverse((rank(to), to)));
            }
        }
    }
    (done == graph.nodes()).then_some(order)
}

fn incoming(graph: &Graph) -> Vec<u32> {
    let mut open = vec![0_u32; graph.nodes()];
    for node in 0..index(graph.nodes()) {
        for (to, _) in graph.out(node) {
            open[to as usize] += 1;
        }
    }
    open
}

/// For registers: takes whichever transaction is next by the edges, sees what it has to see, and
/// overwrites nothing that others have yet to see. Finds an order for most valid histories; if it
/// finds none, that means nothing.
pub(super) fn greedy(facts: &Facts<'_>, graph: &Graph) -> Option<Vec<u32>> {
    let mut open = incoming(graph);
    let mut needs: Vec<Vec<(u32, u32)>> = vec![Vec::new(); facts.txns.all.len()];
    let mut pending: FxHashMap<(u32, u32), u32> = FxHashMap::default();
    for read in &facts.reads {
        let mine = &mut needs[read.txn as usize];
        if mine.contains(&(read.key, read.from)) {
            continue;
        }
        mine.push((read.key, read.from));
        *pending.entry((read.key, read.from)).or_default() += 1;
    }
    let mut writes: Vec<Vec<u32>> = vec![Vec::new(); facts.txns.all.len()];
    for (key, writers) in (0_u32..).zip(&facts.writers) {
        for &writer in writers {
            writes[writer as usize].push(key);
        }
    }
    let mut current = vec![INITIAL; facts.txns.keys.len()];
    let mut waiting: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
    let rank = |node: u32| facts.txns.all.get(node as usize).map_or(0, |txn| txn.end);
    let mut ready: BinaryHeap<Reverse<(u32, u32)>> = (0..index(graph.nodes()))
        .filter(|&node| open[node as usize] == 0)
        .map(|node| Reverse((rank(node), node)))
        .collect();
    let (mut order, mut done) = (Vec::new(), 0);
    while let Some(Reverse((_, node))) = ready.pop() {
        if !graph.is_helper(node) && facts.included[node as usize] {
            let blocked =
                blocked_on(&needs[node as usize], &writes[node as usize], &current, &pending);
            if let Some(key) = blocked {
                waiting.entry(key).or_default().push(node);
                continue;
            }
            order.push(node);
            let mut touched = Vec::new();
            for &(key, from) in &needs[node as usize] {
                if let Some(count) = pending.get_mut(&(key, from)) {
                    *count -= 1;
                }
                touched.push(key);
            }
            for &key in &writes[node as usize] {
                current[key as usize] = node;
                touched.push(key);
            }
            for key in touched {
                for waiter in waiting.remove(&key).unwrap_or_default() {
                    ready.push(Reverse((rank(waiter), waiter)));
                }
            }
        }
        done += 1;
        for (to, _) in graph.out(node) {
            open[to as usize] -= 1;
            if open[to as usize] == 0 {
                ready.push(Reverse((rank(to), to)));
            }
        }
    }
    (done == graph.nodes()).then_some(order)
}

fn blocked_on(
    needs: &[(u32, u32)],
    writes: &[u32],
    current: &[u32],
    pending: &FxHashMap<(u32, u32), u32>,
) -> Option<u32> {
    let unseen = needs.iter().find(|(key, from)| current[*key as usize] != *from);
    if let Some((key, _)) = unseen {
        return Some(*key);
    }
    let wanted = |key: &&u32| {
        let now = current[**key as usize];
        let mine = u32::from(needs.contains(&(**key, now)));
        pending.get(&(**key, now)).is_some_and(|count| *count > mine)
    };
    writes.iter().find(wanted).copied()
}

/// Elements that nobody here appended are there as soon as they have to be: before whatever stands
/// behind them, and for whoever sees them.
fn strangers<'h>(facts: &Facts<'h>, key: u32, list: &mut Vec<&'h Value>, until: usize) {
    if facts.outside.is_empty() {
        return;
    }
    let Some(trunks) = &facts.trunks else { return };
    let trunk = trunks[key as usize];
    while list.len() < until
        && let Some(next) = trunk.get(list.len())
        && facts.outside.contains(&(key, next))
    {
        list.push(next);
    }
}

/// Runs the transactions one after the other on plain maps and compares every read with what is
/// there. Shares nothing with the analyses but the parsed steps.
pub(super) fn replay(facts: &Facts<'_>, order: &[u32], keep: Keep) -> Result<(), String> {
    let mut lists: Vec<Vec<&Value>> = vec![Vec::new(); facts.txns.keys.len()];
    let mut registers: FxHashMap<u32, &Value> = FxHashMap::default();
    let mut placed = vec![false; facts.txns.all.len()];
    let mut latest: FxHashMap<i64, u32> = FxHashMap::default();
    let mut latest_begin = 0;
    for &n in order {
        let txn = &facts.txns.all[n as usize];
        if std::mem::replace(&mut placed[n as usize], true) {
            return Err(format!("operation {} stands twice in the order", txn.op));
        }
        if keep == Keep::RealTime && txn.end < latest_begin {
            return Err(format!("operation {} had completed before its place", txn.op));
        }
        latest_begin = latest_begin.max(txn.begin);
        if keep != Keep::Nothing
            && !facts.setup.contains(&n)
            && latest.insert(txn.process, n).is_some_and(|before| before > n)
        {
            return Err(format!("operation {} is out of its process' order", txn.op));
        }
        if facts.setup.contains(&n) {
            continue;
        }
        for micro in facts.txns.micros(n as usize) {
            let fits = match (facts.trunks.is_some(), micro.write) {
                (true, true) => {
                    let list = &mut lists[micro.key as usize];
                    strangers(facts, micro.key, list, usize::MAX);
                    list.push(micro.value);
                    true
                }
                (true, false) => {
                    let seen = micro.value.as_items().unwrap_or(&[]);
                    let list = &mut lists[micro.key as usize];
                    strangers(facts, micro.key, list, seen.len());
                    seen.iter().eq(list.iter().copied())
                }
                (false, true) => {
                    registers.insert(micro.key, micro.value);
                    true
                }
                (false, false) if facts.outside.contains(&(micro.key, micro.value)) => true,
                (false, false) => match registers.get(&micro.key) {
                    Some(now) => *now == micro.value,
                    None => facts.initial.as_ref() == Some(micro.value),
                },
            };
            if !fits {
                return Err(format!(
                    "operation {} reads {} from key {}, which is not there at its place",
                    txn.op,
                    micro.value,
                    facts.key(micro.key)
                ));
            }
        }
    }
    let missing =
        (0..placed.len()).find(|&n| !placed[n] && facts.txns.all[n].outcome == Outcome::Ok);
    match missing {
        Some(n) => Err(format!("operation {} is missing from the order", facts.txns.all[n].op)),
        None => Ok(()),
    }
}
