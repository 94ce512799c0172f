//! A checker that can't fail is worth nothing: valid histories with one thing broken are caught.

use std::collections::BTreeMap;

use potter_jepsen::{Budget, Event, EventKind, Format, History, Spec, Value};

use crate::random::Random;

fn verdict(model: &str, history: &History) -> &'static str {
    let checker = Spec::parse(model).unwrap().checker(Format::Edn).unwrap();
    checker.check(history, &Budget::default()).unwrap().verdict.name()
}

fn step(f: &str, key: usize, value: Value) -> Value {
    Value::from(vec![Value::Keyword(f.into()), Value::Int(key as i64), value])
}

/// Strictly serializable transactions on lists; each takes effect when it completes.
fn lists(random: &mut Random) -> Vec<Event> {
    let mut state: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    let (mut events, mut open, mut unique) = (Vec::new(), Vec::new(), 0);
    for _ in 0..80 {
        if open.len() < 5 && random.chance(60) {
            let process = (0..5).find(|p| !open.contains(p)).unwrap();
            events.push(Event::new(process, EventKind::Invoke, "txn", Value::Nil));
            open.push(process);
        } else if !open.is_empty() {
            let process = open.swap_remove(random.below(open.len()));
            let mut steps = Vec::new();
            for _ in 0..1 + random.below(3) {
                let key = random.below(3);
                let list = state.entry(key).or_default();
                if random.chance(50) {
                    steps.push(step("r", key, Value::from(list.clone())));
                } else {
                    unique += 1;
                    list.push(Value::Int(unique));
                    steps.push(step("append", key, Value::Int(unique)));
                }
            }
            events.push(Event::new(process, EventKind::Ok, "txn", Value::from(steps)));
        }
    }
    // In the end everything is read, so that nothing stays unseen.
    let all = (0..3).map(|key| step("r", key, Value::from(state.remove(&key).unwrap_or_default())));
    events.push(Event::new(9, EventKind::Invoke, "txn", Value::Nil));
    events.push(Event::new(9, EventKind::Ok, "txn", Value::List(all.collect())));
    events
}

/// Breaks one read: an element twice, two swapped, one lost in the middle, one invented.
fn break_list(events: &mut [Event], random: &mut Random) -> bool {
    let mut reads = Vec::new();
    for (n, event) in events.iter().enumerate() {
        for (at, step) in event.value.as_items().unwrap_or_default().iter().enumerate() {
            let list = step.as_items().and_then(|parts| parts[2].as_items());
            if list.is_some_and(|list| list.len() >= 3) {
                reads.push((n, at));
            }
        }
    }
    if reads.is_empty() {
        return false;
    }
    let (n, at) = *random.pick(&reads);
    let Value::List(steps) = &mut events[n].value else { return false };
    let Value::List(parts) = &mut steps[at] else { return false };
    let Value::List(list) = &mut parts[2] else { return false };
    let place = random.below(list.len() - 2);
    match random.below(4) {
        0 => list.push(list[place].clone()),
        1 => list.swap(place, place + 1),
        2 => _ = list.remove(place),
        _ => list.insert(place, Value::Int(1_000_000)),
    }
    true
}

#[test]
fn broken_reads_of_lists_are_caught() {
    let (mut caught, mut broken) = (0, 0);
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut events = lists(&mut random);
        let history = History::new(events.clone()).unwrap();
        assert_eq!(verdict("list-append unwritten=anomaly", &history), "valid", "seed {seed}");
        if !break_list(&mut events, &mut random) {
            continue;
        }
        broken += 1;
        let history = History::new(events).unwrap();
        caught += usize::from(verdict("list-append unwritten=anomaly", &history) == "invalid");
    }
    assert!(broken > 150 && caught * 100 >= broken * 99, "{caught} of {broken}");
}

