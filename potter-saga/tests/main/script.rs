//! A saga of three steps that do what a script says.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use potter_core::Backoff;
use potter_saga::{
    BeforePivot, Compensate, Direction, Finished, Flow, Orchestrator, OrchestratorBuilder, Probe,
    Saga, SagaRecord, SagaStatus, SagaStore, Step, StepContext, StepError, StepOptions, Value,
    saga_store,
};
use tokio::sync::Semaphore;

use crate::engines::Fresh;

/// What one call of a step does. A step without a script is done at once.
#[derive(Clone)]
pub(crate) enum Act {
    Reject,
    Retry,
    Unknown,
    Panic,
    Hang,
    /// Says that it is there, then waits to be let go on.
    Gate(Arc<Gate>),
    ProbeDone,
    ProbeNotDone,
}

pub(crate) struct Gate {
    pub(crate) entered: Semaphore,
    pub(crate) leave: Semaphore,
}

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { entered: Semaphore::new(0), leave: Semaphore::new(0) })
    }

    pub(crate) async fn entered(&self) {
        self.entered.acquire().await.unwrap().forget();
    }
}

#[derive(Clone, Default)]
pub(crate) struct Script {
    acts: Arc<Mutex<HashMap<&'static str, VecDeque<Act>>>>,
    journal: Arc<Mutex<Vec<String>>>,
}

impl Script {
    /// `call` is "run a", "undo a" or "probe a".
    pub(crate) fn on(self, call: &'static str, acts: impl IntoIterator<Item = Act>) -> Self {
        self.acts.lock().unwrap().entry(call).or_default().extend(acts);
        self
    }

    /// Every call of a step, in order.
    pub(crate) fn journal(&self) -> Vec<String> {
        self.journal.lock().unwrap().clone()
    }

    fn hangs(&self) -> bool {
        self.acts.lock().unwrap().values().flatten().any(|act| matches!(act, Act::Hang))
    }

    fn next(&self, call: &str, note: &str) -> Option<Act> {
        self.journal.lock().unwrap().push(format!("{call}{note}"));
        self.acts.lock().unwrap().get_mut(call).and_then(VecDeque::pop_front)
    }
}

async fn act(act: Option<Act>) -> Result<(), StepError> {
    match act {
        None | Some(Act::ProbeDone | Act::ProbeNotDone) => Ok(()),
        Some(Act::Reject) => Err(StepError::rejected("no")),
        Some(Act::Retry) => Err(StepError::retry("not now")),
        Some(Act::Unknown) => Err(StepError::unknown("no answer")),
        Some(Act::Panic) => panic!("scripted"),
        Some(Act::Hang) => std::future::pending().await,
        Some(Act::Gate(gate)) => {
            gate.entered.add_permits(1);
            gate.leave.acquire().await.unwrap().forget();
            Ok(())
        }
    }
}

pub(crate) struct Scripted<const N: usize> {
    pub(crate) script: Script,
    pub(crate) local: bool,
}

#[async_trait]
impl<const N: usize> Step for Scripted<N> {
    const NAME: &'static str = ["a", "b", "c"][N];
    type Input = u32;
    type Output = u32;

    async fn run(&self, cx: &mut StepContext, input: u32) -> Result<u32, StepError> {
        assert_eq!((cx.direction(), cx.reason()), (Direction::Forward, None));
        act(self.script.next(&format!("run {}", Self::NAME), "")).await?;
        Ok(input + 1)
    }

    async fn probe(&self, _: &mut StepContext, input: u32) -> Result<Probe<u32>, StepError> {
        let scripted = self.script.next(&format!("probe {}", Self::NAME), "");
        match scripted {
            Some(Act::ProbeDone) => Ok(Probe::Done(input + 1)),
            Some(Act::ProbeNotDone) => Ok(Probe::NotDone),
            other => act(other).await.map(|()| Probe::RunAgain),
        }
    }

    fn options(&self) -> StepOptions {
        let backoff = Backoff::fixed(Duration::from_millis(1)).max_attempts(3);
        let timeout = if self.script.hangs() { 200 } else { 20_000 };
        let options = StepOptions::new()
            .timeout(Duration::from_millis(timeout))
            .backoff(backoff.clone())
            .undo_backoff(backoff);
        if self.local { options.local() } else { options }
    }
}

#[async_trait]
impl<const N: usize> Compensate for Scripted<N> {
    async fn undo(
        &self,
        cx: &mut StepContext,
        _: u32,
        output: Option<u32>,
    ) -> Result<(), StepError> {
        assert_eq!(cx.direction(), Direction::Backward);
        assert!(cx.reason().is_some(), "an undo is told why");
        let note = if output.is_some() { "" } else { " (uncertain)" };
        act(self.script.next(&format!("undo {}", Self::NAME), note)).await
    }
}

/// a → b → c; with a pivot: a → [b] → c.
pub(crate) struct Three {
    pub(crate) script: Script,
    pub(crate) pivot: bool,
    pub(crate) local: bool,
    pub(crate) timeout: Option<Duration>,
}

impl Three {
    pub(crate) fn new(script: &Script) -> Self {
        Self { script: script.clone(), pivot: false, local: false, timeout: None }
    }

    fn step<const N: usize>(&self) -> Scripted<N> {
        Scripted { script: self.script.clone(), local: self.local }
    }
}

impl Saga for Three {
    const NAME: &'static str = "three";
    const VERSION: u32 = 1;
    type Input = u32;
    type Output = u32;

    fn define<'s>(
        &self,
        input: Value<'s, u32>,
        mut flow: Flow<'s, BeforePivot>,
    ) -> Finished<'s, u32> {
        let a = flow.step(self.step::<0>(), &input);
        if self.pivot {
            let (b, mut flow) = flow.pivot(self.step::<1>(), &a);
            let c = flow.step(self.step::<2>(), &b);
            return flow.finish(c);
        }
        let b = flow.step(self.step::<1>(), &a);
        let c = flow.step(self.step::<2>(), &b);
        flow.finish(c)
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }
}

pub(crate) async fn store(fresh: &Fresh) -> std::sync::Arc<dyn SagaStore> {
    let store = saga_store(&fresh.database);
    store.migrate().await.unwrap();
    store
}

pub(crate) async fn orchestrator(fresh: &Fresh, saga: Three) -> Orchestrator {
    builder(fresh).await.register(&saga).unwrap().build()
}

pub(crate) async fn builder(fresh: &Fresh) -> OrchestratorBuilder {
    Orchestrator::builder(store(fresh).await).poll_interval(Duration::from_millis(10))
}

/// Runs one saga to its end.
pub(crate) async fn run(fresh: &Fresh, saga: Three) -> (Orchestrator, SagaRecord) {
    let orchestrator = orchestrator(fresh, saga).await;
    let running = orchestrator.spawn().await.unwrap();
    let started = orchestrator.start::<Three>(&1).await.unwrap();
    let record = orchestrator.wait(started.id, Duration::from_secs(20)).await.unwrap();
    running.shutdown().await.unwrap();
    (orchestrator, record)
}

pub(crate) fn ended(record: &SagaRecord, status: SagaStatus) {
    assert_eq!(record.status, status, "{:?} {:?}", record.parked, record.error);
}

/// What users' helpers borrow across an await.
#[expect(dead_code, reason = "it is enough that it compiles")]
fn a_context_can_be_shared(cx: &StepContext) -> impl Sync + Send + '_ {
    cx
}
