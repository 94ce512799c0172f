//! The shell around the interpreter in virtual time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Env;
use super::env::lock;
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result};
use crate::generator::{Generator, Thread};
use crate::history::{Event, EventKind, History, Process};
use crate::nemesis::Nemesis;
use crate::runner::{
    Action, Client, Completion, Faults, Interpreter, Limits, Node, Op, Phase, Plan, Progress, Run,
    Session, Step, Workload, judge,
};

/// Client opening and operations are steps of one task.
type Clients = Arc<Mutex<BTreeMap<usize, Box<dyn Client>>>>;
/// A node that can't be reached is tried again after this much virtual time.
const UNREACHABLE: Duration = Duration::from_millis(50);

/// What tasks have reported and the loop has not seen yet.
type Reports = Arc<Mutex<Vec<(Thread, Report)>>>;

enum Report {
    Client(Completion),
    Injected(Result<crate::nemesis::Injected, String>),
    Healed(Result<crate::nemesis::Healed, String>),
}

/// A simulated system: what uses it, and what disturbs it.
pub struct Setting {
    workload: Arc<dyn Workload>,
    nodes: Vec<Node>,
    nemesis: Option<(Arc<dyn Nemesis>, Box<dyn Generator>)>,
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setting").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

impl Setting {
    /// A system with one node, `n1`, and no faults.
    pub fn new(workload: impl Workload + 'static) -> Self {
        let nodes = vec![Node::new("n1", "sim://n1")];
        Self { workload: Arc::new(workload), nodes, nemesis: None }
    }

    /// The same with these nodes.
    #[must_use]
    pub fn nodes<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.nodes = names.into_iter().map(|n| Node::new(n, format!("sim://{n}"))).collect();
        self
    }

    /// The same with faults.
    #[must_use]
    pub fn nemesis(
        mut self,
        nemesis: impl Nemesis + 'static,
        faults: impl Generator + 'static,
    ) -> Self {
        self.nemesis = Some((Arc::new(nemesis), faults.boxed()));
        self
    }
}

/// How long and how much to simulate.
#[derive(Clone, Debug)]
pub struct Simulation {
    pub(super) limits: Limits,
    budget: Budget,
}

impl Simulation {
    /// 5 clients for 10 virtual seconds, an operation each 10 ms on average, time-outs after 500 ms.
    pub fn new(seed: u64) -> Self {
        let limits = Limits {
            seed,
            time: Some(Duration::from_secs(10)),
            operations: 100_000,
            op_timeout: Duration::from_millis(500),
            pace: Duration::from_millis(10),
            ..Limits::default()
        };
        Self { limits, budget: Budget::default() }
    }

    /// The number of clients, at least 1.
    #[must_use]
    pub fn concurrency(mut self, clients: usize) -> Self {
        self.limits.concurrency = clients.max(1);
        self
    }

