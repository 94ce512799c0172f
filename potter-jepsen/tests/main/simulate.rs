//! Small random histories of an object that behaves, and then perhaps does not.

use potter_jepsen::linear::{Call, Model};
use potter_jepsen::{Event, EventKind, History, Outcome, Value};

use crate::random::Random;

/// What a client may ask for: f and argument.
pub(crate) type Ask = fn(&mut Random, u64) -> (&'static str, Value);

/// What the object answers, in order of effect: (f, argument) → result.
pub(crate) type Answer<S> = fn(&mut S, &str, &Value) -> Option<Value>;

struct Running {
    process: i64,
    f: &'static str,
    input: Value,
    /// `Some` once it took effect; the inner is the answer, `None` a refusal.
    done: Option<Option<Value>>,
}

/// A history of `ops` operations by a few clients on an object of state `S`.
pub(crate) fn history<S: Default>(
    random: &mut Random,
    ops: usize,
    clients: usize,
    crashes: usize,
    ask: Ask,
    answer: Answer<S>,
) -> History {
    let mut state = S::default();
    let mut events = Vec::new();
    let mut running: Vec<Running> = Vec::new();
    let (mut started, mut next_process) = (0, clients as i64);
    let mut idle: Vec<i64> = (0..clients as i64).collect();
    while started < ops || !running.is_empty() {
        if started < ops && !idle.is_empty() && (running.is_empty() || random.chance(45)) {
            let process = idle.swap_remove(random.below(idle.len()));
            let (f, input) = ask(random, started as u64);
            started += 1;
            events.push(Event::new(process, EventKind::Invoke, f, input.clone()));
            running.push(Running { process, f, input, done: None });
            continue;
        }
        if running.is_empty() {
            break;
        }
        let at = random.below(running.len());
        if running[at].done.is_none() && random.chance(70) {
            let op = &mut running[at];
            op.done = Some(answer(&mut state, op.f, &op.input));
            continue;
        }
        if random.chance(crashes) {
            // Crashed, perhaps before its effect, perhaps after.
            let op = running.swap_remove(at);
            if random.chance(60) {
                events.push(Event::new(op.process, EventKind::Info, op.f, op.input));
            }
            idle.push(next_process);
            next_process += 1;
        } else if let Some(done) = running[at].done.clone() {
            let op = running.swap_remove(at);
            let (kind, value) = match done {
                Some(value) => (EventKind::Ok, value),
                None => (EventKind::Fail, op.input),
            };
            events.push(Event::new(op.process, kind, op.f, value));
            idle.push(op.process);
        }
    }
    History::new(events).unwrap()
}

/// The history with one result replaced by `other`.
pub(crate) fn mutated(history: &History, random: &mut Random, other: &[Value]) -> History {
    let mut events = history.events().to_vec();
    let reads: Vec<usize> = (0..events.len())
        .filter(|&n| events[n].kind == EventKind::Ok && !matches!(&*events[n].f, "write" | "add"))
        .collect();
    if !reads.is_empty() {
        let at = *random.pick(&reads);
        events[at].value = random.pick(other).clone();
    }
    History::new(events).unwrap()
}

/// Whether some order explains the history: all orders, nothing clever. Shares the model only.
pub(crate) fn brute_force<M: Model>(model: &M, history: &History) -> bool {
    let mut open = Vec::new();
    for (id, op) in history.operations().iter().enumerate() {
        let nil = Value::Nil;
        let output = match op.outcome {
            Outcome::Ok => history.output(id).unwrap_or(&nil),
            _ => &nil,
        };
        let call = Call::new(history.f(id), None, history.input(id), output, op.outcome);
        if let Some(prepared) = model.prepare(&call).unwrap() {
            let end = if op.outcome == Outcome::Info { u32::MAX } else { op.complete.unwrap() };
            open.push((prepared, op.invoke, end));
        }
    }
    explore(model, &model.initial(None), &mut open)
}

fn explore<M: Model>(model: &M, state: &M::State, open: &mut Vec<(M::Op, u32, u32)>) -> bool {
    if open.iter().all(|(_, _, end)| *end == u32::MAX) {
        return true;
    }
    for n in 0..open.len() {
        let (op, begin, end) = open.remove(n);
        let allowed = open.iter().all(|(_, _, other_end)| *other_end > begin);
        let found =
            allowed && model.step(state, &op).is_some_and(|after| explore(model, &after, open));
        open.insert(n, (op, begin, end));
        if found {
            return true;
        }
    }
    false
}