/// Linearizable reads and writes; a stale read is one of a value that was overwritten before.
#[test]
fn stale_reads_of_registers_are_caught() {
    let (mut caught, mut broken) = (0, 0);
    for seed in 0..200 {
        let mut random = Random::new(1000 + seed);
        let (mut events, mut value, mut stale) = (Vec::new(), 0, Vec::new());
        for n in 1..60 {
            let process = random.below(4) as i64;
            if random.chance(40) {
                events.push(Event::new(process, EventKind::Invoke, "write", Value::Int(n)));
                events.push(Event::new(process, EventKind::Ok, "write", Value::Int(n)));
                value = n;
            } else {
                events.push(Event::new(process, EventKind::Invoke, "read", Value::Nil));
                if value > 0 {
                    stale.push((events.len(), value));
                }
                let seen = if value == 0 { Value::Nil } else { Value::Int(value) };
                events.push(Event::new(process, EventKind::Ok, "read", seen));
            }
        }
        let history = History::new(events.clone()).unwrap();
        assert_eq!(verdict("register init=nil", &history), "valid", "seed {seed}");
        let (at, _) = *random.pick(&stale);
        events[at].value = Value::Nil;
        broken += 1;
        let history = History::new(events).unwrap();
        caught += usize::from(verdict("register init=nil", &history) == "invalid");
    }
    assert!(caught * 100 >= broken * 99, "{caught} of {broken}");
}

#[test]
fn money_from_nowhere_and_lost_elements_are_caught() {
    for seed in 0..200 {
        let mut random = Random::new(2000 + seed);
        let (mut bank, mut set) = (Vec::new(), Vec::new());
        let mut elements = Vec::new();
        let mut balances = [30_i64, 30, 40];
        for n in 0..20 {
            let (from, to) = (random.below(3), random.below(3));
            if balances[from] > 0 {
                balances[from] -= 1;
                balances[to] += 1;
            }
            let all = balances.iter().enumerate();
            let read =
                Value::Map(all.map(|(k, v)| (Value::Int(k as i64), Value::Int(*v))).collect());
            bank.push(Event::new(0, EventKind::Invoke, "read", Value::Nil));
            bank.push(Event::new(0, EventKind::Ok, "read", read));
            set.push(Event::new(0, EventKind::Invoke, "add", Value::Int(n)));
            set.push(Event::new(0, EventKind::Ok, "add", Value::Int(n)));
            elements.push(Value::Int(n));
        }
        set.push(Event::new(1, EventKind::Invoke, "read", Value::Nil));
        set.push(Event::new(1, EventKind::Ok, "read", Value::from(elements.clone())));
        for (model, events) in [("bank", &bank), ("set", &set), ("set-full", &set)] {
            assert_eq!(verdict(model, &History::new(events.clone()).unwrap()), "valid", "{model}");
        }
        let at = 2 * (1 + random.below(19)) + 1;
        let Value::Map(entries) = &mut bank[at].value else { panic!("a read") };
        entries[random.below(3)].1 = Value::Int(50 + random.below(9) as i64);
        elements.remove(random.below(elements.len()));
        set.last_mut().unwrap().value = Value::from(elements);
        for (model, events) in [("bank", &bank), ("set", &set), ("set-full", &set)] {
            assert_eq!(
                verdict(model, &History::new(events.clone()).unwrap()),
                "invalid",
                "{model}"
            );
        }
    }
}

/// Elements that go into a queue and come out in any order, by several clients.
fn queue(random: &mut Random) -> Vec<Event> {
    let (mut events, mut inside) = (Vec::new(), Vec::new());
    for n in 0..40 {
        let process = random.below(4) as i64;
        if inside.is_empty() || random.chance(60) {
            events.push(Event::new(process, EventKind::Invoke, "enqueue", Value::Int(n)));
            events.push(Event::new(process, EventKind::Ok, "enqueue", Value::Int(n)));
            inside.push(n);
        } else {
            let n = inside.swap_remove(random.below(inside.len()));
            events.push(Event::new(process, EventKind::Invoke, "dequeue", Value::Nil));
            events.push(Event::new(process, EventKind::Ok, "dequeue", Value::Int(n)));
        }
    }
    let left: Vec<Value> = inside.into_iter().map(Value::Int).collect();
    events.push(Event::new(9, EventKind::Invoke, "drain", Value::Nil));
    events.push(Event::new(9, EventKind::Ok, "drain", Value::from(left)));
    events
}