    /// How long the load lasts, in virtual time.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limits.time = Some(limit);
        self
    }

    /// How many operations the load has at most.
    #[must_use]
    pub fn max_operations(mut self, count: u64) -> Self {
        self.limits.operations = count;
        self
    }

    /// After this virtual time an operation's outcome is unknown.
    #[must_use]
    pub fn op_timeout(mut self, limit: Duration) -> Self {
        self.limits.op_timeout = limit;
        self
    }

    /// The average pause between two operations of all clients together.
    #[must_use]
    pub fn pace(mut self, mean: Duration) -> Self {
        self.limits.pace = mean;
        self
    }

    /// The bound of the check, in real time.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Builds the system, runs it to its end and checks what was seen.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] if the workload can't be prepared, [`ErrorKind::InvalidTest`] if nothing
    /// can ever happen again (a client waits for something that no timer and no task brings), and
    /// those of the checker.
    pub fn run(&self, build: impl FnOnce(&Env) -> Setting) -> Result<Run> {
        // Chance in the system and chance in the plan do not disturb each other.
        let env = Env::new(self.limits.seed ^ 0x5EED_0F7A_D15A_57E2);
        let setting = build(&env);
        let outcome = self.inside(&env, setting);
        env.clear();
        outcome
    }

    fn inside(&self, env: &Env, setting: Setting) -> Result<Run> {
        let Setting { workload, nodes, nemesis } = setting;
        let (prepared, nodes_too) = (workload.clone(), nodes.clone());
        let mut ready = env.spawn(async move { prepared.setup(&nodes_too).await });
        let setup = loop {
            while env.poll_one() {}
            match ready.try_recv() {
                Ok(result) => break result,
                Err(_) if env.advance(None) => {}
                Err(_) => break Err("it waits for something that never comes".into()),
            }
        };
        setup.map_err(|error| {
            Error::new(ErrorKind::Setup, format!("the workload can't be prepared: {error}"))
        })?;
        let (nemesis, faults) = nemesis.unzip();
        let plan = Plan { limits: self.limits.clone(), faults, has_nemesis: nemesis.is_some() };
        let generator = plan.generator(&*workload);
        let mut load = Load {
            env: env.clone(),
            interpreter: Interpreter::new(generator, self.limits.concurrency, self.limits.seed),
            limits: self.limits.clone(),
            workload: workload.clone(),
            nodes,
            nemesis,
            clients: Clients::default(),
            reports: Reports::default(),
            running: BTreeMap::new(),
            events: Vec::new(),
            faults: Faults::default(),
            progress: Progress::default(),
            begin: env.now(),
        };
        load.run()?;
        let Load { events, faults, mut progress, .. } = load;
        let history = History::new(events)?;
        let analysis = judge(&*workload.checker(), &history, &self.budget, &faults, false)?;
        progress.phase = Phase::Done;
        Ok(Run {
            history,
            analysis,
            unverified: faults.unverified,
            progress,
            cancelled: false,
            directory: None,
            seed: self.limits.seed,
        })
    }
}

struct Load {
    env: Env,
    interpreter: Interpreter,
    limits: Limits,
    workload: Arc<dyn Workload>,
    nodes: Vec<Node>,
    nemesis: Option<Arc<dyn Nemesis>>,
    clients: Clients,
    reports: Reports,
    running: BTreeMap<Thread, (Process, Op)>,
    events: Vec<Event>,
    faults: Faults,
    progress: Progress,
    begin: Duration,
}

impl Load {
    fn now(&self) -> Duration {
        self.env.now().saturating_sub(self.begin)
    }

    fn run(&mut self) -> Result<()> {
        loop {
            let polled = self.env.poll_one();
            let reports = std::mem::take(&mut *lock(&self.reports));
            for (thread, report) in reports {
                self.completed(thread, report);
            }
            if polled {
                continue;
            }
            match self.interpreter.next(self.now()) {
                Step::Invoke(thread, op) => self.invoke(thread, op),
                Step::Done => break,
                Step::Wait(until) => {
                    if !self.env.advance(until.map(|time| time + self.begin)) {
                        let message = "nothing can ever happen again: a generator waits for an \
                                       event that no operation brings";
                        return Err(Error::new(ErrorKind::InvalidTest, message));
                    }
                }
            }
        }
        self.progress.elapsed = self.now();
        Ok(())
    }

    fn event(&self, process: Process, kind: EventKind, op: &Op) -> Event {
        let time = i64::try_from(self.now().as_nanos()).ok();
        let (f, key, value) = (op.f.clone(), op.key.clone(), op.value.clone());
        Event { process, kind, f, key, value, time, error: None }
    }

    fn record(&mut self, thread: Thread, event: Event) {
        self.progress.count(&event);
        self.interpreter.event(thread, &event);
        self.events.push(event);
    }

