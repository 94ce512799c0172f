//! The transactional checkers against all serial orders, all snapshots and all orders of commits.

use std::collections::BTreeMap;

use potter_jepsen::txn::{Level, ListAppend, Options, RwRegister};
use potter_jepsen::{Analysis, Budget, Checker, Event, EventKind, History, Outcome, Value};

use crate::random::{Random, cases};

type State = BTreeMap<i64, Vec<i64>>;

#[derive(Clone, Debug)]
struct Step {
    write: bool,
    key: i64,
    /// Lists for reads of lists; registers are lists of at most one.
    value: Vec<i64>,
}

/// How loosely the simulated database keeps its transactions apart.
#[derive(Clone, Copy)]
enum Isolation {
    Serial,
    Snapshot,
    Sloppy,
}

struct Running {
    process: i64,
    steps: Vec<Step>,
    snapshot: State,
    next: usize,
    result: Vec<Step>,
    writes: Vec<Step>,
}

fn value(step: &Step, lists: bool) -> Value {
    let f = match (step.write, lists) {
        (false, _) => "r",
        (true, true) => "append",
        (true, false) => "w",
    };
    let items = || Value::List(step.value.iter().map(|&n| Value::Int(n)).collect());
    let one = || step.value.last().map_or(Value::Nil, |&n| Value::Int(n));
    let value = if lists && !step.write { items() } else { one() };
    Value::from(vec![Value::Keyword(f.into()), Value::Int(step.key), value])
}

fn apply(state: &mut State, step: &Step, lists: bool) {
    let entry = state.entry(step.key).or_default();
    if !lists {
        entry.clear();
    }
    entry.extend(&step.value);
}

fn random_history(random: &mut Random, lists: bool, sessions: bool) -> History {
    let isolation = *random.pick(&[Isolation::Serial, Isolation::Snapshot, Isolation::Sloppy]);
    let count = 1 + random.below(5);
    let keys = 1 + random.below(3);
    let mut state = State::new();
    let (mut events, mut running): (Vec<Event>, Vec<Running>) = (Vec::new(), Vec::new());
    let (mut started, mut unique, mut fresh) = (0, 0, 3);
    let mut idle = vec![0_i64, 1, 2];
    while started < count || !running.is_empty() {
        let may_start = started < count && !idle.is_empty();
        let alone = sessions || matches!(isolation, Isolation::Serial) && random.chance(50);
        if may_start && (running.is_empty() || !alone && random.chance(40)) {
            let process = idle.swap_remove(random.below(idle.len()));
            let steps: Vec<Step> = (0..1 + random.below(3))
                .map(|_| {
                    let write = random.chance(50);
                    unique += 1;
                    let value = if write { vec![unique] } else { Vec::new() };
                    Step { write, key: random.below(keys) as i64, value }
                })
                .collect();
            let asked = Value::List(steps.iter().map(|step| value(step, lists)).collect());
            events.push(Event::new(process, EventKind::Invoke, "txn", asked));
            let snapshot = state.clone();
            let (result, writes) = (Vec::new(), Vec::new());
            running.push(Running { process, steps, snapshot, next: 0, result, writes });
            started += 1;
            continue;
        }
        let at = random.below(running.len());
        let txn = &mut running[at];
        if txn.next < txn.steps.len() && !matches!(isolation, Isolation::Serial) {
            let mut step = txn.steps[txn.next].clone();
            txn.next += 1;
            let from =
                if matches!(isolation, Isolation::Sloppy) { &mut state } else { &mut txn.snapshot };
            if step.write {
                apply(from, &step, lists);
                txn.writes.push(step.clone());
            } else {
                step.value = from.get(&step.key).cloned().unwrap_or_default();
            }
            txn.result.push(step);
            continue;
        }
        let mut txn = running.swap_remove(at);
        if matches!(isolation, Isolation::Serial) {
            for mut step in txn.steps.clone() {
                if step.write {
                    apply(&mut state, &step, lists);
                } else {
                    step.value = state.get(&step.key).cloned().unwrap_or_default();
                }
                txn.result.push(step);
            }
        } else if matches!(isolation, Isolation::Snapshot) {
            for step in &txn.writes {
                apply(&mut state, step, lists);
            }
        }
        let done = Value::List(txn.result.iter().map(|step| value(step, lists)).collect());
        let kind = match random.below(20) {
            0 => EventKind::Info,
            1 if matches!(isolation, Isolation::Sloppy) => EventKind::Fail,
            _ => EventKind::Ok,
        };
        if kind == EventKind::Info {
            idle.push(fresh);
            fresh += 1;
        } else {
            idle.push(txn.process);
        }
        events.push(Event::new(txn.process, kind, "txn", done));
    }
    History::new(events).unwrap()
}

