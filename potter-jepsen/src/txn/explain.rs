//! The second opinion on edges: each is derived again from the two transactions alone, in words.

use super::compile::Micro;
use super::edges::Facts;
use super::graph::rel;
use crate::value::Value;

/// Why `from` comes before `to`; `None` if nothing in the two transactions says so.
pub(super) fn explain(facts: &Facts<'_>, from: u32, to: u32, relation: u8) -> Option<String> {
    let (a, b) = (&facts.txns.all[from as usize], &facts.txns.all[to as usize]);
    match relation {
        rel::PROCESS => (a.process == b.process && from < to)
            .then(|| format!("process {} did it first", a.process)),
        rel::REALTIME => (a.end < b.begin).then(|| {
            format!(
                "it had completed (event {}) before the other was invoked (event {})",
                a.end, b.begin
            )
        }),
        _ => {
            let steps = (facts.txns.micros(from as usize), facts.txns.micros(to as usize));
            match (&facts.trunks, relation) {
                (Some(trunks), rel::WW) => overwrote(facts, trunks, steps),
                (Some(_), rel::WR) => saw_list(facts, steps),
                (Some(trunks), _) => missed(facts, trunks, steps),
                (None, rel::WR) => saw(facts, steps),
                (None, rel::RW) => missed_register(facts, from, to, steps)
                    .or_else(|| later_version(facts, (from, to, relation), steps)),
                (None, _) => later_version(facts, (from, to, relation), steps),
            }
        }
    }
}

type Steps<'a, 'h> = (&'a [Micro<'h>], &'a [Micro<'h>]);

fn items(value: &Value) -> &[Value] {
    value.as_items().unwrap_or(&[])
}

fn overwrote(facts: &Facts<'_>, trunks: &[&[Value]], (a, b): Steps<'_, '_>) -> Option<String> {
    for first in a.iter().filter(|step| step.write) {
        for second in b.iter().filter(|step| step.write && step.key == first.key) {
            let trunk = trunks[first.key as usize];
            let at = |value: &Value| trunk.iter().position(|element| element == value);
            let key = facts.key(first.key);
            match (at(first.value), at(second.value)) {
                (Some(x), Some(y)) if x < y => {
                    return Some(format!(
                        "it appended {} to key {key} before the other appended {}",
                        first.value, second.value
                    ));
                }
                (Some(_), None) => {
                    return Some(format!(
                        "it appended {} to key {key}, and no read shows {} yet",
                        first.value, second.value
                    ));
                }
                _ => {}
            }
        }
    }
    None
}

fn saw_list(facts: &Facts<'_>, (a, b): Steps<'_, '_>) -> Option<String> {
    for write in a.iter().filter(|step| step.write) {
        for read in b.iter().filter(|step| !step.write && step.key == write.key) {
            if items(read.value).contains(write.value) {
                let key = facts.key(write.key);
                return Some(format!("the other saw its append of {} to key {key}", write.value));
            }
        }
    }
    None
}

fn missed(facts: &Facts<'_>, trunks: &[&[Value]], (a, b): Steps<'_, '_>) -> Option<String> {
    for read in a.iter().filter(|step| !step.write) {
        for write in b.iter().filter(|step| step.write && step.key == read.key) {
            let seen = items(read.value);
            let prefix = trunks[read.key as usize].starts_with(seen);
            if prefix && !seen.contains(write.value) {
                let key = facts.key(read.key);
                return Some(format!(
                    "it read key {key} without the other's append of {}",
                    write.value
                ));
            }
        }
        // What nobody here appended stays in a list too.
        for longer in b.iter().filter(|step| !step.write && step.key == read.key) {
            let (seen, more) = (items(read.value), items(longer.value));
            let trunk = trunks[read.key as usize];
            if trunk.starts_with(more) && more.starts_with(seen) && more.len() > seen.len() {
                let key = facts.key(read.key);
                return Some(format!(
                    "it read key {key} without {}, which the other saw",
                    more[seen.len()]
                ));
            }
        }
    }
    None
}

fn saw(facts: &Facts<'_>, (a, b): Steps<'_, '_>) -> Option<String> {
    for write in a.iter().filter(|step| step.write) {
        for read in b.iter().filter(|step| !step.write && step.key == write.key) {
            if read.value == write.value {
                let key = facts.key(write.key);
                return Some(format!("the other read its {} from key {key}", write.value));
            }
        }
    }
    None
}

fn missed_register(
    facts: &Facts<'_>,
    _from: u32,
    _to: u32,
    (a, b): Steps<'_, '_>,
) -> Option<String> {
    for read in a.iter().filter(|step| !step.write) {
        for write in b.iter().filter(|step| step.write && step.key == read.key) {
            let key = facts.key(read.key);
            // The other had itself read what was read here, and then wrote.
            let updated = b
                .iter()
                .any(|step| !step.write && step.key == read.key && step.value == read.value);
            if facts.initial.as_ref() == Some(read.value) {
                return Some(format!("it saw key {key} as it was before anything was written"));
            }
            if updated {
                return Some(format!(
                    "it read {} from key {key}, which the other read too and replaced by {}",
                    read.value, write.value
                ));
            }
        }
    }
    None
}

/// By what is assumed of the key: one saw or left a version, the other left a later one.
fn later_version(facts: &Facts<'_>, edge: (u32, u32, u8), (a, b): Steps<'_, '_>) -> Option<String> {
    let &(key, earlier, later) = facts.versions.get(&edge)?;
    let left = b.iter().any(|step| step.write && step.key == key && step.value == later);
    let write = edge.2 == rel::WW;
    let had = a.iter().any(|step| step.write == write && step.key == key && step.value == earlier);
    let verb = if write { "wrote" } else { "read" };
    (left && had).then(|| {
        format!("it {verb} version {earlier} of key {}, and {later} is a later one", facts.key(key))
    })
}
