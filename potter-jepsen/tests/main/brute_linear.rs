//! Every linearizability algorithm against all orders of small histories.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use potter_jepsen::linear::{
    Algorithm, Call, Counter, FailedCas, Fifo, KeyValue, Linearizability, Model, MultiRegister,
    Mutex, Partition, Register, SetModel, Stack, UnorderedQueue,
};
use potter_jepsen::{Budget, Checker, EventKind, History, Outcome, Value};

use crate::random::{Random, cases};
use crate::simulate::{Answer, Ask, brute_force, history, mutated};

fn agree<M: Model + Clone, S: Default>(
    model: &M,
    seed: u64,
    ask: Ask,
    answer: Answer<S>,
    other: &[Value],
) {
    agree_with(model, seed, ask, answer, other, 4, &[0, 10, 30]);
}

fn agree_with<M: Model + Clone, S: Default>(
    model: &M,
    seed: u64,
    ask: Ask,
    answer: Answer<S>,
    other: &[Value],
    clients: usize,
    crashes: &[usize],
) {
    agree_as(model, model, seed, ask, answer, other, clients, crashes);
}

/// All orders of `plain` against the searches for `model`.
#[expect(clippy::too_many_arguments, reason = "what a random case is made of")]
fn agree_as<M: Model + Clone, P: Model, S: Default>(
    model: &M,
    plain: &P,
    seed: u64,
    ask: Ask,
    answer: Answer<S>,
    other: &[Value],
    clients: usize,
    crashes: &[usize],
) {
    let (mut valid, mut invalid) = (0, 0);
    for case in 0..cases() {
        let mut random = Random::new(seed << 32 | case);
        let ops = 1 + random.below(8);
        let clients = 1 + random.below(clients);
        let crashes = *random.pick(crashes);
        let mut history = history(&mut random, ops, clients, crashes, ask, answer);
        for _ in 0..random.below(3) {
            history = mutated(&history, &mut random, other);
        }
        let expected = brute_force(plain, &history);
        let all = [
            (Algorithm::Auto, 8),
            (Algorithm::JustInTime, 8),
            (Algorithm::JustInTime, 1),
            (Algorithm::WingGong, 8),
        ];
        for (algorithm, width) in all {
            let checker = Linearizability::new(model.clone());
            let checker = checker.with_algorithm(algorithm).with_first_width(width);
            let verdict = checker.check(&history, &Budget::default()).unwrap().verdict;
            if verdict.is_unknown() {
                let none = history.operations().iter().all(|op| op.outcome != Outcome::Ok);
                assert!(none, "case {case}: {verdict:?}\n{}", history.to_edn());
                continue;
            }
            assert_eq!(
                verdict.is_valid(),
                expected,
                "case {case}, {algorithm:?} {width}: {verdict:#?}\n{}",
                history.to_edn()
            );
        }
        if expected { valid += 1 } else { invalid += 1 }
    }
    assert!(valid * 20 > cases() && invalid * 20 > cases(), "{valid} valid, {invalid} invalid");
}

fn ints(to: i64) -> Vec<Value> {
    (0..to).map(Value::Int).chain([Value::Nil]).collect()
}

fn register(state: &mut Value, f: &str, input: &Value) -> Option<Value> {
    match (f, input) {
        ("write", value) => {
            *state = value.clone();
            Some(value.clone())
        }
        ("cas", Value::List(pair)) => {
            (*state == pair[0]).then(|| *state = pair[1].clone()).map(|()| input.clone())
        }
        _ => Some(state.clone()),
    }
}

#[test]
fn cas_registers_agree_with_all_orders() {
    let ask: Ask = |random, _| {
        let mut value = || Value::Int(random.below(3) as i64);
        let (a, b) = (value(), value());
        match random.below(3) {
            0 => ("write", a),
            1 => ("cas", Value::from(vec![a, b])),
            _ => ("read", Value::Nil),
        }
    };
    agree(&Register::new(Value::Nil), 1, ask, register, &ints(3));
    let mismatch = Register::new(Value::Nil).failed_cas(FailedCas::Mismatch);
    agree(&mismatch, 2, ask, register, &ints(3));
}

