//! Which thread does what next: pure. The runner and the simulation are shells around it.

use std::collections::VecDeque;
use std::time::Duration;

use super::Op;
use crate::generator::{Context, Generator, Next, Thread};
use crate::history::{Event, EventKind, Process};
use crate::random::Random;

/// What a shell has to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send this and call [`Interpreter::event`] with what happens.
    Invoke(Thread, Op),
    /// Wait for an event, at most until then.
    Wait(Option<Duration>),
    /// Everything is sent and answered.
    Done,
}

pub(crate) struct Interpreter {
    generator: Box<dyn Generator>,
    clients: usize,
    /// The process of each client thread.
    processes: Vec<i64>,
    /// Who waits, the longest first.
    free: VecDeque<Thread>,
    context: Context,
    exhausted: bool,
}

impl Interpreter {
    pub(crate) fn new(mut generator: Box<dyn Generator>, clients: usize, seed: u64) -> Self {
        generator.seed(&mut Random::new(seed));
        let mut threads: Vec<Thread> = (0..clients).map(Thread::Client).collect();
        threads.push(Thread::Nemesis);
        let processes = (0..clients).map(|n| i64::try_from(n).unwrap_or(i64::MAX)).collect();
        let context = Context::new(Duration::ZERO, threads.clone(), Vec::new());
        let free = threads.into();
        Self { generator, clients, processes, free, context, exhausted: false }
    }

    /// The process that `thread` is now.
    pub(crate) fn process(&self, thread: Thread) -> Process {
        match thread {
            Thread::Nemesis => Process::NEMESIS,
            Thread::Client(n) => Process(self.processes.get(n).copied().unwrap_or(0)),
        }
    }

    /// Nothing more is asked of the generator of the load; what runs is waited for.
    pub(crate) fn replace(&mut self, generator: Box<dyn Generator>) {
        self.generator = generator;
        self.exhausted = false;
    }

    pub(crate) fn next(&mut self, now: Duration) -> Step {
        if !self.exhausted {
            self.context.now = now;
            self.context.free.clear();
            self.context.free.extend(&self.free);
            match self.generator.op(&self.context) {
                Next::Op(op) => {
                    let thread = op.thread.or_else(|| self.context.free.first().copied());
                    let at = thread.and_then(|t| self.free.iter().position(|other| *other == t));
                    // A generator that answers without a free thread is wrong; its answer is lost.
                    let Some(thread) = at.and_then(|at| self.free.remove(at)) else {
                        return Step::Wait(Some(now + Duration::from_millis(1)));
                    };
                    return Step::Invoke(thread, op);
                }
                Next::Pending(until) => return Step::Wait(until),
                Next::Done => self.exhausted = true,
            }
        }
        if self.free.len() == self.clients + 1 { Step::Done } else { Step::Wait(None) }
    }

    /// Tells the generator, and after a completion the thread is free again.
    pub(crate) fn event(&mut self, thread: Thread, event: &Event) {
        self.generator.update(thread, event);
        if event.kind == EventKind::Invoke {
            return;
        }
        if let (Thread::Client(n), EventKind::Info) = (thread, event.kind)
            && let Some(process) = self.processes.get_mut(n)
        {
            *process += i64::try_from(self.clients).unwrap_or(1);
        }
        self.free.push_back(thread);
    }
}
