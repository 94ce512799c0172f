//! The task that runs a test: the shell with clocks, threads and files around the interpreter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{broadcast, watch};

use super::notes::Note;
use super::{Test, files};
use crate::error::{Error, ErrorKind, Result};
use crate::generator::{Generator, Thread, concat};
use crate::history::{Event, EventKind, History, Process};
use crate::nemesis::{Healed, Injected, Nemesis};
use crate::runner::progress::fault_line;
use crate::runner::reach::{PAUSE_MAX, Reach};
use crate::runner::schedule::InOrder;
use crate::runner::store::Writer;
use crate::runner::worker::{self, Job, Message, Shared};
use crate::runner::{
    Action, Faults, Interpreter, Limits, Node, Op, Phase, Plan, Progress, Run, Step, Workload,
    judge,
};

/// A worker that ignores its time limit is given up this much later.
const GRACE: Duration = Duration::from_secs(1);
/// So many threads may be given up; then the test ends.
const GIVEN_UP_MAX: usize = 256;
/// Progress is told at most so often.
const TELL: Duration = Duration::from_millis(100);

/// A workload may take so long to prepare the system, and to clean up.
const PREPARE: Duration = Duration::from_secs(300);

/// How the task talks to whoever started it.
pub(super) struct Shell {
    pub(super) progress: watch::Sender<Progress>,
    pub(super) log: broadcast::Sender<Arc<str>>,
    pub(super) cancelled: watch::Receiver<bool>,
    pub(super) noted: UnboundedReceiver<Note>,
}

impl Shell {
    fn say(&self, line: String) {
        tracing::info!(target: "potter_jepsen::runner", "{line}");
        _ = self.log.send(line.into());
    }

    fn phase(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
        self.say(format!("phase: {}", phase.name()));
    }
}

/// Runs the test; what it started is stopped whatever happens.
pub(super) async fn run(mut test: Test, mut shell: Shell) -> Result<Run> {
    if let Some(nemesis) = &test.nemesis {
        nemesis.probe().await.require(nemesis.name())?;
    }
    let db = test.db.take();
    let mut outcome = match &db {
        None => Ok(()),
        Some(db) => match db.start().await {
            Ok(nodes) => {
                test.nodes.extend(nodes);
                Ok(())
            }
            Err(error) => Err(setup("the system did not start", &error)),
        },
    };
    let directory = test.directory.clone();
    let mut run = None;
    if outcome.is_ok() {
        match load_and_check(test, &mut shell).await {
            Ok(done) => run = Some(done),
            Err(error) => outcome = Err(error),
        }
    }
    if let Some(db) = db {
        if let Some(directory) = &directory {
            _ = files::logs(directory, &db.logs().await);
        }
        if let Err(error) = db.stop().await {
            shell.say(format!("the system did not stop: {}", worker::failure(&error)));
        }
    }
    shell.phase(Phase::Done);
    outcome.and_then(|()| {
        run.ok_or_else(|| Error::new(ErrorKind::Setup, "the test ended without a result"))
    })
}

fn setup(what: &str, error: &crate::runner::Failure) -> Error {
    Error::new(ErrorKind::Setup, format!("{what}: {}", worker::failure(error)))
}

async fn within(
    work: impl Future<Output = Result<(), crate::runner::Failure>>,
) -> Result<(), crate::runner::Failure> {
    let done = tokio::time::timeout(PREPARE, work).await;
    done.unwrap_or_else(|_| Err(format!("it took more than {PREPARE:?}").into()))
}

