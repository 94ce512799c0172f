//! What clients and the nemesis do next: pure, seeded, composable.
//!
//! A [`Generator`] is asked for an operation whenever a thread is free, and answers with one that is
//! to be sent now, with [`Next::Pending`], or with [`Next::Done`]. It does no I/O and sees no clock
//! but the one in its [`Context`]: the same code drives a test of a real database and a simulation.
//!
//! Small generators are put together:
//!
//! ```
//! use std::time::Duration;
//!
//! use potter_jepsen::Value;
//! use potter_jepsen::generator::{self, Generator};
//! use potter_jepsen::runner::Op;
//!
//! let reads = generator::repeat(Op::new("read"));
//! let mut last = 0;
//! let writes = generator::from_fn(move |_| {
//!     last += 1;
//!     Op::new("write").value(last)
//! });
//! let load = generator::mix([reads.boxed(), writes.boxed()])
//!     .stagger(Duration::from_millis(5))
//!     .time_limit(Duration::from_secs(10));
//! let _ = generator::phases([load.boxed(), generator::once(Op::new("read")).boxed()]);
//! ```
//!
//! # What a seed fixes
//!
//! Every random generator has numbers of its own, forked from the seed by its place in the
//! composition, and takes them when it emits an operation, never when it is merely asked. So the
//! n-th operation of a generator, and the planned times of [`Generator::stagger`], are the same in
//! every run with that seed, however fast the database is. Which process gets an operation, and when
//! it completes, is the database's part: only a simulation repeats that.

mod combine;
mod context;
mod faults;
mod leaf;
mod threads;
mod time;

use std::time::Duration;

pub use combine::{Any, Concat, Cycle, Limit, Mix, Until, WhileRunning};
pub use combine::{any, concat, cycle, mix, phases, times, weighted, while_running};
pub use context::{Context, Thread};
pub use faults::{FaultWindows, fault_windows};
pub use leaf::{FromFn, Ops, Repeat, Sleep, from_fn, once, ops, repeat, sleep};
pub use threads::{EachThread, On, Reserve, Synchronize, each_thread, reserve};
pub use time::{Delay, Stagger, TimeLimit};

use crate::history::Event;
use crate::random::Random;
use crate::runner::Op;

/// What a generator answers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Next {
    /// Send this now.
    Op(Op),
    /// Nothing now. Ask again at this time (from the test's start), or after the next event,
    /// whichever is first; `None`: only after an event.
    Pending(Option<Duration>),
    /// Nothing any more.
    Done,
}

/// A source of operations. See the module's page for what must follow from the seed.
pub trait Generator: Send {
    /// Called once before anything else, with the numbers that are this generator's.
    fn seed(&mut self, random: &mut Random) {
        _ = random;
    }

    /// What to do now. It may only answer [`Next::Op`] if a thread of the context is free.
    fn op(&mut self, context: &Context) -> Next;

    /// Called for every event, also of operations of other generators.
    fn update(&mut self, thread: Thread, event: &Event) {
        _ = (thread, event);
    }

    /// The same behind a pointer, to be put beside others.
    fn boxed(self) -> Box<dyn Generator>
    where
        Self: Sized + 'static,
    {
        Box::new(self)
    }

    /// At most `count` operations.
    fn limit(self, count: u64) -> Limit<Self>
    where
        Self: Sized,
    {
        Limit::new(self, count)
    }

    /// Nothing more once this much time has passed since it was first asked.
    fn time_limit(self, limit: Duration) -> TimeLimit<Self>
    where
        Self: Sized,
    {
        TimeLimit::new(self, limit)
    }

    /// Operations at random times, `mean` apart on average, over all threads together. Late ones are
    /// caught up with.
    fn stagger(self, mean: Duration) -> Stagger<Self>
    where
        Self: Sized,
    {
        Stagger::new(self, mean)
    }

    /// Operations exactly `every` apart, or later if no thread is free.
    fn delay(self, every: Duration) -> Delay<Self>
    where
        Self: Sized,
    {
        Delay::new(self, every)
    }

    /// Nothing more once an event satisfies `enough`.
    fn until<F>(self, enough: F) -> Until<Self, F>
    where
        Self: Sized,
        F: FnMut(&Event) -> bool + Send,
    {
        Until::new(self, enough)
    }

    /// This one, then `next`, without waiting for what is still running.
    fn then(self, next: impl Generator + 'static) -> Concat
    where
        Self: Sized + 'static,
    {
        concat([self.boxed(), next.boxed()])
    }

    /// Waits until every thread is free before it begins.
    fn synchronize(self) -> Synchronize<Self>
    where
        Self: Sized,
    {
        Synchronize::new(self)
    }

    /// Only for the threads that `which` names.
    fn on<F>(self, which: F) -> On<Self, F>
    where
        Self: Sized,
        F: Fn(Thread) -> bool + Send,
    {
        On::new(self, which)
    }

    /// Only for clients.
    fn clients(self) -> On<Self, fn(Thread) -> bool>
    where
        Self: Sized,
    {
        On::new(self, |thread| matches!(thread, Thread::Client(_)))
    }

    /// Only for the thread that injects faults.
    fn nemesis(self) -> On<Self, fn(Thread) -> bool>
    where
        Self: Sized,
    {
        On::new(self, |thread| thread == Thread::Nemesis)
    }
}

impl Generator for Box<dyn Generator> {
    fn seed(&mut self, random: &mut Random) {
        (**self).seed(random);
    }

    fn op(&mut self, context: &Context) -> Next {
        (**self).op(context)
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        (**self).update(thread, event);
    }

    fn boxed(self) -> Box<dyn Generator> {
        self
    }
}
