//! The parts of the program, put together.

use std::sync::Arc;

use axum::http::StatusCode;
use examples_common::{
    Context, IdempotencyKey, OnceAnswer, Problem, StartError, env_parsed, env_text, once,
};
use potter_core::{
    Database, Error, IdempotencyStore, Metadata, Migration, Migrations, Tx, derived_id, new_id,
};
use potter_eventsourcing::{
    Aggregate, DomainEvent, ErrorKind, EventStore, ExecuteError, Frequency, ProjectionAdmin,
    Rebuildable, Repository, Snapshots, Worker, WorkerOptions, WorkerPool, event_store,
    snapshot_store,
};
use serde::Serialize;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::account::Account;
use crate::aggregates::Aggregates;
use crate::command::{AggregateId, Command, CommandRequest, Kind};
use crate::command_log::{self, Entry};
use crate::order::Order;
use crate::read_models;
use crate::rebuilds::Rebuilds;
use crate::refused::Refused;
use crate::warehouse::Warehouse;

const MIGRATIONS: Migrations = Migrations {
    owner: "cqrs-event-store",
    list: &[Migration {
        version: 1,
        name: "cqrs",
        sqlite: include_str!("migrations/sqlite/0001_cqrs.sql"),
        postgres: include_str!("migrations/postgres/0001_cqrs.sql"),
    }],
};

const SCOPE: &str = "cqrs-event-store";
/// How many clients may follow the log at once.
const STREAMS_MAX: usize = 100;
const TURNS: usize = 256;

/// The program without its HTTP side. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    pub(crate) database: Database,
    pub(crate) events: Arc<dyn EventStore>,
    pub(crate) accounts: Repository<Account>,
    pub(crate) orders: Repository<Order>,
    pub(crate) snapshots: Snapshots,
    pub(crate) admin: ProjectionAdmin,
    pub(crate) models: Arc<[Arc<dyn Rebuildable>]>,
    pub(crate) rebuilds: Rebuilds,
    pub(crate) warehouse: Warehouse,
    /// Commands to one aggregate go one after the other in this process: so they don't conflict
    /// all the time where many want the same one. The database decides between processes.
    turns: Arc<[Mutex<()>]>,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) heartbeat: std::time::Duration,
    pub(crate) stop: CancellationToken,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("database", &self.database).finish_non_exhaustive()
    }
}

/// What a command did.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CommandDone {
    pub(crate) command_id: String,
    pub(crate) aggregate_id: String,
    #[schema(example = "account")]
    pub(crate) aggregate_type: &'static str,
    #[schema(example = "Deposit")]
    pub(crate) command_type: String,
    #[schema(example = "completed")]
    pub(crate) status: &'static str,
    /// The aggregate's version now.
    pub(crate) version: u64,
    /// The position of the last event: give it to GET /queries as min_position, to see it there.
    pub(crate) position: Option<u64>,
    /// What happened.
    pub(crate) events: Vec<Happened>,
}

/// An event that a command led to.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Happened {
    #[schema(example = "account.deposited")]
    pub(crate) event_type: &'static str,
    pub(crate) version: u64,
}

