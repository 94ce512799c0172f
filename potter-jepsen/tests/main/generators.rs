//! Generators, asked by hand.

use std::time::Duration;

use potter_jepsen::generator::{
    self, Context, Generator, Next, Thread, any, each_thread, mix, once, phases, repeat, reserve,
};
use potter_jepsen::nemesis::Fault;
use potter_jepsen::runner::Op;
use potter_jepsen::{Event, EventKind, Random, Value};

const MS: Duration = Duration::from_millis(1);

fn clients(count: usize) -> Vec<Thread> {
    (0..count).map(Thread::Client).chain([Thread::Nemesis]).collect()
}

fn context(at: u32, free: Vec<Thread>) -> Context {
    Context::new(MS * at, clients(3), free)
}

fn f(next: &Next) -> Option<String> {
    match next {
        Next::Op(op) => Some(op.f.to_string()),
        _ => None,
    }
}

/// The first `count` operations when all threads are always free.
fn first(mut generator: impl Generator, seed: u64, count: usize) -> Vec<String> {
    generator.seed(&mut Random::new(seed));
    let mut out = Vec::new();
    for at in 0..100_000 {
        match generator.op(&context(at, clients(3))) {
            Next::Op(op) => out.push(format!("{} {}", op.f, op.value)),
            Next::Done => break,
            _ => {}
        }
        if out.len() == count {
            break;
        }
    }
    out
}

fn counted(name: &'static str) -> Box<dyn Generator> {
    let mut n = 0;
    generator::from_fn(move |random| {
        n += 1;
        Op::new(name).value(n * 1000 + random.between(0, 999))
    })
    .boxed()
}

#[test]
fn the_same_seed_gives_the_same_operations() {
    let load = || mix([counted("a"), counted("b")]).stagger(MS * 3).limit(200);
    assert_eq!(first(load(), 1, 200), first(load(), 1, 200));
    assert_ne!(first(load(), 1, 200), first(load(), 2, 200));
    assert_eq!(first(load(), 1, 1000).len(), 200);
}

#[test]
fn how_often_it_is_asked_does_not_change_what_comes() {
    let load = || {
        let mut load = mix([counted("a"), counted("b"), counted("c")]).stagger(MS * 2);
        load.seed(&mut Random::new(9));
        load
    };
    let (mut eager, mut lazy) = (load(), load());
    let (mut from_eager, mut from_lazy) = (Vec::new(), Vec::new());
    for at in 0..2000 {
        // Nobody is free every other time: it must not draw lots for that.
        let free = if at % 2 == 0 { clients(3) } else { Vec::new() };
        if let Next::Op(op) = eager.op(&context(at, free)) {
            from_eager.push(op);
        }
        if at % 40 == 0 {
            while let Next::Op(op) = lazy.op(&context(at, clients(3))) {
                from_lazy.push(op);
            }
        }
    }
    let both = from_eager.len().min(from_lazy.len());
    assert!(both > 300, "{both}");
    assert_eq!(from_eager[..both], from_lazy[..both]);
}

#[test]
fn a_phase_waits_for_all_threads_and_a_limit_for_nobody() {
    let mut two = phases([repeat(Op::new("a")).limit(2).boxed(), once(Op::new("b")).boxed()]);
    let all = || clients(3);
    assert_eq!(f(&two.op(&context(0, all()))).unwrap(), "a");
    assert_eq!(f(&two.op(&context(0, vec![Thread::Client(1)]))).unwrap(), "a");
    // Client 0 still works.
    let busy = vec![Thread::Client(1), Thread::Client(2), Thread::Nemesis];
    assert!(matches!(two.op(&context(1, busy)), Next::Pending(None)));
    assert_eq!(f(&two.op(&context(2, all()))).unwrap(), "b");
    assert!(matches!(two.op(&context(2, all())), Next::Done));
}