async fn load_and_check(mut test: Test, shell: &mut Shell) -> Result<Run> {
    if test.nodes.is_empty() {
        return Err(Error::new(ErrorKind::Setup, "the system has no node for clients"));
    }
    let writer = match &test.directory {
        Some(directory) => Some(files::begin(&test, directory)?),
        None => None,
    };
    let workload = test.workload.clone();
    let prepared = tokio::select! {
        prepared = within(workload.setup(&test.nodes)) => {
            prepared.map_err(|error| setup("the workload can't be prepared", &error))
        }
        () = asked_to_end(&mut shell.cancelled) => {
            let message = "the test was cancelled before its first operation";
            Err(Error::new(ErrorKind::Cancelled, message))
        }
    };
    if let Err(error) = prepared {
        tear_down(&*workload, &test.nodes, shell).await;
        return Err(error);
    }
    shell.phase(Phase::Running);
    let mut load = Load::start(&mut test, writer, shell)?;
    load.run(shell).await;
    let (events, faults, cancelled) = load.finish().await?;
    tear_down(&*workload, &test.nodes, shell).await;
    shell.phase(Phase::Checking);
    let (checker, budget) = (workload.checker(), test.budget.clone());
    let (directory, title) = (test.directory.clone(), test.name.clone());
    let unverified = faults.unverified.clone();
    let stop_checking = budget.cancel_flag();
    let mut checked = tokio::task::spawn_blocking(move || {
        let history = History::new(events)?;
        let analysis = judge(&*checker, &history, &budget, &faults, cancelled)?;
        if let Some(directory) = &directory {
            files::reports(directory, &title, &history, &analysis)?;
        }
        Ok::<_, Error>((history, analysis))
    });
    let checked = loop {
        tokio::select! {
            checked = &mut checked => break checked,
            changed = shell.cancelled.changed() => {
                stop_checking.store(true, Ordering::Relaxed);
                if changed.is_err() {
                    break (&mut checked).await;
                }
            }
        }
    };
    let (history, analysis) = checked.map_err(|error| {
        Error::new(ErrorKind::Setup, format!("the checker panicked: {error}"))
    })??;
    shell.say(format!("verdict: {}", analysis.verdict.name()));
    let progress = shell.progress.borrow().clone();
    let (directory, seed) = (test.directory, test.limits.seed);
    Ok(Run { history, analysis, unverified, progress, cancelled, directory, seed })
}

async fn tear_down(workload: &dyn Workload, nodes: &[Node], shell: &Shell) {
    if let Err(error) = within(workload.teardown(nodes)).await {
        shell.say(format!("the workload left something behind: {}", worker::failure(&error)));
    }
}

/// Until the test is cancelled, or nobody waits for it any more.
async fn asked_to_end(cancelled: &mut watch::Receiver<bool>) {
    _ = cancelled.wait_for(|cancelled| *cancelled).await;
}

/// What a nemesis's task reports.
enum Done {
    Injected(Result<Injected, String>),
    Healed(Result<Healed, String>),
}

/// What is running on a thread.
struct InFlight {
    process: Process,
    op: Op,
    /// Its invocation is in the history.
    seen: bool,
    deadline: Instant,
}

struct Load {
    interpreter: Interpreter,
    shared: Shared,
    nodes: Vec<Node>,
    limits: Limits,
    nemesis: Option<Arc<dyn Nemesis>>,
    faults: Faults,
    workers: BTreeMap<usize, UnboundedSender<Job>>,
    in_flight: BTreeMap<Thread, InFlight>,
    /// Processes whose thread was given up, and whether their `info` is written.
    given_up: BTreeMap<Process, bool>,
    messages: UnboundedReceiver<Message>,
    nemesis_done: UnboundedReceiver<(u64, Done)>,
    nemesis_sender: UnboundedSender<(u64, Done)>,
    /// Which injection or heal runs; late answers of others are dropped.
    nemesis_turn: u64,
    order: InOrder,
    events: Vec<Event>,
    written: usize,
    writer: Option<Writer>,
    progress: Progress,
    told: Instant,
    cancelled: bool,
}

impl Load {
    fn start(test: &mut Test, writer: Option<Writer>, shell: &Shell) -> Result<Self> {
        let limits = test.limits.clone();
        let (faults, has_nemesis) = (test.faults.take(), test.nemesis.is_some());
        let plan = Plan { limits: limits.clone(), faults, has_nemesis };
        let generator = plan.generator(&*test.workload);
        let interpreter = Interpreter::new(generator, limits.concurrency, limits.seed);
        let (sender, messages) = unbounded_channel();
        let (nemesis_sender, nemesis_done) = unbounded_channel();
        let shared = Shared {
            workload: test.workload.clone(),
            order: Arc::new(AtomicU64::new(0)),
            begin: Instant::now(),
            messages: sender,
            op_timeout: limits.op_timeout,
            seed: limits.seed,
            reach: Arc::new(Reach::new(shell.log.clone())),
        };
        Ok(Self {
            interpreter,
            shared,
            nodes: test.nodes.clone(),
            limits,
            nemesis: test.nemesis.clone(),
            faults: Faults::default(),
            workers: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            given_up: BTreeMap::new(),
            messages,
            nemesis_done,
            nemesis_sender,
            nemesis_turn: 0,
            order: InOrder::default(),
            events: Vec::new(),
            written: 0,
            writer,
            progress: Progress { phase: Phase::Running, ..Progress::default() },
            told: Instant::now(),
            cancelled: false,
        })
    }

