//! Lists: the longest read of a key is the order of its versions, every other read is a prefix.
//!
//! Keys are looked at one after the other, each with all of its steps: what is known of one key then
//! fits into the processor's cache, however long the history is. What one key says of a transaction
//! of unknown outcome (that it took effect) counts for all its keys, so the edges follow in a second
//! pass.

mod connect;

use rustc_hash::FxHashMap;

use super::compile::Txns;
use super::edges::Facts;
use super::{Level, Options};
use crate::history::{History, Outcome};
use crate::index;
use crate::value::Value;

/// No transaction.
const NONE: u32 = u32::MAX;

/// Slices of one vector, one for each key: a vector of its own would cost more than it holds.
struct PerKey<T> {
    items: Vec<T>,
    /// Where the slice of each key ends.
    ends: Vec<usize>,
}

impl<T> PerKey<T> {
    fn new() -> Self {
        Self { items: Vec::new(), ends: Vec::new() }
    }

    /// Ends the slice of the current key.
    fn close(&mut self) {
        self.ends.push(self.items.len());
    }

    fn of(&self, key: u32) -> &[T] {
        let key = key as usize;
        let start = key.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.items[start..self.ends[key]]
    }
}

/// A step on a key.
#[derive(Clone, Copy)]
struct Step<'h> {
    txn: u32,
    write: bool,
    value: &'h Value,
}

/// The steps of each key, in the order of their transactions. By counting, so in linear time.
fn by_key<'h>(txns: &Txns<'h>) -> PerKey<Step<'h>> {
    let mut ends = vec![0_usize; txns.keys.len()];
    let all = || (0..txns.all.len()).flat_map(|n| txns.micros(n).iter().map(move |m| (n, m)));
    for (_, micro) in all() {
        ends[micro.key as usize] += 1;
    }
    let mut places = Vec::with_capacity(ends.len());
    let mut sum = 0;
    for end in &mut ends {
        places.push(sum);
        sum += *end;
        *end = sum;
    }
    let nothing = Step { txn: NONE, write: false, value: &Value::Nil };
    let mut items = vec![nothing; sum];
    for (n, micro) in all() {
        let place = &mut places[micro.key as usize];
        items[*place] = Step { txn: index(n), write: micro.write, value: micro.value };
        *place += 1;
    }
    PerKey { items, ends }
}

/// An element of a key.
#[derive(Clone, Copy)]
struct Element {
    /// Who appended it, [`NONE`] if nobody did.
    txn: u32,
    /// That transaction appended no more to the key later.
    last: bool,
    /// Where the longest read shows it, [`NONE`] if it does not.
    at: u32,
}

impl Element {
    fn shown(&self) -> bool {
        self.at != NONE
    }
}

type Elements<'h> = FxHashMap<&'h Value, Element>;

/// What the first pass leaves for the second.
struct Found<'h> {
    trunks: Vec<&'h [Value]>,
    /// Who appended the elements of the trunk.
    rows: PerKey<u32>,
    /// Who saw how much of the trunk: (length, transaction).
    seen: PerKey<(u32, u32)>,
    /// Who appended to the key, and whether one of the elements was never seen.
    appenders: PerKey<(u32, bool)>,
}

pub(super) fn analyse<'h>(history: &'h History, txns: Txns<'h>, options: &Options) -> Facts<'h> {
    let mut facts = Facts::new(history, txns);
    facts.initial = Some(Value::Nil);
    let steps = by_key(&facts.txns);
    let mut found = Found {
        trunks: Vec::with_capacity(facts.txns.keys.len()),
        rows: PerKey::new(),
        seen: PerKey::new(),
        appenders: PerKey::new(),
    };
    for key in 0..index(facts.txns.keys.len()) {
        let steps = steps.of(key);
        let mut elements = elements(&mut facts, key, steps);
        let trunk = trunk(steps);
        check_trunk(&mut facts, &mut elements, key, trunk, options);
        let row = trunk.iter().map(|element| elements.get(element).map_or(NONE, |e| e.txn));
        found.rows.items.extend(row);
        found.rows.close();
        appenders(&elements, steps, &mut found.appenders);
        reads(&mut facts, &elements, (key, trunk), steps, &mut found.seen);
        found.trunks.push(trunk);
    }
    drop(steps);
    connect::connect(&mut facts, &found);
    facts.trunks = Some(found.trunks);
    facts
}

