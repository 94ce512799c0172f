//! Queues and stacks.

use std::collections::VecDeque;

use super::super::model::{Call, Model, Partition, Role};
use super::unknown;
use crate::history::Outcome;
use crate::value::Value;

/// A queue or stack operation.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BagOp {
    Put(Value),
    Take(Option<Value>),
    TakeAny,
}

fn bag(model: &str, call: &Call<'_>) -> Result<Option<BagOp>, String> {
    Ok(match call.f {
        "enqueue" | "enq" | "push" | "put" => {
            (call.outcome != Outcome::Fail).then(|| BagOp::Put(call.input.clone()))
        }
        "dequeue" | "deq" | "pop" | "take" => match call.outcome {
            Outcome::Ok if call.output.is_nil() => Some(BagOp::Take(None)),
            Outcome::Ok => Some(BagOp::Take(Some(call.output.clone()))),
            Outcome::Info => Some(BagOp::TakeAny),
            Outcome::Fail => None,
        },
        _ => return unknown(model, call),
    })
}

/// A first-in-first-out queue with `enqueue` and `dequeue`; `nil` is dequeued from an empty one.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Fifo {}

impl Model for Fifo {
    type State = VecDeque<Value>;
    type Op = BagOp;

    fn name(&self) -> String {
        "queue".into()
    }

    fn initial(&self, _: Option<&Value>) -> Self::State {
        VecDeque::new()
    }

    fn prepare(&self, call: &Call<'_>) -> Result<Option<BagOp>, String> {
        bag("queue", call)
    }

    fn step(&self, state: &Self::State, op: &BagOp) -> Option<Self::State> {
        let mut after = state.clone();
        self.apply(&mut after, op).then_some(after)
    }

    fn apply(&self, state: &mut Self::State, op: &BagOp) -> bool {
        match op {
            BagOp::Put(value) => state.push_back(value.clone()),
            BagOp::Take(seen) => return state.pop_front() == *seen,
            BagOp::TakeAny => _ = state.pop_front(),
        }
        true
    }

    fn reads_only(&self, op: &BagOp) -> bool {
        matches!(op, BagOp::Take(None))
    }

    fn role(&self, op: &BagOp) -> Role {
        match op {
            BagOp::Put(value) => Role::Enqueue(value.clone()),
            BagOp::Take(seen) => Role::Dequeue(seen.clone()),
            BagOp::TakeAny => Role::Other,
        }
    }

    fn state_bytes(&self, state: &Self::State) -> usize {
        state.len() * 24 + 32
    }
}

/// A queue without an order, Knossos' `unordered-queue`: each element is dequeued no more often than
/// it was enqueued before. A dequeue that failed, crashed or found nothing says nothing.
///
/// Elements know nothing of each other, so each is checked apart. Whether all of them came out is for
/// [`crate::checkers::TotalQueue`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UnorderedQueue {}

impl Model for UnorderedQueue {
    type State = u32;
    /// Put? Or taken.
    type Op = bool;

    fn name(&self) -> String {
        "unordered-queue".into()
    }

    fn initial(&self, _: Option<&Value>) -> u32 {
        0
    }

    fn prepare(&self, call: &Call<'_>) -> Result<Option<bool>, String> {
        Ok(match bag("unordered-queue", call)? {
            Some(BagOp::Put(_)) => Some(true),
            Some(BagOp::Take(Some(_))) => Some(false),
            _ => None,
        })
    }

    fn step(&self, inside: &u32, put: &bool) -> Option<u32> {
        if *put { inside.checked_add(1) } else { inside.checked_sub(1) }
    }

    fn partition(&self, call: &Call<'_>) -> Partition {
        let put = matches!(call.f, "enqueue" | "enq" | "push" | "put");
        Partition::Key(if put { call.input } else { call.output }.clone())
    }
}

/// A stack with `push` and `pop`; `nil` is popped from an empty one.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stack {}

impl Model for Stack {
    type State = Vec<Value>;
    type Op = BagOp;

    fn name(&self) -> String {
        "stack".into()
    }

    fn initial(&self, _: Option<&Value>) -> Self::State {
        Vec::new()
    }

    fn prepare(&self, call: &Call<'_>) -> Result<Option<BagOp>, String> {
        bag("stack", call)
    }

    fn step(&self, state: &Self::State, op: &BagOp) -> Option<Self::State> {
        let mut after = state.clone();
        self.apply(&mut after, op).then_some(after)
    }

    fn apply(&self, state: &mut Self::State, op: &BagOp) -> bool {
        match op {
            BagOp::Put(value) => state.push(value.clone()),
            BagOp::Take(seen) => return state.pop() == *seen,
            BagOp::TakeAny => _ = state.pop(),
        }
        true
    }

    fn reads_only(&self, op: &BagOp) -> bool {
        matches!(op, BagOp::Take(None))
    }

    fn role(&self, op: &BagOp) -> Role {
        match op {
            BagOp::Put(value) => Role::Push(value.clone()),
            BagOp::Take(seen) => Role::Pop(seen.clone()),
            BagOp::TakeAny => Role::Other,
        }
    }

    fn state_bytes(&self, state: &Self::State) -> usize {
        state.len() * 24 + 32
    }
}
