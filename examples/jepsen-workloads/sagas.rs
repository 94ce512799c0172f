//! The saga engine: every saga done or undone as a whole, no effect twice, while orchestrators crash.
//!
//! The effects are rows of a table, as those see it who suffer them. Two steps write theirs in the
//! step's own transaction; one, `hold`, is a service of its own that only knows idempotency keys.

mod orchestrators;
mod steps;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use potter_core::{Database, Metadata, Sql, values};
use potter_jepsen::checkers::Sagas;
use potter_jepsen::generator::{self, Generator};
use potter_jepsen::runner::{Client, Completion, Failure, Node, Op, Session, Workload};
use potter_jepsen::{Analysis, Budget, Checker, Event, EventKind, History, Outcome, Value};
use potter_saga::{ErrorKind, Orchestrator, SagaFilter, SagaStatus, saga_store};
use uuid::Uuid;

use crate::Primary;
pub use orchestrators::{ORCHESTRATORS, Orchestrators, run_orchestrator};
use orchestrators::{connect, orchestrator};
use steps::{Order, OrderSaga, STEPS};

/// Starts sagas, and looks at the end what became of them and of their effects. The sagas are run by
/// processes of their own.
#[derive(Debug)]
pub struct SagaWorkload {
    orchestrators: Orchestrators,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    run: String,
    started: Mutex<BTreeMap<Uuid, i64>>,
    primary: Primary,
}

impl SagaWorkload {
    /// A run of its own.
    pub fn new(orchestrators: Orchestrators) -> Self {
        let (run, started, primary) =
            (crate::new_run("jepsen"), Mutex::default(), Primary::default());
        let shared = Shared { run, started, primary };
        Self { orchestrators, shared: Arc::new(shared) }
    }

