//! Generators made of others: one after the other, side by side, a number of times.

use std::collections::VecDeque;

use super::{Context, Generator, Next, Thread};
use crate::history::Event;
use crate::random::Random;

type Boxed = Box<dyn Generator>;

/// The earlier of two times at which to ask again.
pub(super) fn earlier(
    a: Option<std::time::Duration>,
    b: Option<std::time::Duration>,
) -> Option<std::time::Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// See [`mix`].
pub struct Mix {
    parts: Vec<(u64, Boxed)>,
    random: Random,
    /// Drawn and not yet emitted: being asked twice must not change what comes.
    drawn: Option<usize>,
}

/// Operations of all of them, each time of one drawn by lot; of those that are not done.
pub fn mix(parts: impl IntoIterator<Item = Boxed>) -> Mix {
    weighted(parts.into_iter().map(|part| (1, part)))
}

/// [`mix`] with weights: one of weight 3 is drawn three times as often as one of weight 1.
pub fn weighted(parts: impl IntoIterator<Item = (u64, Boxed)>) -> Mix {
    Mix { parts: parts.into_iter().collect(), random: Random::new(0), drawn: None }
}

impl Mix {
    fn draw(&mut self) -> usize {
        let mut lot = self.random.below(self.parts.iter().map(|(weight, _)| weight).sum());
        for (n, (weight, _)) in self.parts.iter().enumerate() {
            if lot < *weight {
                return n;
            }
            lot -= weight;
        }
        0
    }
}

impl Generator for Mix {
    fn seed(&mut self, random: &mut Random) {
        self.random = random.fork();
        self.parts.iter_mut().for_each(|(_, part)| part.seed(random));
    }

    fn op(&mut self, context: &Context) -> Next {
        while !self.parts.is_empty() {
            let at = match self.drawn {
                Some(at) => at,
                None => self.draw(),
            };
            match self.parts[at].1.op(context) {
                Next::Done => {
                    self.parts.remove(at);
                    self.drawn = None;
                }
                Next::Op(op) => {
                    self.drawn = None;
                    return Next::Op(op);
                }
                pending @ Next::Pending(_) => {
                    self.drawn = Some(at);
                    return pending;
                }
            }
        }
        Next::Done
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        self.parts.iter_mut().for_each(|(_, part)| part.update(thread, event));
    }
}

/// See [`any`].
pub struct Any(Vec<Boxed>);

/// All of them side by side: whichever has an operation now; the first of several. Done when all are.
pub fn any(parts: impl IntoIterator<Item = Boxed>) -> Any {
    Any(parts.into_iter().collect())
}

impl Generator for Any {
    fn seed(&mut self, random: &mut Random) {
        self.0.iter_mut().for_each(|part| part.seed(random));
    }

    fn op(&mut self, context: &Context) -> Next {
        let (mut until, mut pending) = (None, false);
        let mut at = 0;
        while at < self.0.len() {
            match self.0[at].op(context) {
                Next::Op(op) => return Next::Op(op),
                Next::Pending(time) => {
                    until = earlier(until, time);
                    pending = true;
                    at += 1;
                }
                Next::Done => drop(self.0.remove(at)),
            }
        }
        if pending { Next::Pending(until) } else { Next::Done }
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        self.0.iter_mut().for_each(|part| part.update(thread, event));
    }
}

/// See [`while_running`].
pub struct WhileRunning(Boxed, Boxed);

/// `main`, with `beside` at its side for as long as `main` is not done.
pub fn while_running(main: Boxed, beside: Boxed) -> WhileRunning {
    WhileRunning(main, beside)
}

impl Generator for WhileRunning {
    fn seed(&mut self, random: &mut Random) {
        self.0.seed(random);
        self.1.seed(random);
    }

    fn op(&mut self, context: &Context) -> Next {
        let main = match self.0.op(context) {
            Next::Pending(time) => time,
            other => return other,
        };
        match self.1.op(context) {
            Next::Op(op) => Next::Op(op),
            Next::Pending(time) => Next::Pending(earlier(main, time)),
            Next::Done => Next::Pending(main),
        }
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        self.0.update(thread, event);
        self.1.update(thread, event);
    }
}