#[derive(Clone)]
struct Txn {
    steps: Vec<Step>,
    process: i64,
    begin: u32,
    end: u32,
    must: bool,
}

fn parsed(history: &History) -> Vec<Txn> {
    let mut txns = Vec::new();
    for (id, op) in history.operations().iter().enumerate() {
        if op.outcome == Outcome::Fail {
            continue;
        }
        let ok = op.outcome == Outcome::Ok;
        let source = if ok { history.output(id).unwrap() } else { history.input(id) };
        let mut steps = Vec::new();
        for step in source.as_items().unwrap() {
            let [f, key, value] = step.as_items().unwrap() else { panic!("{step}") };
            let write = f.as_name() != Some("r");
            let value = match value {
                Value::List(items) => items.iter().map(|n| n.as_int().unwrap()).collect(),
                Value::Nil => Vec::new(),
                other => vec![other.as_int().unwrap()],
            };
            if ok || write {
                steps.push(Step { write, key: key.as_int().unwrap(), value });
            }
        }
        let end = if ok { op.complete.unwrap() } else { u32::MAX };
        txns.push(Txn { steps, process: op.process.0, begin: op.invoke, end, must: ok });
    }
    txns
}

/// Runs a transaction; `None` if a read shows something else.
fn run(state: &State, txn: &Txn, lists: bool) -> Option<State> {
    let mut state = state.clone();
    for step in &txn.steps {
        if step.write {
            apply(&mut state, step, lists);
        } else if state.get(&step.key).map_or(&[][..], Vec::as_slice) != step.value {
            return None;
        }
    }
    Some(state)
}

fn serial(
    txns: &[Txn],
    placed: &mut Vec<usize>,
    state: &State,
    lists: bool,
    before: &dyn Fn(&Txn, &Txn) -> bool,
) -> bool {
    if (0..txns.len()).all(|n| !txns[n].must || placed.contains(&n)) {
        return true;
    }
    for n in 0..txns.len() {
        if placed.contains(&n) || placed.iter().any(|&p| before(&txns[n], &txns[p])) {
            continue;
        }
        // Whoever must come before and is not placed yet may still be left out only if it may.
        let Some(after) = run(state, &txns[n], lists) else { continue };
        placed.push(n);
        let found = serial(txns, placed, &after, lists, before);
        placed.pop();
        if found {
            return true;
        }
    }
    false
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut out = Vec::new();
    for shorter in permutations(count - 1) {
        for at in 0..count {
            let mut longer = shorter.clone();
            longer.insert(at, count - 1);
            out.push(longer);
        }
    }
    out
}

/// Snapshot isolation from its definition: some order of commits, for everyone a snapshot of a
/// prefix of it, and nobody in between who wrote the same.
///
/// Whoever comes `before` somebody is in his snapshot.
fn snapshot(txns: &[Txn], lists: bool, before: &dyn Fn(&Txn, &Txn) -> bool) -> bool {
    let optional: Vec<usize> = (0..txns.len()).filter(|&n| !txns[n].must).collect();
    (0..1_u32 << optional.len()).any(|mask| {
        let left_out =
            |n: &usize| optional.iter().position(|o| o == n).is_some_and(|at| mask >> at & 1 == 1);
        let used: Vec<&Txn> = (0..txns.len()).filter(|n| !left_out(n)).map(|n| &txns[n]).collect();
        permutations(used.len()).iter().any(|order| snapshot_order(&used, order, lists, before))
    })
}

fn snapshot_order(
    txns: &[&Txn],
    order: &[usize],
    lists: bool,
    before: &dyn Fn(&Txn, &Txn) -> bool,
) -> bool {
    let writes = |n: usize| txns[n].steps.iter().filter(|step| step.write);
    let mut states = vec![State::new()];
    for &n in order {
        let mut state = states[states.len() - 1].clone();
        for step in writes(n) {
            apply(&mut state, step, lists);
        }
        states.push(state);
    }
    order.iter().enumerate().all(|(at, &n)| {
        (0..=at).any(|from| {
            let conflict = order[from..at]
                .iter()
                .any(|&other| writes(other).any(|w| writes(n).any(|mine| mine.key == w.key)));
            let behind = &order[from..];
            let all_there = !behind.iter().any(|&other| before(txns[other], txns[n]));
            !conflict && all_there && run(&states[from], txns[n], lists).is_some()
        })
    })
}

