//! The monitor by itself, without the searches that stand behind it.

use super::super::super::models::Stack;
use super::super::super::{Outcome, problem, replay};
use crate::history::{Event, EventKind, History};
use crate::value::Value;

struct Random(u64);

impl Random {
    /// Splitmix64 (Steele, Lea & Flood, 2014).
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }
}

struct Running {
    process: i64,
    push: Option<i64>,
    result: Option<Value>,
}

/// Operations on a stack, of whose pops `lies` in a hundred take a value from under others, and a
/// third as many of the rest return anything.
fn stack(random: &mut Random, ops: usize, clients: usize, crashes: usize, lies: usize) -> History {
    let (mut events, mut state, mut running) = (Vec::new(), Vec::new(), Vec::<Running>::new());
    let (mut started, mut next) = (0, 0_i64);
    while started < ops || !running.is_empty() {
        let full = running.len() >= clients || started >= ops;
        if !full && (running.is_empty() || random.below(2) == 0) {
            let push = (random.below(20) < 11).then_some(next);
            let (f, value) = push.map_or(("pop", Value::Nil), |n| ("push", Value::Int(n)));
            events.push(Event::new(next, EventKind::Invoke, f, value));
            running.push(Running { process: next, push, result: None });
            (started, next) = (started + 1, next + 1);
            continue;
        }
        let at = random.below(running.len());
        let op = &mut running[at];
        let Some(result) = op.result.clone() else {
            op.result = Some(match op.push {
                Some(n) => {
                    state.push(n);
                    Value::Int(n)
                }
                None if random.below(100) < lies && !state.is_empty() => {
                    Value::Int(state.remove(random.below(state.len())))
                }
                None if random.below(300) < lies => match random.below(ops + 1) {
                    n if n == ops => Value::Nil,
                    n => Value::Int(i64::try_from(n).unwrap()),
                },
                None => state.pop().map_or(Value::Nil, Value::Int),
            });
            continue;
        };
        let f = if op.push.is_some() { "push" } else { "pop" };
        let kind = if random.below(100) < crashes { EventKind::Info } else { EventKind::Ok };
        events.push(Event::new(op.process, kind, f, result));
        running.swap_remove(at);
    }
    History::new(events).unwrap()
}

fn cases() -> u64 {
    std::env::var("POTTER_BRUTE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(3000)
}

/// Says yes with an order that holds, says no where all orders fail, also for the operations that
/// it names; says nothing only where pops crashed.
#[test]
fn the_monitor_alone_is_exact() {
    let model = Stack::default();
    let (mut valid, mut invalid, mut silent, mut chains) = (0, 0, 0, 0);
    for case in 0..cases() {
        let mut random = Random(case);
        let ops = 1 + random.below(10);
        let clients = 1 + random.below(5);
        let crashes = [0, 0, 0, 15][random.below(4)];
        let lies = [0, 30, 60][random.below(3)];
        let history = stack(&mut random, ops, clients, crashes, lies);
        for problem in problem::split(&model, &history).unwrap() {
            let brute = |problem: &problem::Problem<_>| {
                replay::any_order(&model, problem, &Vec::new(), &mut problem.ops.clone())
            };
            let expected = brute(&problem);
            let shown = || format!("case {case}\n{}", history.to_edn());
            match super::super::decide(&model, &problem) {
                Some(Outcome::Order(order)) => {
                    assert!(expected, "{}", shown());
                    let replayed = replay::order(&model, &problem, &order);
                    assert_eq!(replayed, Ok(()), "{}", shown());
                    valid += 1;
                }
                Some(Outcome::Stuck(stuck)) => {
                    assert!(!expected && !stuck.core.is_empty(), "{}", shown());
                    assert!(stuck.core.contains(&stuck.at), "{}", shown());
                    assert!(!brute(&problem.only(&stuck.core)), "{stuck:?} {}", shown());
                    chains += u64::from(stuck.why.len() > 3);
                    invalid += 1;
                }
                None => {
                    let crashed =
                        |event: &Event| event.kind == EventKind::Info && &*event.f == "pop";
                    assert!(history.events().iter().any(crashed), "{}", shown());
                    silent += 1;
                }
            }
        }
    }
    let said = format!("{valid} valid, {invalid} invalid, {silent} silent, {chains} chains");
    assert!(valid * 8 > cases() && invalid * 8 > cases() && chains > 0, "{said}");
    println!("{said}");
}