    fn invoke(&mut self, thread: Thread, op: Op) {
        let process = self.interpreter.process(thread);
        self.record(thread, self.event(process, EventKind::Invoke, &op));
        self.running.insert(thread, (process, op.clone()));
        let (env, reports) = (self.env.clone(), self.reports.clone());
        match (thread, self.nemesis.clone()) {
            (Thread::Client(n), _) => {
                let node = self.nodes[n % self.nodes.len()].clone();
                let session = Session { node, thread: n, process: process.0 };
                let (workload, clients) = (self.workload.clone(), self.clients.clone());
                let limit = self.limits.op_timeout;
                env.clone().spawn(async move {
                    let completion = one(&env, limit, &*workload, &session, &clients, op).await;
                    lock(&reports).push((thread, Report::Client(completion)));
                });
            }
            (Thread::Nemesis, Some(nemesis)) => {
                let limit = self.limits.nemesis_timeout;
                env.clone().spawn(async move {
                    let late = || "no answer in time".to_owned();
                    let report = match op.action {
                        Action::Inject(fault) => {
                            let done = env.timeout(limit, nemesis.inject(&fault)).await;
                            let done = done.map(|result| result.map_err(|e| e.to_string()));
                            Report::Injected(done.unwrap_or_else(|| Err(late())))
                        }
                        _ => {
                            let done = env.timeout(limit, nemesis.heal()).await;
                            let done = done.map(|result| result.map_err(|e| e.to_string()));
                            Report::Healed(done.unwrap_or_else(|| Err(late())))
                        }
                    };
                    lock(&reports).push((thread, report));
                });
            }
            (Thread::Nemesis, None) => {
                let report = Report::Injected(Err("there is no nemesis".into()));
                lock(&self.reports).push((thread, report));
            }
        }
    }

    fn completed(&mut self, thread: Thread, report: Report) {
        let Some((process, op)) = self.running.remove(&thread) else { return };
        let mut event = self.event(process, EventKind::Info, &op);
        match report {
            Report::Client(Completion::Ok(value)) => {
                (event.kind, event.value) = (EventKind::Ok, value);
            }
            Report::Client(Completion::Fail(why)) => {
                (event.kind, event.error) = (EventKind::Fail, Some(why.into()));
            }
            Report::Client(Completion::Unreachable(why)) => {
                let why = format!("no connection: {why}");
                (event.kind, event.error) = (EventKind::Fail, Some(why.into()));
            }
            Report::Client(Completion::Info(why)) => event.error = Some(why.into()),
            Report::Injected(result) => self.faults.injected(&mut event, result),
            Report::Healed(result) => self.faults.healed(&mut event, result),
        }
        self.record(thread, event);
    }
}

/// One operation of a client, with a new client if there is none.
async fn one(
    env: &Env,
    limit: Duration,
    workload: &dyn Workload,
    session: &Session,
    clients: &Clients,
    op: Op,
) -> Completion {
    let client = lock(clients).remove(&session.thread);
    let mut client = match client {
        Some(client) => client,
        None => match env.timeout(limit, workload.open(session)).await {
            Some(Ok(client)) => client,
            Some(Err(error)) => return unreachable(env, error.to_string()).await,
            None => return unreachable(env, format!("none within {limit:?}")).await,
        },
    };
    match env.timeout(limit, client.invoke(&op)).await {
        Some(Ok(Completion::Unreachable(why))) => unreachable(env, why).await,
        Some(Ok(done @ (Completion::Ok(_) | Completion::Fail(_)))) => {
            lock(clients).insert(session.thread, client);
            done
        }
        Some(Ok(info)) => info,
        Some(Err(error)) => Completion::Info(error.to_string()),
        None => Completion::Info(format!("no answer within {limit:?}")),
    }
}

/// Without a pause a node that is down would be tried for ever at one and the same moment.
async fn unreachable(env: &Env, why: String) -> Completion {
    env.sleep(UNREACHABLE).await;
    Completion::Unreachable(why)
}