#[test]
fn registers_with_different_writes_agree_with_all_orders() {
    let ask: Ask = |random, n| match random.below(2) {
        0 => ("write", Value::Int(n as i64)),
        _ => ("read", Value::Nil),
    };
    agree(&Register::new(Value::Nil), 3, ask, register, &ints(6));
}

#[test]
fn cas_registers_with_few_values_and_many_crashes_agree_with_all_orders() {
    let ask: Ask = |random, _| {
        let mut value = || Value::Int(random.below(2) as i64);
        let (a, b) = (value(), value());
        match random.below(6) {
            0 => ("write", a),
            1..=3 => ("cas", Value::from(vec![a, b])),
            _ => ("read", Value::Nil),
        }
    };
    agree_with(&Register::new(Value::Int(0)), 14, ask, zero, &ints(2)[..2], 6, &[40, 60]);
    let mismatch = Register::new(Value::Int(0)).failed_cas(FailedCas::Mismatch);
    agree_with(&mismatch, 15, ask, zero, &ints(2)[..2], 6, &[40, 60]);
}

/// A register that holds 0 at first.
fn zero(state: &mut Option<Value>, f: &str, input: &Value) -> Option<Value> {
    register(state.get_or_insert(Value::Int(0)), f, input)
}

#[test]
fn cas_registers_with_different_values_agree_with_all_orders() {
    // Compare-and-sets go from one of the last values to a new one.
    let ask: Ask = |random, n| {
        let n = n as i64 + 1;
        let from = (n - 1 - random.below(2) as i64).max(0);
        match random.below(5) {
            0 => ("write", Value::Int(n)),
            1 | 2 => ("cas", Value::from(vec![Value::Int(from), Value::Int(n)])),
            _ => ("read", Value::Nil),
        }
    };
    agree(&Register::new(Value::Int(0)), 16, ask, zero, &ints(7)[..7]);
}

#[test]
fn texts_of_different_pieces_agree_with_all_orders() {
    let ask: Ask = |random, n| {
        let text = Value::from(["a", "b", "c", "d", "e", "f", "g", "h"][n as usize]);
        match random.below(6) {
            0 => ("put", text),
            1 | 2 => ("append", text),
            _ => ("get", Value::Nil),
        }
    };
    let other = ["", "a", "ab", "ba", "b", "abc", "cb", "ac", "d", "cd", "bd"];
    agree(&KeyValue::default(), 17, ask, text, &other.map(Value::from));
    // Pieces of which some begin, and make, others.
    let ask: Ask = |random, n| {
        let text = Value::from(["a", "ab", "b", "ba", "aa", "bb", "c", "abb"][n as usize]);
        match random.below(6) {
            0 => ("put", text),
            1 | 2 => ("append", text),
            _ => ("get", Value::Nil),
        }
    };
    agree(&KeyValue::default(), 18, ask, text, &other.map(Value::from));
}

fn text(state: &mut String, f: &str, input: &Value) -> Option<Value> {
    match f {
        "put" => *state = input.as_name()?.to_owned(),
        "append" => state.push_str(input.as_name()?),
        _ => return Some(Value::from(state.as_str())),
    }
    Some(input.clone())
}

#[test]
fn key_values_agree_with_all_orders() {
    let ask: Ask = |random, _| {
        let text = Value::from(*random.pick(&["a", "b"]));
        match random.below(5) {
            0 => ("put", text),
            1 | 2 => ("append", text),
            _ => ("get", Value::Nil),
        }
    };
    let other: Vec<Value> = ["", "a", "ab", "ba", "b", "aa"].map(Value::from).to_vec();
    agree(&KeyValue::default(), 4, ask, text, &other);
}

#[test]
fn mutexes_agree_with_all_orders() {
    let ask: Ask = |random, _| match random.below(2) {
        0 => ("acquire", Value::Nil),
        _ => ("release", Value::Nil),
    };
    // A lock that sometimes does not look.
    let answer: Answer<(bool, u32)> = |state, f, _| {
        state.1 += 1;
        let wants = f == "acquire";
        if state.0 == wants && state.1 % 3 != 0 {
            return None;
        }
        state.0 = wants;
        Some(Value::Nil)
    };
    agree(&Mutex::default(), 5, ask, answer, &[Value::Nil]);
}

