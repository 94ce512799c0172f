//! Monitors that decide in log-linear time where every value is written once.

mod chain;
mod life;
mod queue;
mod ranges;
mod register;
mod stack;

use rustc_hash::FxHashMap;

use super::Outcome;
use super::model::{Model, Role};
use super::problem::{Problem, index};
use crate::value::Value;

/// Stands for the value of operations that found nothing.
static NOTHING: Value = Value::Nil;

/// The operations of one value.
#[derive(Debug, Default)]
struct Cluster {
    /// The operation that put the value there; none for the initial value.
    put: Option<u32>,
    /// Those that saw or took it.
    seen: Vec<u32>,
    /// It is the value before everything.
    initial: bool,
}

/// The answer, if all operations have the roles of one structure and no value is written twice.
pub(crate) fn decide<M: Model>(model: &M, problem: &Problem<M::Op>) -> Option<Outcome> {
    let roles: Vec<Role> = problem.kinds.iter().map(|op| model.role(op)).collect();
    if roles.iter().any(|role| matches!(role, Role::Append(_))) {
        return chain::texts(problem, &roles);
    }
    if roles.iter().any(|role| matches!(role, Role::Cas(..))) {
        let initial = model.initial(problem.key.as_ref());
        let shown = |kind: u32| model.step(&initial, &problem.kinds[kind as usize]).is_some();
        return chain::registers(problem, &roles, shown);
    }
    if roles.iter().any(|role| matches!(role, Role::Push(_) | Role::Pop(_))) {
        return stacks(problem, &roles);
    }
    match roles.first()? {
        Role::Write(_) | Role::Read(_) => {
            let mut clusters = clusters(problem, &roles, |role| match role {
                Role::Write(value) => Some((true, value)),
                Role::Read(value) => Some((false, value)),
                _ => None,
            })?;
            let initial = model.initial(problem.key.as_ref());
            for cluster in &mut clusters {
                // What the register holds at first is what it can show before any write.
                let first = cluster.seen.first().map(|&n| problem.ops[n as usize].kind);
                let shown =
                    |kind: u32| model.step(&initial, &problem.kinds[kind as usize]).is_some();
                cluster.initial = first.is_some_and(shown);
                if cluster.initial && cluster.put.is_some() {
                    return None;
                }
            }
            Some(register::decide(problem, &clusters))
        }
        Role::Enqueue(_) | Role::Dequeue(_) => {
            let empty =
                |n: &u32| roles[problem.ops[*n as usize].kind as usize] == Role::Dequeue(None);
            let empties: Vec<u32> = (0..index(problem.ops.len())).filter(empty).collect();
            let mut clusters = clusters(problem, &roles, |role| match role {
                Role::Enqueue(value) => Some((true, value)),
                Role::Dequeue(Some(value)) => Some((false, value)),
                // All of these in one cluster, which is taken out again.
                Role::Dequeue(None) => Some((false, &NOTHING)),
                _ => None,
            })?;
            clusters.retain(|cluster| cluster.seen.first().is_none_or(|n| !empty(n)));
            queue::decide(problem, &clusters, &empties)
        }
        _ => None,
    }
}

/// The answer for a stack.
fn stacks<O>(problem: &Problem<O>, roles: &[Role]) -> Option<Outcome> {
    let is = |kind: u32, role: &Role| roles[kind as usize] == *role;
    let (empties, crashed) =
        stack::apart(problem, |kind| is(kind, &Role::Pop(None)), |kind| is(kind, &Role::Other))?;
    let mut clusters = clusters(problem, roles, |role| match role {
        Role::Push(value) => Some((true, value)),
        Role::Pop(Some(value)) => Some((false, value)),
        // All of these in one cluster, which is taken out again.
        Role::Pop(None) | Role::Other => Some((false, &NOTHING)),
        _ => None,
    })?;
    let role = |n: &u32| &roles[problem.ops[*n as usize].kind as usize];
    let nothing = |n: &u32| matches!(role(n), Role::Pop(None) | Role::Other);
    let nothing = |cluster: &Cluster| cluster.seen.first().is_some_and(nothing);
    // Somebody pushed `nil` itself.
    if clusters.iter().any(|cluster| nothing(cluster) && cluster.put.is_some()) {
        return None;
    }
    clusters.retain(|cluster| !nothing(cluster));
    stack::decide(problem, &clusters, &empties, crashed)
}

/// The operations by value; `None` if an operation has another role or a value is put twice.
fn clusters<'r, O>(
    problem: &Problem<O>,
    roles: &'r [Role],
    of: impl Fn(&'r Role) -> Option<(bool, &'r Value)>,
) -> Option<Vec<Cluster>> {
    let mut places: FxHashMap<&'r Value, usize> = FxHashMap::default();
    let mut clusters: Vec<Cluster> = Vec::new();
    let mut kinds = Vec::with_capacity(roles.len());
    for role in roles {
        let (put, value) = of(role)?;
        let place = *places.entry(value).or_insert_with(|| {
            clusters.push(Cluster::default());
            clusters.len() - 1
        });
        kinds.push((put, place));
    }
    for (n, op) in problem.ops.iter().enumerate() {
        let (put, place) = kinds[op.kind as usize];
        let cluster = &mut clusters[place];
        if !put {
            cluster.seen.push(index(n));
        } else if cluster.put.replace(index(n)).is_some() {
            return None;
        }
    }
    Some(clusters)
}