    async fn run(&mut self, shell: &mut Shell) {
        loop {
            while let Ok(message) = self.messages.try_recv() {
                self.message(message);
            }
            self.give_up_late_ones(shell);
            let step = self.interpreter.next(self.shared.begin.elapsed());
            self.write();
            self.tell(shell, false);
            match step {
                Step::Invoke(thread, op) => self.invoke(thread, op),
                Step::Done => break,
                Step::Wait(until) => self.wait(until, shell).await,
            }
        }
        self.tell(shell, true);
    }

    async fn wait(&mut self, until: Option<Duration>, shell: &mut Shell) {
        let now = Instant::now();
        let asked = until.map(|time| self.shared.begin + time);
        let deadline = self.in_flight.values().map(|flight| flight.deadline).min();
        let wake = [asked, deadline].into_iter().flatten().min();
        let wake = wake.unwrap_or(now + GRACE).max(now).min(now + TELL);
        tokio::select! {
            biased;
            Some((turn, done)) = self.nemesis_done.recv() => self.nemesis_answered(turn, done, shell),
            Some(message) = self.messages.recv() => self.message(message),
            Some(note) = shell.noted.recv() => self.noted(note, shell),
            changed = shell.cancelled.changed(), if !self.cancelled => {
                // An error: whoever could cancel is gone, and nobody waits for the result.
                if changed.is_err() || *shell.cancelled.borrow() {
                    self.cancel(shell);
                }
            }
            () = tokio::time::sleep_until(wake.into()) => {}
        }
    }

    fn cancel(&mut self, shell: &Shell) {
        shell.say("cancelled: healing, then checking what was seen".into());
        self.cancelled = true;
        let heal = self.nemesis.is_some().then(Plan::heal);
        self.interpreter.replace(concat(heal).boxed());
    }

    fn invoke(&mut self, thread: Thread, op: Op) {
        let process = self.interpreter.process(thread);
        let limit = match thread {
            Thread::Nemesis => self.limits.nemesis_timeout,
            // To connect, to do it, and the pause if there was no connection.
            Thread::Client(_) => self.limits.op_timeout.saturating_mul(2) + PAUSE_MAX + GRACE,
        };
        let now = Instant::now();
        let deadline = now.checked_add(limit).unwrap_or(now + Duration::from_secs(86_400));
        let flight = InFlight { process, op: op.clone(), seen: false, deadline };
        self.in_flight.insert(thread, flight);
        match thread {
            Thread::Nemesis => self.inject(op),
            Thread::Client(n) => {
                let job = Job { process, op };
                let sent = self.worker(n).is_some_and(|worker| worker.send(job).is_ok());
                if !sent {
                    // No thread could be had: nothing was sent.
                    self.workers.remove(&n);
                    self.complete_here(thread, EventKind::Fail, "no thread for the client");
                }
            }
        }
    }

    fn worker(&mut self, n: usize) -> Option<&UnboundedSender<Job>> {
        if !self.workers.contains_key(&n) {
            let node = self.nodes[n % self.nodes.len()].clone();
            self.workers.insert(n, worker::spawn(self.shared.clone(), n, node).ok()?);
        }
        self.workers.get(&n)
    }

    fn inject(&mut self, op: Op) {
        let number = self.shared.number();
        let event = self.shared.event(Process::NEMESIS, EventKind::Invoke, &op);
        self.message(Message { thread: Thread::Nemesis, number, event });
        self.nemesis_turn += 1;
        let (turn, sender) = (self.nemesis_turn, self.nemesis_sender.clone());
        let Some(nemesis) = self.nemesis.clone() else { return };
        let task = tokio::spawn(async move {
            match op.action {
                Action::Inject(fault) => {
                    Done::Injected(nemesis.inject(&fault).await.map_err(|e| worker::chain(&e)))
                }
                _ => Done::Healed(nemesis.heal().await.map_err(|e| worker::chain(&e))),
            }
        });
        tokio::spawn(async move {
            let done = task.await.unwrap_or_else(|error| {
                Done::Injected(Err(format!("the nemesis panicked: {error}")))
            });
            _ = sender.send((turn, done));
        });
    }

    fn nemesis_answered(&mut self, turn: u64, done: Done, shell: &Shell) {
        if turn != self.nemesis_turn || !self.in_flight.contains_key(&Thread::Nemesis) {
            return;
        }
        let Some(flight) = self.in_flight.get(&Thread::Nemesis) else { return };
        let number = self.shared.number();
        let mut event = self.shared.event(Process::NEMESIS, EventKind::Info, &flight.op);
        match done {
            Done::Injected(result) => self.faults.injected(&mut event, result),
            Done::Healed(result) => self.faults.healed(&mut event, result),
        }
        shell.say(fault_line(&event));
        self.message(Message { thread: Thread::Nemesis, number, event });
    }