#[test]
fn what_a_queue_loses_doubles_or_invents_is_caught() {
    for seed in 0..200 {
        let mut random = Random::new(3000 + seed);
        let mut events = queue(&mut random);
        let history = History::new(events.clone()).unwrap();
        assert_eq!(verdict("total-queue", &history), "valid", "seed {seed}");
        let anomaly = *random.pick(&["lost", "duplicate", "unexpected"]);
        let taken: Vec<usize> = (0..events.len())
            .filter(|&n| events[n].kind == EventKind::Ok && &*events[n].f == "dequeue")
            .collect();
        let at = *random.pick(&taken);
        let drained = events.len() - 1;
        match anomaly {
            "lost" => _ = events.drain(at - 1..=at),
            "unexpected" => events[at].value = Value::Int(1000),
            _ => {
                let again = events[at].value.clone();
                let Value::List(items) = &mut events[drained].value else { panic!("a drain") };
                items.push(again);
            }
        }
        let history = History::new(events).unwrap();
        let checker = Spec::parse("total-queue").unwrap().checker(Format::Edn).unwrap();
        let analysis = checker.check(&history, &Budget::default()).unwrap();
        let found: Vec<&str> = analysis.anomalies.iter().map(|a| a.anomaly.as_str()).collect();
        assert!(found.contains(&anomaly), "seed {seed}: {anomaly}, but {found:?}");
        let once = verdict("total-queue duplicates=allow", &history);
        assert_eq!(once == "valid", anomaly == "duplicate", "seed {seed}: {anomaly}");
    }
}

#[test]
fn an_element_is_not_lost_while_it_may_be_inside_or_with_somebody_who_crashed() {
    let text = "{:process 0 :type :invoke :f :enqueue :value 1}
                {:process 0 :type :ok     :f :enqueue :value 1}";
    let check = |more: &str| {
        let loaded = potter_jepsen::load_str(&format!("{text}\n{more}")).unwrap();
        verdict("total-queue", &loaded.history)
    };
    let empty =
        "{:process 1 :type :invoke :f :dequeue} {:process 1 :type :ok :f :dequeue :value nil}";
    let crashed = "{:process 2 :type :invoke :f :dequeue} {:process 2 :type :info :f :dequeue}";
    assert_eq!(check(""), "valid", "it may still be inside");
    assert_eq!(check(empty), "invalid", "the queue is empty, and nobody has it");
    assert_eq!(check(&format!("{crashed} {empty}")), "valid", "the crashed dequeue may have it");
}

