//! The operations of each workload.

use super::Kind;
use super::tables::ACCOUNTS;
use crate::generator::{self, Generator, each_thread, once, repeat};
use crate::history::EventKind;
use crate::random::Random;
use crate::runner::Op;
use crate::value::Value;

/// Writes to a key before a new key takes its place: lists and orders stay short.
const WRITES_PER_KEY: i64 = 50;
/// The keys of a group of `long-fork`.
const GROUP: i64 = 4;

pub(super) fn load(kind: Kind, keys: i64) -> Box<dyn Generator> {
    match kind {
        Kind::Register => registers(keys, false),
        Kind::Cas => registers(keys, true),
        Kind::Bank => bank(),
        Kind::Set => {
            let (mut next, mut since_read) = (0, 0);
            let load = generator::from_fn(move |_| {
                since_read += 1;
                // A read returns everything, so reads get rarer: the history grows with the set.
                if since_read > 20.max(next / 10) {
                    since_read = 0;
                    return Op::new("read");
                }
                next += 1;
                Op::new("add").value(next)
            });
            load.boxed()
        }
        Kind::Append => transactions(keys, "append"),
        Kind::Rw => transactions(keys, "w"),
        Kind::Queue => {
            let mut next = 0;
            let put = generator::from_fn(move |_| {
                next += 1;
                Op::new("enqueue").value(next)
            });
            generator::mix([put.boxed(), repeat(Op::new("dequeue")).boxed()]).boxed()
        }
        Kind::Counter => {
            let add = generator::from_fn(|random| Op::new("add").value(random.between(1, 5)));
            generator::mix([add.boxed(), repeat(Op::new("read")).boxed()]).boxed()
        }
        Kind::LongFork => long_fork(),
        Kind::Monotonic => {
            let both = [repeat(Op::new("increment")).boxed(), repeat(Op::new("read")).boxed()];
            generator::mix(both).boxed()
        }
    }
}

/// What is done when all faults are healed.
pub(super) fn last(kind: Kind) -> Option<Box<dyn Generator>> {
    let read = || once(Op::new("read")).boxed();
    match kind {
        Kind::Bank | Kind::Set | Kind::Counter | Kind::Monotonic => {
            Some(each_thread(move |_| read()).boxed())
        }
        Kind::Queue => {
            let empty = |event: &crate::history::Event| {
                event.kind == EventKind::Ok && &*event.f == "dequeue" && event.value.is_nil()
            };
            Some(repeat(Op::new("dequeue")).until(empty).boxed())
        }
        // Their keys are many; the load reads them all the time.
        Kind::Register | Kind::Cas | Kind::Append | Kind::Rw | Kind::LongFork => None,
    }
}

/// Keys in use: each is given up after its writes, and a new one takes its place.
struct Keys {
    active: Vec<(i64, i64)>,
    next: i64,
}

impl Keys {
    fn new(count: i64) -> Self {
        Self { active: (0..count).map(|key| (key, 0)).collect(), next: count }
    }

    fn pick(&mut self, random: &mut Random) -> i64 {
        self.active[random.index(self.active.len())].0
    }

    /// A key, with the number of this write to it.
    fn write(&mut self, random: &mut Random) -> (i64, i64) {
        let at = random.index(self.active.len());
        let (key, count) = &mut self.active[at];
        *count += 1;
        let answer = (*key, *count);
        if *count >= WRITES_PER_KEY {
            self.active[at] = (self.next, 0);
            self.next += 1;
        }
        answer
    }
}

fn registers(keys: i64, cas: bool) -> Box<dyn Generator> {
    let mut keys = Keys::new(keys);
    let load = generator::from_fn(move |random| match random.below(if cas { 4 } else { 2 }) {
        0 => Op::new("read").key(keys.pick(random)),
        2 | 3 => {
            let pair = vec![Value::Int(random.between(1, 5)), Value::Int(random.between(1, 5))];
            Op::new("cas").key(keys.write(random).0).value(pair)
        }
        _ => {
            let (key, count) = keys.write(random);
            // Without cas every value is written once, which is the quick case of the checker.
            let value = if cas { random.between(1, 5) } else { count };
            Op::new("write").key(key).value(value)
        }
    });
    load.boxed()
}

fn transactions(keys: i64, write: &'static str) -> Box<dyn Generator> {
    let mut keys = Keys::new(keys);
    let load = generator::from_fn(move |random| {
        let mut steps = Vec::new();
        for _ in 0..random.between(1, 4) {
            steps.push(match random.chance(500) {
                true => {
                    vec![Value::Keyword("r".into()), Value::Int(keys.pick(random)), Value::Nil]
                }
                false => {
                    let (key, value) = keys.write(random);
                    vec![Value::Keyword(write.into()), Value::Int(key), Value::Int(value)]
                }
            });
        }
        Op::new("txn").value(steps.into_iter().map(Value::from).collect::<Vec<_>>())
    });
    load.boxed()
}

fn bank() -> Box<dyn Generator> {
    let transfer = generator::from_fn(|random| {
        let from = random.between(0, ACCOUNTS - 1);
        let to = (from + random.between(1, ACCOUNTS - 1)) % ACCOUNTS;
        let parts = [("from", from), ("to", to), ("amount", random.between(1, 5))];
        let entry = |(name, number): (&str, i64)| (Value::Keyword(name.into()), Value::Int(number));
        Op::new("transfer").value(Value::Map(parts.into_iter().map(entry).collect()))
    });
    generator::mix([transfer.boxed(), repeat(Op::new("read")).boxed()]).boxed()
}

fn long_fork() -> Box<dyn Generator> {
    let mut count = 0;
    let step = |f: &str, key: i64, value: Value| {
        Value::from(vec![Value::Keyword(f.into()), Value::Int(key), value])
    };
    let load = generator::from_fn(move |random| {
        count += 1;
        // A write, then two reads of its group, in different orders.
        let key = (count - 1) / 3;
        if count % 3 == 1 {
            return Op::new("write").value(vec![step("w", key, Value::Int(1))]);
        }
        let first = key / GROUP * GROUP;
        let turn = random.between(0, GROUP - 1);
        let keys = (0..GROUP).map(|n| first + (n + turn) % GROUP);
        let steps: Vec<Value> = keys.map(|key| step("r", key, Value::Nil)).collect();
        Op::new("read").value(steps)
    });
    load.boxed()
}