    /// The checker alone, for a history that was recorded before.
    pub fn effects_checker() -> Box<dyn Checker + Send> {
        Box::new(Effects)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Workload for SagaWorkload {
    fn name(&self) -> String {
        "saga".into()
    }

    async fn setup(&self, nodes: &[Node]) -> Result<(), Failure> {
        let url = self.shared.primary.set(nodes)?;
        let database = connect(url, 2).await?;
        saga_store(&database).migrate().await?;
        steps::create(&database).await?;
        database.close().await;
        self.orchestrators.start(url).await
    }

    async fn open(&self, _: &Session) -> Result<Box<dyn Client>, Failure> {
        let database = connect(self.shared.primary.url()?, 2).await?;
        // It only starts sagas; those that run are others.
        let orchestrator = orchestrator(&database)?;
        Ok(Box::new(SagaClient { shared: self.shared.clone(), database, orchestrator }))
    }

    fn generator(&self) -> Box<dyn Generator> {
        let mut next = 0;
        let steps = Value::from(STEPS.iter().map(|&step| Value::from(step)).collect::<Vec<_>>());
        let begin = generator::from_fn(move |_| {
            next += 1;
            Op::new("begin").value(vec![Value::Int(next), steps.clone()])
        });
        begin.boxed()
    }

    fn final_generator(&self) -> Option<Box<dyn Generator>> {
        let done = |event: &Event| event.kind == EventKind::Ok && &*event.f == "effects";
        let look = generator::repeat(Op::new("effects")).delay(Duration::from_millis(200));
        // By one client: the others would only ask the same.
        let one = generator::reserve([(1, look.until(done).boxed())], generator::ops([]).boxed());
        Some(one.boxed())
    }

    fn checker(&self) -> Box<dyn Checker + Send> {
        Self::effects_checker()
    }

    async fn teardown(&self, _: &[Node]) -> Result<(), Failure> {
        self.orchestrators.stop().await
    }
}

struct SagaClient {
    shared: Arc<Shared>,
    database: Database,
    orchestrator: Orchestrator,
}

impl SagaClient {
    async fn begin(&self, op: &Op) -> Result<Completion, Failure> {
        let Some(number) = op.value.as_items().and_then(|parts| parts.first()?.as_int()) else {
            return Ok(Completion::Fail(format!("{} is no saga", op.value)));
        };
        let order = Order { run: self.shared.run.clone(), number };
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}-{number}", order.run).as_bytes());
        lock(&self.shared.started).insert(id, number);
        let metadata = Metadata::new().with_correlation_id(self.shared.run.clone());
        match self.orchestrator.start::<OrderSaga>(&order).id(id).metadata(metadata).await {
            Ok(_) => Ok(Completion::Ok(op.value.clone())),
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                Ok(Completion::Fail(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// All effects in their order, then how each saga ended; one that waits for a hand has no end.
    /// `None` while one runs.
    async fn effects(&self) -> Result<Option<Value>, Failure> {
        const ALL: Sql = Sql::same(
            "SELECT saga, step, what FROM potter_jepsen_effects
             WHERE run = $1 AND what <> 'void' ORDER BY id",
        );
        let pair = |f: &str, saga: i64, with: &str| {
            let value = Value::from(vec![Value::Int(saga), Value::from(with)]);
            Value::from(vec![Value::from(f), value])
        };
        let (mut ends, mut seen) = (Vec::new(), 0);
        loop {
            let offset = u32::try_from(seen)?;
            let filter = SagaFilter::new().correlation_id(self.shared.run.clone());
            let filter = filter.page(500, offset);
            let (page, total) = self.orchestrator.list(&filter).await?;
            let started = lock(&self.shared.started);
            seen += page.len();
            for saga in &page {
                let Some(&number) = started.get(&saga.id) else { continue };
                ends.push(match saga.status {
                    SagaStatus::Completed => pair("end", number, "completed"),
                    SagaStatus::Compensated => pair("end", number, "compensated"),
                    // One that waits for a hand will not end: the checker finds it unfinished.
                    SagaStatus::Failed | SagaStatus::Cancelled => continue,
                    _ => return Ok(None),
                });
            }
            if page.is_empty() || seen as u64 >= total {
                break;
            }
        }
        let rows = self.database.read(ALL, values![self.shared.run.clone()]).await?;
        let mut all = Vec::with_capacity(rows.len() + ends.len());
        for row in rows {
            all.push(pair(&row.text("what")?, row.i64("saga")?, &row.text("step")?));
        }
        all.extend(ends);
        Ok(Some(Value::from(all)))
    }
}

#[async_trait]
impl Client for SagaClient {
    async fn invoke(&mut self, op: &Op) -> Result<Completion, Failure> {
        if &*op.f == "begin" {
            return self.begin(op).await;
        }
        Ok(match self.effects().await {
            Ok(Some(all)) => Completion::Ok(all),
            Ok(None) => Completion::Fail("sagas are still running".into()),
            Err(error) => Completion::Fail(error.to_string()),
        })
    }

    async fn close(&mut self) {
        self.database.close().await;
    }
}

/// [`Sagas`] over what the last look at the effects saw.
struct Effects;

impl Checker for Effects {
    fn check(&self, history: &History, budget: &Budget) -> potter_jepsen::Result<Analysis> {
        let operations = history.operations();
        let seen = (0..operations.len())
            .rev()
            .find(|&id| history.f(id) == "effects" && operations[id].outcome == Outcome::Ok);
        let Some(seen) = seen.and_then(|id| history.output(id)) else {
            // Nobody saw the end: nothing is known of any saga.
            return Sagas::new().check(&History::default(), budget);
        };
        let mut events: Vec<Event> =
            history.events().iter().filter(|event| &*event.f == "begin").cloned().collect();
        for (n, row) in (1_i64 << 40..).zip(seen.as_items().unwrap_or_default()) {
            let Some([f, value]) = row.as_items() else { continue };
            let f = f.as_name().unwrap_or_default();
            for kind in [EventKind::Invoke, EventKind::Ok] {
                events.push(Event::new(n, kind, f, value.clone()));
            }
        }
        Sagas::new().check(&History::new(events)?, budget)
    }
}