/// See [`concat()`].
pub struct Concat(VecDeque<Boxed>);

/// One after the other. The next one begins when the one before has nothing more to send, though its
/// last operations may still run.
pub fn concat(parts: impl IntoIterator<Item = Boxed>) -> Concat {
    Concat(parts.into_iter().collect())
}

/// One after the other; each begins when all threads are free.
pub fn phases(parts: impl IntoIterator<Item = Boxed>) -> Concat {
    concat(parts.into_iter().map(|part| part.synchronize().boxed()))
}

impl Generator for Concat {
    fn seed(&mut self, random: &mut Random) {
        self.0.iter_mut().for_each(|part| part.seed(random));
    }

    fn op(&mut self, context: &Context) -> Next {
        while let Some(part) = self.0.front_mut() {
            match part.op(context) {
                Next::Done => drop(self.0.pop_front()),
                other => return other,
            }
        }
        Next::Done
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        if let Some(part) = self.0.front_mut() {
            part.update(thread, event);
        }
    }
}

/// See [`cycle`] and [`times`].
pub struct Cycle<F> {
    make: F,
    current: Option<Boxed>,
    random: Random,
    left: Option<u64>,
}

/// What `make` returns, again and again. A generator that is empty from the start ends it.
pub fn cycle<F: FnMut() -> Boxed + Send>(make: F) -> Cycle<F> {
    Cycle { make, current: None, random: Random::new(0), left: None }
}

/// What `make` returns, `count` times.
pub fn times<F: FnMut() -> Boxed + Send>(count: u64, make: F) -> Cycle<F> {
    Cycle { make, current: None, random: Random::new(0), left: Some(count) }
}

impl<F: FnMut() -> Boxed + Send> Generator for Cycle<F> {
    fn seed(&mut self, random: &mut Random) {
        self.random = random.fork();
    }

    fn op(&mut self, context: &Context) -> Next {
        loop {
            let fresh = self.current.is_none();
            if fresh {
                match &mut self.left {
                    Some(0) => return Next::Done,
                    Some(left) => *left -= 1,
                    None => {}
                }
                let mut made = (self.make)();
                made.seed(&mut self.random.fork());
                self.current = Some(made);
            }
            match self.current.as_mut().map(|current| current.op(context)) {
                Some(Next::Done) if fresh => {
                    self.left = Some(0);
                    return Next::Done;
                }
                Some(Next::Done) | None => self.current = None,
                Some(other) => return other,
            }
        }
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        if let Some(current) = &mut self.current {
            current.update(thread, event);
        }
    }
}

/// See [`Generator::limit`].
#[derive(Clone, Debug)]
pub struct Limit<G> {
    of: G,
    left: u64,
}

impl<G> Limit<G> {
    pub(super) fn new(of: G, left: u64) -> Self {
        Self { of, left }
    }
}

impl<G: Generator> Generator for Limit<G> {
    fn seed(&mut self, random: &mut Random) {
        self.of.seed(random);
    }

    fn op(&mut self, context: &Context) -> Next {
        if self.left == 0 {
            return Next::Done;
        }
        let next = self.of.op(context);
        if matches!(next, Next::Op(_)) {
            self.left -= 1;
        }
        next
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        self.of.update(thread, event);
    }
}

/// See [`Generator::until`].
#[derive(Clone, Debug)]
pub struct Until<G, F> {
    of: G,
    enough: F,
    done: bool,
}

impl<G, F> Until<G, F> {
    pub(super) fn new(of: G, enough: F) -> Self {
        Self { of, enough, done: false }
    }
}

impl<G: Generator, F: FnMut(&Event) -> bool + Send> Generator for Until<G, F> {
    fn seed(&mut self, random: &mut Random) {
        self.of.seed(random);
    }

    fn op(&mut self, context: &Context) -> Next {
        if self.done { Next::Done } else { self.of.op(context) }
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        self.done |= (self.enough)(event);
        self.of.update(thread, event);
    }
}