fn elements<'h>(facts: &mut Facts<'h>, key: u32, steps: &[Step<'h>]) -> Elements<'h> {
    let mut elements = Elements::default();
    let mut previous: Option<Step<'h>> = None;
    for step in steps.iter().filter(|step| step.write) {
        let element = Element { txn: step.txn, last: true, at: NONE };
        if let Some(before) = elements.insert(step.value, element) {
            facts.ambiguous = Some(format!(
                "{} was appended to key {} by {} and again by {}: elements of a key must differ",
                step.value,
                facts.key(key),
                facts.history.describe(facts.op(before.txn) as usize),
                facts.history.describe(facts.op(step.txn) as usize),
            ));
        }
        if let Some(before) = previous.filter(|before| before.txn == step.txn)
            && let Some(element) = elements.get_mut(before.value)
        {
            element.last = false;
        }
        previous = Some(*step);
    }
    elements
}

fn items(value: &Value) -> &[Value] {
    value.as_items().unwrap_or(&[])
}

/// The first of the longest reads.
fn trunk<'h>(steps: &[Step<'h>]) -> &'h [Value] {
    let mut trunk: &'h [Value] = &[];
    for step in steps.iter().filter(|step| !step.write) {
        let seen = items(step.value);
        if seen.len() > trunk.len() {
            trunk = seen;
        }
    }
    trunk
}

/// Elements that stand twice, that nobody appended, or that were taken back. Marks those of unknown
/// outcome as having happened.
fn check_trunk<'h>(
    facts: &mut Facts<'h>,
    elements: &mut Elements<'h>,
    key: u32,
    trunk: &'h [Value],
    options: &Options,
) {
    // The latest that was aborted and has nothing committed behind it yet.
    let mut aborted: Option<(&Value, u32)> = None;
    for (at, value) in (0_u32..).zip(trunk) {
        let name = facts.key(key);
        let unknown = Element { txn: NONE, last: true, at: NONE };
        let element = elements.entry(value).or_insert(unknown);
        if element.shown() {
            let message = format!("a read of key {name} shows {value} twice: {}", Short(trunk));
            facts.anomaly(Level::ReadUncommitted, "duplicate-elements", message, &[]);
        } else {
            element.at = at;
        }
        match element.txn {
            NONE if options.unwritten_is_anomaly => {
                let message = format!("key {name} shows {value}, which nobody appended");
                facts.anomaly(Level::ReadCommitted, "garbage-read", message, &[]);
            }
            NONE => {
                facts.outside.insert((key, value));
                facts.notes.push(format!("nobody here appended {value} to key {name}"));
                facts.notes.truncate(50);
            }
            writer if facts.txns.all[writer as usize].outcome == Outcome::Fail => {
                let who = facts.history.describe(facts.op(writer) as usize);
                let message = format!("key {name} shows {value}, which was aborted: {who}");
                facts.anomaly(Level::ReadCommitted, "G1a", message, &[writer]);
                aborted = Some((value, writer));
            }
            writer => {
                facts.included[writer as usize] = true;
                let committed = facts.txns.all[writer as usize].outcome == Outcome::Ok;
                if let Some((before, by)) = aborted.take_if(|_| committed) {
                    let message = format!(
                        "key {name} had {before} of an aborted transaction when {value} of a \
                         committed one was appended"
                    );
                    facts.anomaly(Level::ReadCommitted, "dirty-update", message, &[by, writer]);
                }
            }
        }
    }
}

fn appenders(elements: &Elements<'_>, steps: &[Step<'_>], into: &mut PerKey<(u32, bool)>) {
    let mut current: Option<(u32, bool)> = None;
    for step in steps.iter().filter(|step| step.write) {
        let unseen = elements.get(step.value).is_none_or(|element| !element.shown());
        match &mut current {
            Some((txn, any)) if *txn == step.txn => *any |= unseen,
            _ => into.items.extend(current.replace((step.txn, unseen))),
        }
    }
    into.items.extend(current);
    into.close();
}

struct Short<'v>(&'v [Value]);

impl std::fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.len() <= 24 {
            return write!(f, "{}", Value::from(self.0.to_vec()));
        }
        let tail = Value::from(self.0[self.0.len() - 12..].to_vec());
        write!(f, "{} elements, at the end {tail}", self.0.len())
    }
}

