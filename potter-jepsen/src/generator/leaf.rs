//! Generators that are not made of others.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Context, Generator, Next};
use crate::random::Random;
use crate::runner::Op;

/// See [`repeat`].
#[derive(Clone, Debug)]
pub struct Repeat(Op);

/// The same operation for ever.
pub fn repeat(op: Op) -> Repeat {
    Repeat(op)
}

impl Generator for Repeat {
    fn op(&mut self, context: &Context) -> Next {
        if context.free.is_empty() { Next::Pending(None) } else { Next::Op(self.0.clone()) }
    }
}

/// See [`ops`].
#[derive(Clone, Debug)]
pub struct Ops(VecDeque<Op>);

/// These operations, in this order, each once.
pub fn ops(all: impl IntoIterator<Item = Op>) -> Ops {
    Ops(all.into_iter().collect())
}

/// This operation, once.
pub fn once(op: Op) -> Ops {
    ops([op])
}

impl Generator for Ops {
    fn op(&mut self, context: &Context) -> Next {
        if self.0.is_empty() {
            return Next::Done;
        }
        if context.free.is_empty() {
            return Next::Pending(None);
        }
        self.0.pop_front().map_or(Next::Done, Next::Op)
    }
}

/// See [`from_fn`].
#[derive(Clone, Debug)]
pub struct FromFn<F> {
    make: F,
    random: Random,
}

/// Whatever `make` returns, for ever. It is called once for each operation that is sent.
pub fn from_fn<F: FnMut(&mut Random) -> Op + Send>(make: F) -> FromFn<F> {
    FromFn { make, random: Random::new(0) }
}

impl<F: FnMut(&mut Random) -> Op + Send> Generator for FromFn<F> {
    fn seed(&mut self, random: &mut Random) {
        self.random = random.fork();
    }

    fn op(&mut self, context: &Context) -> Next {
        if context.free.is_empty() {
            return Next::Pending(None);
        }
        Next::Op((self.make)(&mut self.random))
    }
}

/// See [`sleep`].
#[derive(Clone, Debug)]
pub struct Sleep {
    length: Duration,
    end: Option<Duration>,
}

/// No operation, for this long after it was first asked.
pub fn sleep(length: Duration) -> Sleep {
    Sleep { length, end: None }
}

impl Generator for Sleep {
    fn op(&mut self, context: &Context) -> Next {
        let end = *self.end.get_or_insert(context.now.saturating_add(self.length));
        if context.now >= end { Next::Done } else { Next::Pending(Some(end)) }
    }
}