fn holds(analysis: &Analysis, level: Level) -> Option<bool> {
    let (_, verdict) = analysis.levels.iter().find(|(known, _)| *known == level)?;
    if verdict.is_unknown() { None } else { Some(verdict.is_valid()) }
}

/// What is strictly serializable keeps every key linearizable, so assuming that changes nothing there;
/// nowhere does it make anything valid.
fn same_with_ordered_keys(history: &History, plain: &Analysis) {
    let mut options = Options::default();
    options.keys.linearizable = true;
    options.keys.sequential = true;
    options.keys.writes_follow_reads = true;
    let ordered = RwRegister::new(options).check(history, &Budget::default()).unwrap();
    for level in Level::ALL {
        let (Some(with), Some(without)) = (holds(&ordered, level), holds(plain, level)) else {
            continue;
        };
        let text = || format!("{}: {ordered:#?}\n{}", level.name(), history.to_edn());
        assert!(without || !with, "{}", text());
        assert!(level != Level::StrictSerializable || with == without, "{}", text());
    }
}

fn agree(lists: bool, seed: u64) {
    let mut counts = [[0_u64; 2]; 7];
    let mut unknown = 0;
    for case in 0..cases() {
        let mut random = Random::new(seed << 32 | case);
        let history = random_history(&mut random, lists, false);
        let budget = Budget::default();
        let analysis = match lists {
            true => ListAppend::new(Options::default()).check(&history, &budget),
            false => RwRegister::new(Options::default()).check(&history, &budget),
        };
        let analysis = analysis.unwrap();
        if history.operations().iter().all(|op| op.outcome != Outcome::Ok) {
            assert!(analysis.verdict.is_unknown());
            continue;
        }
        let txns = parsed(&history);
        let nothing = |_: &Txn, _: &Txn| false;
        let session = |a: &Txn, b: &Txn| a.process == b.process && a.begin < b.begin;
        let time = |a: &Txn, b: &Txn| session(a, b) || a.end < b.begin;
        let check = |before: &dyn Fn(&Txn, &Txn) -> bool| {
            serial(&txns, &mut Vec::new(), &State::new(), lists, before)
        };
        let expected = [
            (Level::Serializable, check(&nothing)),
            (Level::RepeatableRead, check(&nothing)),
            (Level::StrongSessionSerializable, check(&session)),
            (Level::StrictSerializable, check(&time)),
            (Level::SnapshotIsolation, snapshot(&txns, lists, &nothing)),
            (Level::StrongSessionSnapshotIsolation, snapshot(&txns, lists, &session)),
            (Level::StrongSnapshotIsolation, snapshot(&txns, lists, &time)),
        ];
        if !lists {
            same_with_ordered_keys(&history, &analysis);
        }
        for (n, (level, expected)) in expected.into_iter().enumerate() {
            let Some(found) = holds(&analysis, level) else {
                unknown += 1;
                continue;
            };
            let text = history.to_edn();
            assert_eq!(found, expected, "case {case}, {}: {analysis:#?}\n{text}", level.name());
            counts[n][usize::from(expected)] += 1;
        }
    }
    assert!(counts.iter().flatten().all(|&n| n * 50 > cases()), "{counts:?}");
    assert!(unknown * 200 <= cases(), "{unknown} undecided");
}

#[test]
fn lists_agree_with_all_serial_orders_and_snapshots() {
    agree(true, 21);
}

#[test]
fn registers_agree_with_all_serial_orders_and_snapshots() {
    agree(false, 22);
}