impl Service {
    /// Prepares the database and puts the parts together. Nothing runs yet.
    ///
    /// # Errors
    /// When a setting can't be used, or the database can't be reached.
    pub async fn open(database: Database, stop: CancellationToken) -> Result<Self, StartError> {
        let frequency = env_parsed(&["SNAPSHOT_FREQUENCY"], 50_u64)?;
        let heartbeat_ms = env_parsed(&["SSE_HEARTBEAT_MS"], 15_000_u64)?.max(10);
        potter_core::migrate(&database).await?;
        let events = event_store(&database)?;
        events.migrate().await?;
        MIGRATIONS.apply(&database).await?;
        let snapshots = Snapshots::new(snapshot_store(&database), Frequency(frequency.max(1)));
        let accounts = Repository::new(Arc::clone(&events)).with_snapshots(snapshots.clone());
        let orders = Repository::new(Arc::clone(&events)).with_snapshots(snapshots.clone());
        let warehouse = Warehouse::connect(&database, &events).await?;
        Ok(Self {
            admin: ProjectionAdmin::new(Arc::clone(&events))?,
            models: read_models::all()?.into(),
            rebuilds: Rebuilds::new(Arc::clone(&events), stop.clone()),
            turns: (0..TURNS).map(|_| Mutex::new(())).collect(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            heartbeat: std::time::Duration::from_millis(heartbeat_ms),
            database,
            events,
            accounts,
            orders,
            snapshots,
            warehouse,
            stop,
        })
    }

    /// Lets the read models follow the log until the program is to stop.
    ///
    /// # Errors
    /// When a read model's name can't be one.
    pub fn run_in(&self, context: &Context) -> Result<(), StartError> {
        let mut pool = WorkerPool::new();
        for model in self.models.iter() {
            let worker = Worker::shared(Arc::clone(&self.events), Arc::clone(model) as _)?;
            pool = pool.worker(worker.options(WorkerOptions::new().segments(8)));
        }
        let mut running = pool.start();
        let (service, stop) = (self.clone(), context.shutdown.clone());
        context.background.spawn(async move {
            tokio::select! {
                () = service.stop.cancelled() => {}
                error = running.failed() => {
                    tracing::error!(%error, "a read model can't go on");
                    stop.stop();
                }
            }
            if let Err(error) = running.stop().await {
                tracing::warn!(%error, "a read model did not stop cleanly");
            }
            service.snapshots.flush().await;
        });
        self.warehouse.run_in(context);
        Ok(())
    }

    /// The repository of a kind.
    pub(crate) fn of(&self, kind: Kind) -> &dyn Aggregates {
        match kind {
            Kind::Account => &self.accounts,
            Kind::Order => &self.orders,
        }
    }

    /// Carries a command out, once for each idempotency key and each command id. Answers its id,
    /// too.
    ///
    /// # Errors
    /// The reason why it is refused, or what is down.
    pub(crate) async fn execute(
        &self,
        request: &CommandRequest,
        key: &IdempotencyKey,
        metadata: Metadata,
    ) -> (String, Result<OnceAnswer, Problem>) {
        let command_id = match command_id(request, key) {
            Ok(command_id) => command_id,
            Err(problem) => return (String::new(), Err(problem)),
        };
        let work = match Work::new(self, request, command_id.clone(), metadata) {
            Ok(work) => Arc::new(work),
            Err(problem) => return (command_id, Err(problem)),
        };
        let turn = self.turns[usize::from(work.id.stream.segment()) % TURNS].lock().await;
        let done = once(&self.database, SCOPE, key, request, |tx| {
            let work = Arc::clone(&work);
            Box::pin(async move { work.run_in(tx).await })
        });
        let done = done.await;
        drop(turn);
        if let Err(problem) = &done
            && is_refusal(problem)
        {
            let took = work.began.elapsed();
            command_log::reject(&self.database, &work.entry(), problem, took).await;
        }
        count(request, done.is_ok(), work.began);
        (command_id, done)
    }
}

/// A command that makes sense, to be carried out.
pub(crate) struct Work {
    service: Service,
    command_id: String,
    request_hash: String,
    command_type: String,
    id: AggregateId,
    command: Command,
    expected: Option<u64>,
    metadata: Metadata,
    began: Instant,
}

impl Work {
    /// Reads a request.
    ///
    /// # Errors
    /// 422 that says what is wrong with it.
    pub(crate) fn new(
        service: &Service,
        request: &CommandRequest,
        command_id: String,
        metadata: Metadata,
    ) -> Result<Self, Problem> {
        let (id, command) = Command::read(request)?;
        Ok(Self {
            service: service.clone(),
            request_hash: IdempotencyStore::request_hash(request)?,
            command_type: request.command_type.clone(),
            id,
            command,
            expected: request.expected_version,
            metadata: metadata.with_causation_id(&command_id),
            command_id,
            began: Instant::now(),
        })
    }

    /// Its id.
    pub(crate) fn command_id(&self) -> &str {
        &self.command_id
    }

    fn entry(&self) -> Entry<'_> {
        Entry {
            command_id: &self.command_id,
            request_hash: &self.request_hash,
            aggregate_id: self.id.stream.as_str(),
            command_type: &self.command_type,
        }
    }

    /// Carries it out, once for its id: the events and the command's row are there if and only if
    /// `tx` commits.
    ///
    /// # Errors
    /// The reason why it is refused, or what is down.
    pub(crate) async fn run_in(&self, tx: &mut Tx) -> Result<OnceAnswer, Problem> {
        if let Some(answer) = command_log::claim(tx, &self.entry()).await? {
            return Ok(answer);
        }
        let done = match &self.command {
            Command::Account(command) => self.decide(tx, &self.service.accounts, command).await?,
            Command::Order(command) => self.decide(tx, &self.service.orders, command).await?,
        };
        let answer = OnceAnswer::new(StatusCode::OK, &done)?;
        command_log::complete(tx, &self.command_id, &answer, self.began.elapsed()).await?;
        Ok(answer)
    }