/// Compares every read with the trunk, and with what its own transaction knew of the key by then:
/// what it had seen, and what it had appended since.
fn reads<'h>(
    facts: &mut Facts<'h>,
    elements: &Elements<'h>,
    (key, trunk): (u32, &'h [Value]),
    steps: &[Step<'h>],
    seen: &mut PerKey<(u32, u32)>,
) {
    let mut base: Option<&'h [Value]> = None;
    let mut own: Vec<&'h Value> = Vec::new();
    let mut current = NONE;
    for (n, step) in steps.iter().enumerate() {
        if facts.txns.all[step.txn as usize].outcome != Outcome::Ok {
            continue;
        }
        if step.txn != current {
            current = step.txn;
            base = None;
            own.clear();
        }
        if step.write {
            own.push(step.value);
            continue;
        }
        let list = items(step.value);
        if future(facts, elements, (key, trunk), &steps[n..], list) {
            base = Some(list);
            own.clear();
            continue;
        }
        let before = list.len().checked_sub(own.len());
        let own_there = before.is_some_and(|at| list[at..].iter().eq(own.iter().copied()));
        let base_there = base.is_none_or(|base| before.is_some_and(|at| &list[..at] == base));
        let first = base.is_none() && own.is_empty();
        base = Some(list);
        own.clear();
        let name = facts.key(key);
        if !(own_there && base_there) {
            let message = format!(
                "{} read key {name} as {}, which contradicts its own earlier steps",
                facts.history.describe(facts.op(step.txn) as usize),
                Short(list),
            );
            // Who sees what others committed meanwhile has read twice, as read committed allows. Who
            // does not see its own appends has not even that.
            let broken = if own_there { Level::ReadAtomic } else { Level::ReadCommitted };
            facts.anomaly(broken, "internal", message, &[step.txn]);
        }
        if !trunk.starts_with(list) {
            let message = format!(
                "key {name} was read as {} and as {}: neither is the beginning of the other",
                Short(list),
                Short(trunk),
            );
            facts.anomaly(Level::ReadCommitted, "incompatible-order", message, &[step.txn]);
            check_stray(facts, elements, key, list, step.txn);
            continue;
        }
        if first || !base_there {
            seen.items.push((index(list.len()), step.txn));
            intermediate(facts, elements, key, list, step.txn);
        }
    }
    seen.close();
}

/// Whether the read that `steps` begin with shows what its own transaction appended only later.
fn future<'h>(
    facts: &mut Facts<'h>,
    elements: &Elements<'h>,
    (key, trunk): (u32, &'h [Value]),
    steps: &[Step<'h>],
    list: &'h [Value],
) -> bool {
    let reader = steps[0].txn;
    let later = steps.iter().take_while(|step| step.txn == reader).filter(|step| step.write);
    for step in later {
        let Some(element) = elements.get(step.value).filter(|element| element.txn == reader) else {
            continue;
        };
        // Most reads are the beginning of the longest one: then its place says enough.
        let shown = element.shown() && (element.at as usize) < list.len();
        let there = if shown && list[element.at as usize] == *step.value {
            true
        } else {
            !trunk.starts_with(list) && list.contains(step.value)
        };
        if there {
            let message = format!(
                "{} read {} from key {} before it appended that itself",
                facts.history.describe(facts.op(reader) as usize),
                step.value,
                facts.key(key)
            );
            facts.anomaly(Level::ReadCommitted, "future-read", message, &[reader]);
            return true;
        }
    }
    false
}

/// A read that is not part of the trunk still may not show what was aborted.
fn check_stray<'h>(
    facts: &mut Facts<'h>,
    elements: &Elements<'h>,
    key: u32,
    list: &'h [Value],
    reader: u32,
) {
    for value in list {
        let Some(element) = elements.get(value).filter(|e| e.txn != NONE) else { continue };
        if facts.txns.all[element.txn as usize].outcome == Outcome::Fail {
            let message = format!("key {} showed {value}, which was aborted", facts.key(key));
            facts.anomaly(Level::ReadCommitted, "G1a", message, &[element.txn, reader]);
        }
    }
}

fn intermediate<'h>(
    facts: &mut Facts<'h>,
    elements: &Elements<'h>,
    key: u32,
    list: &'h [Value],
    reader: u32,
) {
    let Some(last) = list.last() else { return };
    if let Some(element) = elements.get(last)
        && !element.last
        && element.txn != reader
    {
        let message = format!(
            "{} saw key {} end with {last}, in the middle of {}",
            facts.history.describe(facts.op(reader) as usize),
            facts.key(key),
            facts.history.describe(facts.op(element.txn) as usize),
        );
        facts.anomaly(Level::ReadCommitted, "G1b", message, &[element.txn, reader]);
    }
}
