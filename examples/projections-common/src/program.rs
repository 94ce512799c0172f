//! From flags to a store, and from Ctrl-C to an exit code.

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use potter_core::{Database, DatabaseOptions, Migration, Migrations};
use potter_eventsourcing::{ErrorKind, EventStore, ProjectionAdmin, WorkerPool, event_store};

use crate::flags::{Common, Usage};
use crate::report::say;
use crate::stop::Stop;

/// Why a program ends early.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How often `--once` looks whether it is done.
const LOOK: Duration = Duration::from_millis(100);

/// The read models' tables: one text for both engines.
const READ_MODELS: Migrations = Migrations {
    owner: "projection-examples",
    list: &[Migration {
        version: 1,
        name: "read_models",
        sqlite: include_str!("../migrations/0001_read_models.sql"),
        postgres: include_str!("../migrations/0001_read_models.sql"),
    }],
};

/// A program that has started: its store is there, with its tables.
#[derive(Clone)]
pub struct Program {
    /// The log.
    pub store: Arc<dyn EventStore>,
    /// Where it is, and the read models.
    pub database: Database,
    /// How the projections are doing.
    pub admin: ProjectionAdmin,
    /// The flags that all programs have.
    pub common: Common,
    /// Ctrl-C.
    pub stop: Stop,
}

/// Runs a program: `check` looks at the flags before anything else happens, `body` is the rest.
/// What goes wrong is one line on stderr; the exit code is 2 for a flag, 1 for anything else.
pub fn run<A, B, Fut>(
    name: &'static str,
    check: fn(&A) -> Result<&Common, Usage>,
    body: B,
) -> ExitCode
where
    A: Parser,
    B: FnOnce(A, Program) -> Fut,
    Fut: Future<Output = Result<(), Failure>>,
{
    let args = A::parse();
    let common = match check(&args) {
        Ok(common) => common.clone(),
        Err(usage) => return failed(name, &usage, 2),
    };
    // What the crate warns of (a worker that waits for its database) is worth a line.
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("warn,sqlx=error"))
        .with_writer(std::io::stderr)
        .init();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| {
            runtime.block_on(async {
                let program = start(name, common).await?;
                let database = program.database.clone();
                let done = body(args, program).await;
                database.close().await;
                done
            })
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(name, &*error, 1),
    }
}

fn failed(name: &str, error: &dyn std::error::Error, code: u8) -> ExitCode {
    let text = error.to_string().replace(['\n', '\r'], " ");
    // Nothing can be done if stderr is closed.
    let _ = writeln!(std::io::stderr(), "{name}: {text}");
    ExitCode::from(code)
}

async fn start(name: &'static str, common: Common) -> Result<Program, Failure> {
    let stop = Stop::on_signals()?;
    let set = common.database_url.clone().filter(|url| !url.is_empty());
    let url = set.clone().unwrap_or_else(|| format!("sqlite://data/{name}.db"));
    if url.starts_with("memory") {
        return Err("DATABASE_URL can't be used: the read model needs SQL (sqlite://…)".into());
    }
    let options = DatabaseOptions::new().application_name(name);
    let database = options
        .connect(&url)
        .await
        .map_err(|error| format!("DATABASE_URL can't be used: {error}"))?;
    let place = match set {
        Some(_) => format!("the {:?} database of DATABASE_URL", database.engine()),
        None => format!("./data/{name}.db (set DATABASE_URL for another)"),
    };
    say(format_args!("{name} starts on {place}"));
    let store = event_store(&database)?;
    store.migrate().await?;
    READ_MODELS.apply(&database).await?;
    let admin = ProjectionAdmin::new(Arc::clone(&store))?;
    Ok(Program { store, database, admin, common, stop })
}

impl Program {
    /// Runs a pool until Ctrl-C; with `--once`, until `projections` have applied what is in the
    /// log now, in the segments that `mine` picks.
    ///
    /// # Errors
    /// As [`WorkerPool::run`]; an event that a handler fails on, with `--once`.
    pub async fn run_pool(
        &self,
        pool: WorkerPool,
        projections: &[&str],
        mine: impl Fn(u16) -> bool,
    ) -> Result<(), Failure> {
        if !self.common.once {
            pool.run(self.stop.requested()).await?;
            return Ok(());
        }
        let target = self.store.head_position().await?;
        let mut running = pool.start();
        let reached = tokio::select! {
            () = self.stop.requested() => Ok(()),
            failed = running.failed() => Err(failed.into()),
            reached = self.reached(target, projections, mine) => reached,
        };
        let stopped = running.stop().await.map_err(Failure::from);
        reached.and(stopped)
    }

    /// [`Worker::catch_up`](potter_eventsourcing::Worker::catch_up) waits for the whole
    /// projection; a partition on its own is done with its segments.
    async fn reached(
        &self,
        target: u64,
        projections: &[&str],
        mine: impl Fn(u16) -> bool,
    ) -> Result<(), Failure> {
        for name in projections {
            loop {
                let status = match self.admin.status(name).await {
                    Ok(status) => status,
                    // It registers itself in a moment.
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        tokio::time::sleep(LOOK).await;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let mut segments = status.segments.iter().filter(|one| mine(one.segment));
                if let Some(failure) = segments.clone().find_map(|one| one.failure.as_ref()) {
                    return Err(failure.clone().into());
                }
                if segments.all(|one| one.position >= target) {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }
}