/// A register with few values, written and compared-and-set by clients that overlap and crash.
#[test]
fn valid_registers_with_crashes_are_valid_and_values_from_nowhere_are_caught() {
    let mut caught = 0;
    for seed in 0..200 {
        let mut random = Random::new(4000 + seed);
        let (mut events, mut state, mut next) = (Vec::new(), 0_i64, 8);
        let mut open: Vec<(i64, &str, Value, Option<Option<Value>>)> = Vec::new();
        let mut idle: Vec<i64> = (0..8).collect();
        let mut started = 0;
        while started < 150 || !open.is_empty() {
            if started < 150 && !idle.is_empty() && random.chance(50) {
                let process = idle.swap_remove(random.below(idle.len()));
                let mut value = || random.below(4) as i64;
                let (from, to) = (value(), value());
                let (f, input) = match random.below(3) {
                    0 => ("read", Value::Nil),
                    1 => ("write", Value::Int(to)),
                    _ => ("cas", Value::from(vec![Value::Int(from), Value::Int(to)])),
                };
                events.push(Event::new(process, EventKind::Invoke, f, input.clone()));
                open.push((process, f, input, None));
                started += 1;
            } else if !open.is_empty() {
                let at = random.below(open.len());
                let (_, f, input, done) = &mut open[at];
                if done.is_none() {
                    *done = Some(match (*f, input.as_items(), input.as_int()) {
                        ("write", _, Some(value)) => {
                            state = value;
                            Some(input.clone())
                        }
                        ("cas", Some([from, to]), _) => (from.as_int() == Some(state)).then(|| {
                            state = to.as_int().unwrap();
                            input.clone()
                        }),
                        _ => Some(Value::Int(state)),
                    });
                    continue;
                }
                let (process, f, input, done) = open.swap_remove(at);
                if f != "read" && random.chance(8) {
                    events.push(Event::new(process, EventKind::Info, f, input));
                    idle.push(next);
                    next += 1;
                    continue;
                }
                let (kind, value) = match done.flatten() {
                    Some(value) => (EventKind::Ok, value),
                    None => (EventKind::Fail, input),
                };
                events.push(Event::new(process, kind, f, value));
                idle.push(process);
            }
        }
        let history = History::new(events.clone()).unwrap();
        assert_eq!(verdict("cas-register init=0", &history), "valid", "seed {seed}");
        let mismatch = verdict("cas-register init=0 failed-cas=mismatch", &history);
        assert_eq!(mismatch, "valid", "seed {seed}");
        let reads: Vec<usize> = (0..events.len())
            .filter(|&n| events[n].kind == EventKind::Ok && &*events[n].f == "read")
            .collect();
        events[*random.pick(&reads)].value = Value::Int(9);
        let history = History::new(events).unwrap();
        caught += usize::from(verdict("cas-register init=0", &history) == "invalid");
    }
    assert_eq!(caught, 200);
}

/// Different values on a stack, with clients that overlap or one after the other.
fn stack(random: &mut Random, clients: usize) -> Vec<Event> {
    let (mut events, mut inside) = (Vec::new(), Vec::new());
    let mut open: Vec<(i64, Option<i64>, Option<Value>)> = Vec::new();
    let mut started = 0;
    while started < 80 || !open.is_empty() {
        if started < 80 && open.len() < clients && (open.is_empty() || random.chance(50)) {
            let push = random.chance(55).then_some(started);
            let (f, value) = push.map_or(("pop", Value::Nil), |n| ("push", Value::Int(n)));
            events.push(Event::new(started, EventKind::Invoke, f, value));
            open.push((started, push, None));
            started += 1;
            continue;
        }
        let at = random.below(open.len());
        let (process, push, done) = &mut open[at];
        let Some(value) = done else {
            *done = Some(match *push {
                Some(n) => {
                    inside.push(n);
                    Value::Int(n)
                }
                None => inside.pop().map_or(Value::Nil, Value::Int),
            });
            continue;
        };
        let f = if push.is_some() { "push" } else { "pop" };
        events.push(Event::new(*process, EventKind::Ok, f, value.clone()));
        open.swap_remove(at);
    }
    events
}

#[test]
fn what_a_stack_gives_twice_or_too_early_or_hides_is_caught() {
    let mut caught = [0; 4];
    for seed in 0..200 {
        let mut random = Random::new(5000 + seed);
        let kind = seed as usize % 4;
        // What holds in every order is caught with clients that overlap, too.
        let mut events = stack(&mut random, if kind < 2 { 5 } else { 1 });
        let history = History::new(events.clone()).unwrap();
        assert_eq!(verdict("stack", &history), "valid", "seed {seed}");
        let pops: Vec<usize> = (0..events.len())
            .filter(|&n| events[n].kind == EventKind::Ok && &*events[n].f == "pop")
            .filter(|&n| !events[n].value.is_nil())
            .collect();
        let at = random.below(pops.len() - 1);
        let (a, b) = (pops[at], pops[at + 1]);
        let value = events[a].value.clone();
        match kind {
            0 => events[b].value = value,
            1 => events[a].value = Value::Int(1000),
            2 => events[a].value = std::mem::replace(&mut events[b].value, value),
            _ => events[a].value = Value::Nil,
        }
        let history = History::new(events).unwrap();
        caught[kind] += usize::from(verdict("stack", &history) == "invalid");
    }
    assert_eq!(caught, [50; 4]);
}
