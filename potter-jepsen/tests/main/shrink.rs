//! Counterexamples are small.

use potter_jepsen::linear::{Linearizability, Register};
use potter_jepsen::{Budget, Checker, Event, EventKind, History, Outcome, Shrunk, Value, shrink};

fn shrunk(events: Vec<Event>) -> Shrunk {
    let history = History::new(events).unwrap();
    let checker = Linearizability::new(Register::new(Value::Nil));
    let analysis = checker.check(&history, &Budget::default()).unwrap();
    assert!(analysis.verdict.is_invalid(), "{analysis:?}");
    shrink(&checker, &history, &analysis, &Budget::default()).unwrap()
}

fn op(events: &mut Vec<Event>, f: &str, called: Value, kind: EventKind, answered: Value) {
    events.push(Event::new(0, EventKind::Invoke, f, called));
    events.push(Event::new(0, kind, f, answered));
}

fn write(events: &mut Vec<Event>, value: i64) {
    op(events, "write", value.into(), EventKind::Ok, value.into());
}

fn cas(events: &mut Vec<Event>, from: i64, to: i64, kind: EventKind) {
    let pair = || Value::from(vec![Value::Int(from), Value::Int(to)]);
    op(events, "cas", pair(), kind, pair());
}

fn read(events: &mut Vec<Event>, seen: i64) {
    op(events, "read", Value::Nil, EventKind::Ok, seen.into());
}

/// A test of a server that forgets: hundreds of compare-and-sets were refused before, each with a
/// value of its own, and none of them has anything to do with it.
#[test]
fn refused_operations_do_not_hold_each_other() {
    let mut events = Vec::new();
    for n in 0..200 {
        write(&mut events, 1_000 + 3 * n);
        cas(&mut events, 7, 1_001 + 3 * n, EventKind::Fail);
        if n % 4 == 0 {
            cas(&mut events, 1_000 + 3 * n, 1_002 + 3 * n, EventKind::Ok);
        }
    }
    // 1594 was replaced by 1597, and is back after a restart.
    read(&mut events, 1_594);
    let small = shrunk(events);
    assert!(small.minimal);
    assert_eq!(small.history.operations().len(), 3, "{}", small.history.to_edn());
}

/// 12 was written and is no part of the 1213 that was read.
#[test]
fn a_number_is_not_part_of_another() {
    let mut events = Vec::new();
    for value in [121, 213, 1213, 1214] {
        write(&mut events, value);
    }
    read(&mut events, 1213);
    let small = shrunk(events);
    assert_eq!(small.history.operations().len(), 3, "{}", small.history.to_edn());
}

/// Without the failed write the read would be of a value that nobody wrote: another failure.
#[test]
fn a_failed_write_that_was_seen_stays() {
    let mut events = Vec::new();
    write(&mut events, 1);
    op(&mut events, "write", 2.into(), EventKind::Fail, 2.into());
    read(&mut events, 2);
    let small = shrunk(events);
    let failed = small.history.operations().iter().any(|op| op.outcome == Outcome::Fail);
    assert!(failed, "{}", small.history.to_edn());
}