#[test]
fn a_time_limit_counts_from_the_first_question() {
    let mut limited = repeat(Op::new("a")).delay(MS * 60).time_limit(MS * 100);
    assert!(matches!(limited.op(&context(50, clients(3))), Next::Op(_)));
    let Next::Pending(Some(at)) = limited.op(&context(51, clients(3))) else { panic!() };
    assert_eq!(at, MS * 110);
    assert!(matches!(limited.op(&context(110, clients(3))), Next::Op(_)));
    let Next::Pending(Some(at)) = limited.op(&context(111, clients(3))) else { panic!() };
    assert_eq!(at, MS * 150, "its end, which is before its next operation");
    assert!(matches!(limited.op(&context(150, clients(3))), Next::Done));
}

#[test]
fn reserved_clients_do_only_their_own() {
    let mut split =
        reserve([(1, repeat(Op::new("write")).boxed())], repeat(Op::new("read")).boxed());
    let only = |n| context(0, vec![Thread::Client(n)]);
    assert_eq!(f(&split.op(&only(0))).unwrap(), "write");
    assert_eq!(f(&split.op(&only(2))).unwrap(), "read");
    assert!(matches!(split.op(&context(0, vec![Thread::Nemesis])), Next::Pending(None)));
}

#[test]
fn each_thread_has_its_own() {
    let mut all = each_thread(|_| once(Op::new("read")).boxed());
    let mut seen = 0;
    for n in [0, 0, 1, 2, 1] {
        if let Next::Op(_) = all.op(&context(0, vec![Thread::Client(n)])) {
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
}

#[test]
fn clients_and_nemesis_do_not_take_each_others_operations() {
    let faults = generator::fault_windows([Fault::new("partition")], MS * 10, MS * 5);
    let mut both = any([faults.nemesis().boxed(), repeat(Op::new("read")).clients().boxed()]);
    both.seed(&mut Random::new(1));
    let mut faults = Vec::new();
    for at in 0..60 {
        assert_eq!(f(&both.op(&context(at, vec![Thread::Client(0)]))).unwrap(), "read");
        if let Next::Op(op) = both.op(&context(at, vec![Thread::Nemesis])) {
            faults.push((at, op.f.to_string()));
        }
    }
    let expected = [(10, "partition"), (15, "heal"), (25, "partition"), (30, "heal")];
    let expected: Vec<_> = expected.iter().map(|(at, f)| (*at, f.to_string())).collect();
    assert_eq!(faults[..4], expected[..]);
}

#[test]
fn each_fault_has_its_turn_before_one_comes_again() {
    let kinds = ["kill", "pause", "partition", "loss"];
    let mut all = generator::fault_windows(kinds.map(Fault::new), MS, MS);
    all.seed(&mut Random::new(5));
    let mut faults = Vec::new();
    for at in 0..200 {
        if let Next::Op(op) = all.op(&context(at, vec![Thread::Nemesis]))
            && &*op.f != "heal"
        {
            faults.push(op.f.to_string());
        }
    }
    let rounds: Vec<&[String]> = faults.chunks_exact(kinds.len()).collect();
    assert!(rounds.len() > 10, "{faults:?}");
    for round in &rounds {
        assert!(kinds.iter().all(|kind| round.iter().any(|f| f == kind)), "{round:?}");
    }
    assert!(rounds.iter().any(|round| *round != rounds[0]), "the order is by lot");
}

#[test]
fn until_sees_events() {
    let mut waiting = repeat(Op::new("read")).until(|event| event.kind == EventKind::Ok);
    assert!(matches!(waiting.op(&context(0, clients(1))), Next::Op(_)));
    waiting.update(Thread::Client(0), &Event::new(0, EventKind::Info, "read", Value::Nil));
    assert!(matches!(waiting.op(&context(0, clients(1))), Next::Op(_)));
    waiting.update(Thread::Client(0), &Event::new(0, EventKind::Ok, "read", Value::Nil));
    assert!(matches!(waiting.op(&context(0, clients(1))), Next::Done));
}

#[test]
fn cycles_begin_again_and_end() {
    let three = || generator::times(3, || generator::ops([Op::new("a"), Op::new("b")]).boxed());
    assert_eq!(first(three(), 0, 100), ["a nil", "b nil", "a nil", "b nil", "a nil", "b nil"]);
    let empty = generator::cycle(|| generator::ops([]).boxed());
    assert!(first(empty, 0, 10).is_empty(), "an empty cycle ends");
}