fn set(state: &mut BTreeSet<Value>, f: &str, input: &Value) -> Option<Value> {
    match f {
        "add" => _ = state.insert(input.clone()),
        "remove" => _ = state.remove(input),
        "read" => return Some(Value::Set(state.iter().cloned().collect())),
        _ => return Some(Value::Bool(state.contains(input))),
    }
    Some(input.clone())
}

#[test]
fn sets_agree_with_all_orders() {
    let contains: Ask = |random, _| {
        let element = Value::Int(random.below(2) as i64);
        (*random.pick(&["add", "remove", "contains", "contains"]), element)
    };
    agree(&SetModel::default(), 6, contains, set, &[Value::Bool(true), Value::Bool(false)]);
    let reads: Ask = |random, _| {
        let element = Value::Int(random.below(2) as i64);
        (*random.pick(&["add", "remove", "read", "read"]), element)
    };
    let of = |items: &[i64]| Value::Set(items.iter().copied().map(Value::Int).collect());
    agree(&SetModel::default(), 7, reads, set, &[of(&[]), of(&[0]), of(&[1]), of(&[0, 1])]);
}

fn queue(state: &mut VecDeque<Value>, f: &str, input: &Value) -> Option<Value> {
    match f {
        "enqueue" => state.push_back(input.clone()),
        _ => return Some(state.pop_front().unwrap_or_default()),
    }
    Some(input.clone())
}

fn stack(state: &mut VecDeque<Value>, f: &str, input: &Value) -> Option<Value> {
    match f {
        "enqueue" => state.push_back(input.clone()),
        _ => return Some(state.pop_back().unwrap_or_default()),
    }
    Some(input.clone())
}

const DIFFERENT: Ask = |random, n| match random.below(2) {
    0 => ("enqueue", Value::Int(n as i64)),
    _ => ("dequeue", Value::Nil),
};

const SAME: Ask = |random, _| match random.below(2) {
    0 => ("enqueue", Value::Int(random.below(2) as i64)),
    _ => ("dequeue", Value::Nil),
};

#[test]
fn queues_agree_with_all_orders() {
    // Only dequeues have results that count; a changed enqueue changes nothing.
    agree(&Fifo::default(), 8, DIFFERENT, queue, &ints(6));
    agree(&Fifo::default(), 9, SAME, queue, &ints(2));
}

#[test]
fn stacks_agree_with_all_orders() {
    agree(&Stack::default(), 10, DIFFERENT, stack, &ints(6));
    agree(&Stack::default(), 11, SAME, stack, &ints(2));
}

/// A stack that is a queue now and then: values come out from under others.
#[test]
fn stacks_that_are_queues_at_times_agree_with_all_orders() {
    let answer: Answer<(VecDeque<Value>, u32)> = |(inside, count), f, input| {
        *count += 1;
        if *count % 3 == 0 { queue(inside, f, input) } else { stack(inside, f, input) }
    };
    agree_with(&Stack::default(), 20, DIFFERENT, answer, &ints(6), 6, &[0, 0, 15]);
}

/// Too large for all orders; the search knows nothing of the monitor.
#[test]
fn stacks_of_many_values_agree_with_the_search() {
    let (mut valid, mut invalid, mut too_large) = (0, 0, 0);
    for case in 0..cases() / 5 {
        let mut random = Random::new(21 << 32 | case);
        let clients = 2 + random.below(3);
        let mut history = history(&mut random, 24, clients, 0, DIFFERENT, stack);
        if random.chance(60) {
            // Two pops change places.
            let mut events = history.events().to_vec();
            let pops: Vec<usize> = (0..events.len())
                .filter(|&n| events[n].kind == EventKind::Ok && &*events[n].f == "dequeue")
                .collect();
            let at = random.below(pops.len().max(2) - 1);
            if let [a, b, ..] = pops[at.min(pops.len())..] {
                let value = events[a].value.clone();
                events[a].value = std::mem::replace(&mut events[b].value, value);
            }
            history = History::new(events).unwrap();
        }
        let check = |algorithm| {
            let checker = Linearizability::new(Stack::default()).with_algorithm(algorithm);
            checker.check(&history, &Budget::default()).unwrap().verdict
        };
        let (monitor, search) = (check(Algorithm::Auto), check(Algorithm::JustInTime));
        assert!(!monitor.is_unknown(), "case {case}: {monitor:#?}");
        if search.is_unknown() {
            // For the search, at its limit of time or memory; not for the monitor.
            too_large += 1;
            continue;
        }
        let same = monitor.is_valid() == search.is_valid();
        assert!(same, "case {case}: {monitor:#?}\n{}", history.to_edn());
        if monitor.is_valid() { valid += 1 } else { invalid += 1 }
    }
    assert!(valid * 10 > cases() / 5 && invalid * 10 > cases() / 5, "{valid}, {invalid}");
    assert!(too_large * 100 <= cases() / 5, "{too_large}");
}