/// Biswas & Enea's axioms, straight from the paper, on every order of commits.
fn axioms(txns: &[Txn], level: Level) -> bool {
    let writer = |key: i64, value: &[i64]| {
        let wrote =
            |txn: &Txn| txn.steps.iter().any(|s| s.write && s.key == key && s.value == value);
        txns.iter().position(wrote)
    };
    let writes = |n: usize, key: i64| txns[n].steps.iter().any(|s| s.write && s.key == key);
    // (reader, place, key, writer); nobody: the initial value.
    let mut reads = Vec::new();
    for (n, txn) in txns.iter().enumerate() {
        for (at, step) in txn.steps.iter().enumerate().filter(|(_, step)| !step.write) {
            if txn.steps[..at].iter().any(|s| s.write && s.key == step.key) {
                continue;
            }
            let from = if step.value.is_empty() {
                None
            } else {
                Some(writer(step.key, &step.value).unwrap())
            };
            reads.push((n, at, step.key, from));
        }
    }
    let so = |a: usize, b: usize| txns[a].process == txns[b].process && a < b;
    let wr = |a: usize, b: usize| {
        reads.iter().any(|&(n, _, _, from)| n == b && from == Some(a) && a != b)
    };
    let mut past = vec![vec![false; txns.len()]; txns.len()];
    for (a, row) in past.iter_mut().enumerate() {
        for (b, before) in row.iter_mut().enumerate() {
            *before = so(a, b) || wr(a, b);
        }
    }
    for k in 0..txns.len() {
        for a in 0..txns.len() {
            for b in 0..txns.len() {
                past[a][b] |= past[a][k] && past[k][b];
            }
        }
    }
    permutations(txns.len()).iter().any(|order| {
        let place = |n: usize| order.iter().position(|&o| o == n).unwrap();
        let inside = (0..txns.len())
            .all(|a| (0..txns.len()).all(|b| !(so(a, b) || wr(a, b)) || place(a) < place(b)));
        inside
            && reads.iter().all(|&(t3, at, key, from)| {
                (0..txns.len()).filter(|&t2| writes(t2, key) && Some(t2) != from && t2 != t3).all(
                    |t2| {
                        let premise = match level {
                            Level::ReadCommitted => reads.iter().any(|&(n, earlier, _, f)| {
                                n == t3 && earlier < at && f == Some(t2)
                            }),
                            Level::ReadAtomic => so(t2, t3) || wr(t2, t3),
                            _ => past[t2][t3],
                        };
                        !premise || from.is_some_and(|t1| place(t2) < place(t1))
                    },
                )
            })
    })
}

#[test]
fn weak_levels_agree_with_the_axioms_on_all_orders_of_commits() {
    let mut counts = [[0_u64; 2]; 3];
    for case in 0..cases() {
        let mut random = Random::new(23 << 32 | case);
        // Random reads of random writes: most combinations are possible, few are consistent.
        let count = 2 + random.below(4);
        let keys = 1 + random.below(3) as i64;
        let mut plan: Vec<(i64, Vec<Step>)> = Vec::new();
        let mut written: Vec<(i64, i64)> = Vec::new();
        for n in 0..count {
            let mut steps: Vec<Step> = Vec::new();
            for at in 0..1 + random.below(3) {
                let key = random.below(keys as usize) as i64;
                let write = random.chance(45) && !steps.iter().any(|s| s.write && s.key == key);
                let value = (n * 10 + at + 1) as i64;
                if write {
                    written.push((key, value));
                }
                steps.push(Step { write, key, value: if write { vec![value] } else { vec![] } });
            }
            plan.push((random.below(3) as i64, steps));
        }
        for (_, steps) in &mut plan {
            for at in 0..steps.len() {
                if steps[at].write {
                    continue;
                }
                let key = steps[at].key;
                if let Some(own) = steps[..at].iter().find(|s| s.write && s.key == key) {
                    steps[at].value = own.value.clone();
                    continue;
                }
                let mine: Vec<i64> =
                    steps.iter().filter(|s| s.write).flat_map(|s| s.value.clone()).collect();
                let from: Vec<i64> = written
                    .iter()
                    .filter(|w| w.0 == key && !mine.contains(&w.1))
                    .map(|w| w.1)
                    .collect();
                if !from.is_empty() && random.chance(85) {
                    steps[at].value = vec![*random.pick(&from)];
                }
            }
        }
        let mut events = Vec::new();
        for (process, steps) in &plan {
            let done = Value::List(steps.iter().map(|step| value(step, false)).collect());
            events.push(Event::new(*process, EventKind::Invoke, "txn", done.clone()));
            events.push(Event::new(*process, EventKind::Ok, "txn", done));
        }
        let history = History::new(events).unwrap();
        let mut options = Options::default();
        options.sessions_only = true;
        let analysis = RwRegister::new(options).check(&history, &Budget::default()).unwrap();
        let txns = parsed(&history);
        for (n, level) in
            [Level::ReadCommitted, Level::ReadAtomic, Level::Causal].into_iter().enumerate()
        {
            let expected = axioms(&txns, level);
            let found = holds(&analysis, level).unwrap();
            let text = history.to_edn();
            assert_eq!(found, expected, "case {case}, {}: {analysis:#?}\n{text}", level.name());
            counts[n][usize::from(expected)] += 1;
        }
    }
    assert!(counts.iter().flatten().all(|&n| n * 50 > cases()), "{counts:?}");
}
