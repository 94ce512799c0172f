//! The second opinion: short, slow, and with nothing in common with the searches.

use super::model::Model;
use super::problem::{Item, Problem};
use super::{Outcome, jit, wgl};
use crate::budget::Meter;

/// Whether `order` is a linearization: every completed operation once, no crashed one twice, none
/// after one that was invoked only after it had completed, each legal where it stands.
pub(crate) fn order<M: Model>(
    model: &M,
    problem: &Problem<M::Op>,
    order: &[u32],
) -> Result<(), String> {
    let mut placed = vec![false; problem.ops.len()];
    let mut state = model.initial(problem.key.as_ref());
    let mut latest_begin = 0;
    for &n in order {
        let Some(op) = problem.ops.get(n as usize) else { return Err(format!("no operation {n}")) };
        if std::mem::replace(&mut placed[n as usize], true) {
            return Err(format!("operation {} stands twice in the order", op.id));
        }
        if op.end < latest_begin {
            return Err(format!("operation {} had completed before its place", op.id));
        }
        latest_begin = latest_begin.max(op.begin);
        if !model.apply(&mut state, &problem.kinds[op.kind as usize]) {
            return Err(format!("operation {} is not legal at its place", op.id));
        }
    }
    match problem.ops.iter().zip(&placed).find(|(op, placed)| !op.crashed() && !**placed) {
        Some((op, _)) => Err(format!("operation {} is missing from the order", op.id)),
        None => Ok(()),
    }
}

/// Whether no order exists, by trying all if they are few and otherwise by a search that did not
/// find the contradiction: the just-in-time one for what a monitor found, the depth-first one for
/// what that one found. `None` if that takes too long.
pub(crate) fn contradiction<M: Model>(
    model: &M,
    problem: &Problem<M::Op>,
    monitored: bool,
    meter: Meter,
) -> Option<bool> {
    if problem.ops.len() <= 7 {
        let mut open: Vec<Item> = problem.ops.clone();
        return Some(!any_order(model, problem, &model.initial(problem.key.as_ref()), &mut open));
    }
    let second = match monitored {
        true => jit::search(model, problem, &meter, jit::WIDTH),
        false => wgl::search(model, problem, meter),
    };
    match second {
        Ok(Outcome::Stuck(_)) => Some(true),
        Ok(Outcome::Order(found)) => Some(order(model, problem, &found).is_err()),
        Err(_) => None,
    }
}

/// Exhaustive: every operation that may be next, in every order. For tests and small cores.
pub(crate) fn any_order<M: Model>(
    model: &M,
    problem: &Problem<M::Op>,
    state: &M::State,
    open: &mut Vec<Item>,
) -> bool {
    if open.iter().all(Item::crashed) {
        return true;
    }
    let first_end = open.iter().map(|op| op.end).min().unwrap_or(u32::MAX);
    for n in 0..open.len() {
        if open[n].begin > first_end {
            continue;
        }
        let op = open.remove(n);
        let after = model.step(state, &problem.kinds[op.kind as usize]);
        let found = after.is_some_and(|after| any_order(model, problem, &after, open));
        open.insert(n, op);
        if found {
            return true;
        }
    }
    false
}