    /// Made beside the test: the generator does not hear of it, and no thread was busy with it.
    fn noted(&mut self, note: Note, shell: &Shell) {
        let number = self.shared.number();
        let event = |op: &Op| self.shared.event(Process::NEMESIS, EventKind::Info, op);
        let event = match note {
            Note::Injected(op, seen) => {
                let mut event = event(&op);
                self.faults.injected(&mut event, Ok(seen));
                event
            }
            Note::Healed(op, seen) => {
                let mut event = event(&op);
                self.faults.healed(&mut event, Ok(seen));
                event
            }
        };
        shell.say(format!("by hand: {}", fault_line(&event)));
        self.progress.count(&event);
        self.order.push(number, Some(event), &mut self.events);
    }

    /// An event of a thread: into the history, and to the generator unless the thread was given up.
    fn message(&mut self, message: Message) {
        let Message { thread, number, event } = message;
        let process = event.process;
        if process != Process::NEMESIS
            && let Some(written) = self.given_up.get(&process)
        {
            // What it did it did; but it has only one completion.
            let keep = event.kind == EventKind::Invoke || !written;
            self.order.push(number, keep.then_some(event), &mut self.events);
            return;
        }
        self.progress.count(&event);
        self.order.push(number, Some(event.clone()), &mut self.events);
        if event.kind == EventKind::Invoke {
            if let Some(flight) = self.in_flight.get_mut(&thread) {
                flight.seen = true;
            }
        } else {
            self.in_flight.remove(&thread);
        }
        self.interpreter.event(thread, &event);
    }

    /// Threads that did not even end their time-out: written down as unknown, and left alone.
    fn give_up_late_ones(&mut self, shell: &Shell) {
        let now = Instant::now();
        let late: Vec<Thread> = self
            .in_flight
            .iter()
            .filter(|(_, flight)| flight.deadline <= now)
            .map(|(thread, _)| *thread)
            .collect();
        for thread in late {
            shell.say(format!("{thread:?} ignores its time limit and is given up"));
            if thread == Thread::Nemesis {
                self.faults.unverified.push("the nemesis did not answer in time".into());
                self.nemesis_turn += 1;
            }
            let why = "no answer, and the client ignores its time limit";
            self.complete_here(thread, EventKind::Info, why);
        }
        if self.given_up.len() > GIVEN_UP_MAX && !self.cancelled {
            shell.say(format!("more than {GIVEN_UP_MAX} clients ignored their time limit"));
            self.cancel(shell);
        }
    }

    /// Completes the operation of a thread in its place.
    fn complete_here(&mut self, thread: Thread, kind: EventKind, why: &str) {
        let Some(flight) = self.in_flight.remove(&thread) else { return };
        let mut event = self.shared.event(flight.process, kind, &flight.op);
        event.error = Some(why.into());
        if flight.seen {
            let number = self.shared.number();
            self.progress.count(&event);
            self.order.push(number, Some(event.clone()), &mut self.events);
        }
        if let Thread::Client(n) = thread {
            // Its sender is dropped: the thread ends when it comes back.
            self.workers.remove(&n);
            if kind == EventKind::Info {
                self.given_up.insert(flight.process, flight.seen);
            }
        }
        self.interpreter.event(thread, &event);
    }

    fn write(&mut self) {
        if let Some(writer) = &self.writer {
            self.events[self.written..].iter().for_each(|event| writer.send(event));
        }
        self.written = self.events.len();
    }

    fn tell(&mut self, shell: &Shell, now: bool) {
        if now || self.told.elapsed() >= TELL {
            self.told = Instant::now();
            self.progress.elapsed = self.shared.begin.elapsed();
            shell.progress.send_replace(self.progress.clone());
        }
    }

    /// The events in their order, after they are on disk.
    async fn finish(mut self) -> Result<(Vec<Event>, Faults, bool)> {
        // Idle workers close their clients and end.
        self.workers.clear();
        self.order.finish(&mut self.events);
        self.write();
        if let Some(writer) = self.writer.take() {
            let written = tokio::task::spawn_blocking(move || writer.finish()).await;
            written.map_err(|error| Error::new(ErrorKind::Write, error.to_string()))??;
        }
        Ok((self.events, self.faults, self.cancelled))
    }
}