/// An unordered queue as one object: all elements together, sorted.
struct Bag;

impl Model for Bag {
    type State = Vec<Value>;
    type Op = (bool, Value);

    fn name(&self) -> String {
        "bag".into()
    }

    fn initial(&self, _: Option<&Value>) -> Vec<Value> {
        Vec::new()
    }

    fn prepare(&self, call: &Call<'_>) -> Result<Option<(bool, Value)>, String> {
        Ok(match (call.f, call.outcome) {
            (_, Outcome::Fail) => None,
            ("enqueue", _) => Some((true, call.input.clone())),
            (_, Outcome::Ok) if !call.output.is_nil() => Some((false, call.output.clone())),
            _ => None,
        })
    }

    fn step(&self, state: &Vec<Value>, (put, value): &(bool, Value)) -> Option<Vec<Value>> {
        let mut after = state.clone();
        if *put {
            after.push(value.clone());
            after.sort();
        } else {
            after.remove(after.iter().position(|inside| inside == value)?);
        }
        Some(after)
    }

    fn partition(&self, _: &Call<'_>) -> Partition {
        Partition::Whole
    }
}

#[test]
fn unordered_queues_agree_with_all_orders() {
    let ask: Ask = |random, n| match random.below(2) {
        0 => ("enqueue", Value::Int((n as i64).min(random.below(4) as i64))),
        _ => ("dequeue", Value::Nil),
    };
    let model = UnorderedQueue::default();
    agree_as(&model, &Bag, 19, ask, stack, &ints(4), 4, &[0, 10, 30]);
}

#[test]
fn counters_agree_with_all_orders() {
    let ask: Ask = |random, _| match random.below(2) {
        0 => ("add", Value::Int(1 + random.below(2) as i64)),
        _ => ("read", Value::Nil),
    };
    let answer: Answer<i64> = |state, f, input| {
        if f == "read" {
            return Some(Value::Int(*state));
        }
        *state += input.as_int()?;
        Some(input.clone())
    };
    agree(&Counter::default(), 12, ask, answer, &ints(5)[..5]);
}

#[test]
fn multi_registers_agree_with_all_orders() {
    let ask: Ask = |random, _| {
        let step = |random: &mut Random| {
            let f = *random.pick(&["r", "w"]);
            let value = if f == "w" { Value::Int(random.below(2) as i64) } else { Value::Nil };
            Value::from(vec![f.into(), Value::Int(random.below(2) as i64), value])
        };
        let steps: Vec<Value> = (0..1 + random.below(2)).map(|_| step(random)).collect();
        ("txn", Value::from(steps))
    };
    let answer: Answer<BTreeMap<Value, Value>> = |state, _, input| {
        let mut steps = Vec::new();
        for step in input.as_items()? {
            let [f, key, value] = step.as_items()? else { return None };
            let value = match f.as_name() {
                Some("w") => {
                    state.insert(key.clone(), value.clone());
                    value.clone()
                }
                _ => state.get(key).cloned().unwrap_or_default(),
            };
            steps.push(Value::from(vec![f.clone(), key.clone(), value]));
        }
        Some(Value::from(steps))
    };
    let read =
        |key, value| Value::from(vec![Value::from(vec!["r".into(), Value::Int(key), value])]);
    let other = [read(0, Value::Int(0)), read(0, Value::Int(1)), read(1, Value::Nil)];
    agree(&MultiRegister::new(Value::Nil), 13, ask, answer, &other);
}