    async fn decide<A>(
        &self,
        tx: &mut Tx,
        repository: &Repository<A>,
        command: &A::Command,
    ) -> Result<CommandDone, Problem>
    where
        A: Aggregate<Error = Refused>,
    {
        let (stream, local) = (&self.id.stream, self.id.local());
        if let Some(expected) = self.expected {
            let loaded = repository.load_in(tx, local).await.map_err(|error| problem(&error))?;
            let found = loaded.version;
            if found != expected {
                let detail = format!(
                    "{stream} is at version {found}, and {expected} was expected: look at it again."
                );
                return Err(Problem::conflict("version_conflict", detail));
            }
        }
        let executed = repository.execute_in(tx, local, command, self.metadata.clone()).await;
        let executed = executed.map_err(|error| match error {
            ExecuteError::Rejected(refused) => refused.problem(stream.as_str()),
            ExecuteError::Store(error) => problem(&error),
            other => Problem::internal(&other),
        })?;
        let first = executed.version + 1 - executed.events.len() as u64;
        let events = executed.events.iter().zip(first..);
        let events =
            events.map(|(event, version)| Happened { event_type: event.event_type(), version });
        Ok(CommandDone {
            command_id: self.command_id.clone(),
            aggregate_id: stream.as_str().to_owned(),
            aggregate_type: self.id.kind.as_str(),
            command_type: self.command_type.clone(),
            status: "completed",
            version: executed.version,
            position: executed.last_position,
            events: events.collect(),
        })
    }
}

/// The command's own id, or one that follows from the idempotency key, or a new one.
pub(crate) fn command_id(
    request: &CommandRequest,
    key: &IdempotencyKey,
) -> Result<String, Problem> {
    const BYTES_MAX: usize = 100;
    if let Some(id) = &request.command_id {
        let sane = (1..=BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
        if sane {
            return Ok(id.clone());
        }
        let detail = format!("command_id has 1 to {BYTES_MAX} visible ASCII characters.");
        return Err(
            Problem::unprocessable("invalid_command_id", &*detail).with_field("command_id", detail)
        );
    }
    let id = key.0.as_ref().map_or_else(new_id, |key| derived_id(&[SCOPE, "command", key]));
    Ok(id.to_string())
}

/// Was the command decided about, and refused?
fn is_refusal(problem: &Problem) -> bool {
    const OTHERS: [&str; 4] =
        ["conflict", "in_flight", "idempotency_key_reused", "command_id_reused"];
    problem.status < 500 && !OTHERS.contains(&&*problem.code)
}

fn count(request: &CommandRequest, completed: bool, began: Instant) {
    // Names from outside are no labels.
    let known = crate::command::COMMAND_TYPES.iter().find(|name| **name == request.command_type);
    let command_type = known.copied().unwrap_or("unknown");
    let status = if completed { "completed" } else { "refused" };
    let labels = [("command_type", command_type), ("status", status)];
    metrics::counter!("cqrs_commands_total", &labels).increment(1);
    metrics::histogram!("cqrs_command_duration_seconds", "command_type" => command_type)
        .record(began.elapsed().as_secs_f64());
}

/// Connects to the database, with an error that names the variable it came from.
///
/// # Errors
/// When it can't be reached.
pub async fn connect(url: &str) -> Result<Database, StartError> {
    Database::connect(url).await.map_err(|error| {
        let variable =
            env_text(&["DATABASE_URL", "POSTGRES_URL"]).map_or("DATABASE_URL", |it| it.0);
        Error::with_source(error.kind(), format!("{variable} can't be used: {error}"), error).into()
    })
}

/// What an error of the store means for the one who asked.
pub(crate) fn problem(error: &potter_eventsourcing::Error) -> Problem {
    let text = error.to_string();
    let core = |kind| Problem::from(potter_core::Error::new(kind, text.clone()));
    match error.kind() {
        ErrorKind::InvalidInput => Problem::unprocessable("invalid_input", text),
        ErrorKind::NotFound => Problem::not_found("not_found", text),
        ErrorKind::LimitExceeded => Problem::too_large("limit_exceeded", text),
        ErrorKind::Conflict => Problem::conflict("conflict", text),
        ErrorKind::Unavailable => core(potter_core::ErrorKind::Unavailable),
        ErrorKind::Unknown => core(potter_core::ErrorKind::Unknown),
        _ => Problem::internal(&format_args!("{error:?}")),
    }
}
