//! When operations are sent.

use std::time::Duration;

use super::combine::earlier;
use super::{Context, Generator, Next, Thread};
use crate::history::Event;
use crate::random::Random;

/// See [`Generator::time_limit`].
#[derive(Clone, Debug)]
pub struct TimeLimit<G> {
    of: G,
    limit: Duration,
    end: Option<Duration>,
}

impl<G> TimeLimit<G> {
    pub(super) fn new(of: G, limit: Duration) -> Self {
        Self { of, limit, end: None }
    }
}

impl<G: Generator> Generator for TimeLimit<G> {
    fn seed(&mut self, random: &mut Random) {
        self.of.seed(random);
    }

    fn op(&mut self, context: &Context) -> Next {
        let end = *self.end.get_or_insert(context.now.saturating_add(self.limit));
        if context.now >= end {
            return Next::Done;
        }
        match self.of.op(context) {
            Next::Pending(time) => Next::Pending(earlier(time, Some(end))),
            other => other,
        }
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        self.of.update(thread, event);
    }
}

/// See [`Generator::stagger`].
#[derive(Clone, Debug)]
pub struct Stagger<G> {
    of: G,
    mean: Duration,
    random: Random,
    next: Option<Duration>,
}

impl<G> Stagger<G> {
    pub(super) fn new(of: G, mean: Duration) -> Self {
        Self { of, mean, random: Random::new(0), next: None }
    }

    /// From 0 to twice the mean.
    fn pause(&mut self) -> Duration {
        let nanos = u64::try_from(self.mean.as_nanos()).unwrap_or(u64::MAX / 2);
        Duration::from_nanos(self.random.below(nanos.saturating_mul(2).saturating_add(1)))
    }
}

impl<G: Generator> Generator for Stagger<G> {
    fn seed(&mut self, random: &mut Random) {
        self.random = random.fork();
        self.of.seed(random);
    }

    fn op(&mut self, context: &Context) -> Next {
        let due = match self.next {
            Some(due) => due,
            None => {
                let due = context.now + self.pause();
                self.next = Some(due);
                due
            }
        };
        if context.now < due {
            return Next::Pending(Some(due));
        }
        let next = self.of.op(context);
        if matches!(next, Next::Op(_)) {
            // From the planned time, not from now: the plan follows from the seed alone.
            self.next = Some(due.saturating_add(self.pause()));
        }
        next
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        self.of.update(thread, event);
    }
}

/// See [`Generator::delay`].
#[derive(Clone, Debug)]
pub struct Delay<G> {
    of: G,
    every: Duration,
    next: Duration,
}

impl<G> Delay<G> {
    pub(super) fn new(of: G, every: Duration) -> Self {
        Self { of, every, next: Duration::ZERO }
    }
}

impl<G: Generator> Generator for Delay<G> {
    fn seed(&mut self, random: &mut Random) {
        self.of.seed(random);
    }

    fn op(&mut self, context: &Context) -> Next {
        if context.now < self.next {
            return Next::Pending(Some(self.next));
        }
        let next = self.of.op(context);
        if matches!(next, Next::Op(_)) {
            self.next = context.now.saturating_add(self.every);
        }
        next
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        self.of.update(thread, event);
    }
}
