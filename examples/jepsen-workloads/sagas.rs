//! The saga engine: every saga done or undone as a whole, no effect twice, while orchestrators crash.
//!
//! The effects are rows of a table, as those see it who suffer them. Two steps write theirs in the
//! step's own transaction; one, `hold`, is a service of its own that only knows idempotency keys.

mod steps;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use potter_core::{Database, DatabaseOptions, Metadata, Sql, values};
use potter_jepsen::checkers::Sagas;
use potter_jepsen::generator::{self, Generator};
use potter_jepsen::nemesis::{Fault, Healed, Injected, Nemesis, Probe};
use potter_jepsen::runner::{Client, Completion, Failure, Node, Op, Session, Workload};
use potter_jepsen::{Analysis, Budget, Checker, Event, EventKind, History, Outcome, Value};
use potter_saga::{ErrorKind, Orchestrator, Running, SagaFilter, SagaStatus, saga_store};
use uuid::Uuid;

use steps::{Order, OrderSaga, STEPS};

/// So many orchestrators run at once.
const ORCHESTRATORS: usize = 2;
/// A crashed orchestrator's sagas are taken over after this time.
const LEASE: Duration = Duration::from_secs(2);

/// Starts sagas, and looks at the end what became of them and of their effects.
#[derive(Debug)]
pub struct SagaWorkload {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    run: String,
    started: Mutex<BTreeMap<Uuid, i64>>,
    url: Mutex<Option<String>>,
    /// The orchestrators of this process, each with the database that it owns.
    running: tokio::sync::Mutex<Vec<(Running, Database)>>,
}

impl SagaWorkload {
    /// A run of its own.
    pub fn new() -> Self {
        let shared = Shared {
            run: crate::new_run("jepsen"),
            started: Mutex::default(),
            url: Mutex::default(),
            running: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Crashes one of its orchestrators (`crash-orchestrator`); heal starts others.
    pub fn nemesis(&self) -> OrchestratorNemesis {
        OrchestratorNemesis { shared: self.shared.clone() }
    }
}

impl Default for SagaWorkload {
    fn default() -> Self {
        Self::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn connect(url: &str, connections: u32) -> Result<Database, Failure> {
    let options = DatabaseOptions::new().max_connections(connections);
    Ok(options.application_name("jepsen-sagas").connect(url).await?)
}

fn orchestrator(database: &Database) -> Result<Orchestrator, Failure> {
    let builder = Orchestrator::builder(saga_store(database)).lease_ttl(LEASE);
    let builder = builder.poll_interval(Duration::from_millis(50));
    Ok(builder.register(&OrderSaga { database: database.clone() })?.build())
}

impl Shared {
    /// Starts orchestrators until there are enough.
    async fn fill(&self) -> Result<usize, Failure> {
        let url = lock(&self.url).clone().ok_or("the workload was not set up")?;
        let mut running = self.running.lock().await;
        while running.len() < ORCHESTRATORS {
            let database = connect(&url, 8).await?;
            let started = orchestrator(&database)?.spawn().await?;
            running.push((started, database));
        }
        Ok(running.len())
    }
}

#[async_trait]
impl Workload for SagaWorkload {
    fn name(&self) -> String {
        "saga".into()
    }

    async fn setup(&self, nodes: &[Node]) -> Result<(), Failure> {
        let node = nodes.first().ok_or("there is no node")?;
        let database = connect(&node.url, 2).await?;
        saga_store(&database).migrate().await?;
        steps::create(&database).await?;
        database.close().await;
        *lock(&self.shared.url) = Some(node.url.clone());
        self.shared.fill().await?;
        Ok(())
    }

    async fn open(&self, session: &Session) -> Result<Box<dyn Client>, Failure> {
        let database = connect(&session.node.url, 2).await?;
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
        Box::new(Effects)
    }

    async fn teardown(&self, _: &[Node]) -> Result<(), Failure> {
        for (running, database) in self.shared.running.lock().await.drain(..) {
            running.shutdown().await?;
            database.close().await;
        }
        Ok(())
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
                    SagaStatus::Failed => continue,
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

/// Crashes orchestrators: `crash-orchestrator`, without parameters. What they were doing stays as it
/// is until another one takes it over.
#[derive(Clone, Debug)]
pub struct OrchestratorNemesis {
    shared: Arc<Shared>,
}

#[async_trait]
impl Nemesis for OrchestratorNemesis {
    fn name(&self) -> &str {
        "orchestrators"
    }

    fn faults(&self) -> Vec<String> {
        vec!["crash-orchestrator".into()]
    }

    async fn probe(&self) -> Probe {
        Probe::Available
    }

    async fn inject(&self, fault: &Fault) -> potter_jepsen::Result<Injected> {
        if fault.kind != "crash-orchestrator" {
            let message = format!("there is no fault {}; there is crash-orchestrator", fault.kind);
            return Err(potter_jepsen::Error::new(potter_jepsen::ErrorKind::InvalidFault, message));
        }
        let mut running = self.shared.running.lock().await;
        if running.is_empty() {
            return Ok(Injected::unverified("no orchestrator runs"));
        }
        let (victim, database) = running.remove(0);
        victim.kill().await;
        database.close().await;
        Ok(Injected::verified(format!("one crashed, {} left", running.len())))
    }

    async fn heal(&self) -> potter_jepsen::Result<Healed> {
        match self.shared.fill().await {
            Ok(count) => Ok(Healed::verified(format!("{count} orchestrators run"))),
            Err(error) => Ok(Healed::unverified(format!("none could be started: {error}"))),
        }
    }
}
