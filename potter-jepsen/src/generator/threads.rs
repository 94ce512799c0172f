//! Who gets an operation.

use std::collections::BTreeMap;

use super::combine::earlier;
use super::{Context, Generator, Next, Thread};
use crate::history::Event;
use crate::random::Random;

type Boxed = Box<dyn Generator>;

/// Asks `of` with fewer threads, and binds the answer to one of them.
fn restricted(of: &mut dyn Generator, context: &Context, which: impl Fn(Thread) -> bool) -> Next {
    let context = context.only(which);
    match of.op(&context) {
        Next::Op(op) => match context.free.first() {
            Some(&thread) => Next::Op(op.on_thread(thread)),
            None => Next::Pending(None),
        },
        other => other,
    }
}

/// See [`Generator::on`].
#[derive(Clone, Debug)]
pub struct On<G, F> {
    of: G,
    which: F,
}

impl<G, F> On<G, F> {
    pub(super) fn new(of: G, which: F) -> Self {
        Self { of, which }
    }
}

impl<G: Generator, F: Fn(Thread) -> bool + Send> Generator for On<G, F> {
    fn seed(&mut self, random: &mut Random) {
        self.of.seed(random);
    }

    fn op(&mut self, context: &Context) -> Next {
        restricted(&mut self.of, context, &self.which)
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        if (self.which)(thread) {
            self.of.update(thread, event);
        }
    }
}

/// See [`Generator::synchronize`].
#[derive(Clone, Debug)]
pub struct Synchronize<G> {
    of: G,
    begun: bool,
}

impl<G> Synchronize<G> {
    pub(super) fn new(of: G) -> Self {
        Self { of, begun: false }
    }
}

impl<G: Generator> Generator for Synchronize<G> {
    fn seed(&mut self, random: &mut Random) {
        self.of.seed(random);
    }

    fn op(&mut self, context: &Context) -> Next {
        self.begun |= context.free.len() == context.threads.len();
        if self.begun { self.of.op(context) } else { Next::Pending(None) }
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        self.of.update(thread, event);
    }
}

/// See [`each_thread`].
pub struct EachThread<F> {
    make: F,
    seed: u64,
    parts: BTreeMap<Thread, Boxed>,
}

/// For each thread a generator of its own, seeded by the thread.
pub fn each_thread<F: FnMut(Thread) -> Boxed + Send>(make: F) -> EachThread<F> {
    EachThread { make, seed: 0, parts: BTreeMap::new() }
}

impl<F: FnMut(Thread) -> Boxed + Send> Generator for EachThread<F> {
    fn seed(&mut self, random: &mut Random) {
        self.seed = random.next_u64();
    }

    fn op(&mut self, context: &Context) -> Next {
        for &thread in &context.threads {
            let make = &mut self.make;
            let seed = self.seed;
            self.parts.entry(thread).or_insert_with(|| {
                let number = match thread {
                    Thread::Client(n) => u64::try_from(n).unwrap_or(0) + 1,
                    Thread::Nemesis => 0,
                };
                let mut part = make(thread);
                part.seed(&mut Random::new(seed ^ number.wrapping_mul(0x9E37_79B9)));
                part
            });
        }
        let (mut until, mut pending) = (None, false);
        // Who waits longest is asked first; who is busy may still have something to do later.
        let busy = context.threads.iter().filter(|thread| !context.free.contains(thread));
        for &thread in context.free.iter().chain(busy) {
            let Some(part) = self.parts.get_mut(&thread) else { continue };
            match restricted(part, context, |other| other == thread) {
                Next::Op(op) => return Next::Op(op),
                Next::Pending(time) => {
                    until = earlier(until, time);
                    pending = true;
                }
                Next::Done => {}
            }
        }
        if pending { Next::Pending(until) } else { Next::Done }
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        if let Some(part) = self.parts.get_mut(&thread) {
            part.update(thread, event);
        }
    }
}

/// See [`reserve`].
pub struct Reserve {
    /// (first client, number of clients, generator); the last has the rest.
    parts: Vec<(usize, usize, Boxed)>,
}

/// The first clients for the first generator, the next ones for the next, all others for `rest`: so
/// that slow operations do not take every client.
pub fn reserve(parts: impl IntoIterator<Item = (usize, Boxed)>, rest: Boxed) -> Reserve {
    let mut first = 0;
    let mut all = Vec::new();
    for (count, part) in parts {
        all.push((first, count, part));
        first += count;
    }
    all.push((first, usize::MAX - first, rest));
    Reserve { parts: all }
}

fn within(thread: Thread, first: usize, count: usize) -> bool {
    matches!(thread, Thread::Client(n) if n >= first && n - first < count)
}

impl Generator for Reserve {
    fn seed(&mut self, random: &mut Random) {
        self.parts.iter_mut().for_each(|(.., part)| part.seed(random));
    }

    fn op(&mut self, context: &Context) -> Next {
        let (mut until, mut pending) = (None, false);
        for (first, count, part) in &mut self.parts {
            match restricted(part, context, |thread| within(thread, *first, *count)) {
                Next::Op(op) => return Next::Op(op),
                Next::Pending(time) => {
                    until = earlier(until, time);
                    pending = true;
                }
                Next::Done => {}
            }
        }
        if pending { Next::Pending(until) } else { Next::Done }
    }

    fn update(&mut self, thread: Thread, event: &Event) {
        for (first, count, part) in &mut self.parts {
            if within(thread, *first, *count) {
                part.update(thread, event);
            }
        }
    }
}
