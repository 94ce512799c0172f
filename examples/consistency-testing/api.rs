//! The program over HTTP.

mod body;
mod cluster;
mod consistency;
mod history;
mod nemesis;
mod remembered;
mod results;
mod tests;
mod view;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Extension;
use axum::Router;
use examples_common::{BodyLimit, Context, HealthCheck, Kit, Problem, StartError, env_text};
use potter_core::Database;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::remembered::Remembered;
use crate::environment::{Environments, External};
use crate::runs::Runs;
use crate::storage;

const LIMIT_MAX: u32 = 500;
/// The largest history that is sent to be checked.
const HISTORY_BYTES_MAX: usize = 64 << 20;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Service {
    runs: Arc<Runs>,
    remembered: Arc<Remembered>,
}

impl Service {
    fn database(&self) -> &Database {
        &self.runs.database
    }
}

/// Connects, undoes what a killed program left, begins to run what is queued, and answers requests.
///
/// # Errors
/// When a setting can't be used, the database or a server can't be reached, or a fault can't be
/// undone: the message names it.
pub async fn app(context: Context) -> Result<Router, StartError> {
    let url = &context.settings.database_url;
    let database = Database::connect(url).await.map_err(|error| {
        let variable =
            env_text(&["DATABASE_URL", "POSTGRES_URL"]).map_or("DATABASE_URL", |it| it.0);
        let message = format!("{variable} can't be used: {error}");
        potter_core::Error::with_source(error.kind(), message, error)
    })?;
    potter_core::migrate(&database).await?;
    storage::MIGRATIONS.apply(&database).await?;
    let directory = env_text(&["DATA_DIR"]).map_or("data/consistency-testing".into(), |it| it.1);
    let directory = PathBuf::from(directory);
    std::fs::create_dir_all(&directory)
        .map_err(|error| format!("DATA_DIR={} can't be used: {error}", directory.display()))?;
    let external = External::from_env().await?;
    let environments = Environments::open(directory.join("faults"), external)?;
    let interrupted = storage::interrupt(&database).await?;
    if interrupted > 0 {
        tracing::warn!(interrupted, "tests that ran when the service ended");
    }
    let pinged = database.clone();
    let health = HealthCheck::new("database", move || {
        let database = pinged.clone();
        async move { Ok(database.ping().await?) }
    });
    let runs = Arc::new(Runs::new(database, environments, directory.join("tests")));
    context.background.spawn(Arc::clone(&runs).run(context.shutdown.token()));
    let service = Service { runs, remembered: Arc::default() };
    let routes = OpenApiRouter::new().nest("/api/v1", routes()).with_state(service);
    Ok(Kit::new(&context).check(health).router(routes))
}

fn routes() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(tests::create, tests::list))
        .routes(routes!(tests::get, tests::delete))
        .routes(routes!(tests::status))
        .routes(routes!(tests::progress))
        .routes(routes!(tests::logs))
        .routes(routes!(tests::start))
        .routes(routes!(tests::stop))
        .routes(routes!(results::list))
        .routes(routes!(results::get))
        .routes(routes!(results::analyze))
        .routes(routes!(results::violations))
        .routes(routes!(results::timeline))
        .routes(routes!(history::get))
        .routes(routes!(history::visualize, history::visualize_again))
        .routes(routes!(history::export))
        .routes(routes!(nemesis::list))
        .routes(routes!(nemesis::partition))
        .routes(routes!(nemesis::heal))
        .routes(routes!(nemesis::kill))
        .routes(routes!(nemesis::start))
        .routes(routes!(nemesis::skew))
        .routes(routes!(nemesis::reset))
        .merge(histories())
        .routes(routes!(cluster::workloads))
        .routes(routes!(cluster::workload))
        .routes(routes!(cluster::status))
        .routes(routes!(cluster::topology))
        .routes(routes!(cluster::metrics))
        .routes(routes!(cluster::latency))
        .routes(routes!(cluster::throughput))
}

/// The routes that take whole histories.
fn histories() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(consistency::linearizability))
        .routes(routes!(consistency::sequential))
        .routes(routes!(consistency::eventual))
        .layer(Extension(BodyLimit(HISTORY_BYTES_MAX)))
}

/// What an error of the library means for the one who asked.
fn problem(error: &potter_jepsen::Error) -> Problem {
    use potter_jepsen::ErrorKind;
    let text = format!("{error}.");
    match error.kind() {
        ErrorKind::InvalidFault => Problem::unprocessable("invalid_fault", text),
        ErrorKind::Syntax | ErrorKind::InvalidHistory => {
            Problem::unprocessable("invalid_history", text)
        }
        ErrorKind::Unsupported => Problem::unprocessable("unsupported", text),
        ErrorKind::Unavailable => Problem::unprocessable("nemesis_unavailable", text),
        ErrorKind::Fault => Problem::unavailable("fault_failed", text),
        _ => Problem::internal(&format_args!("{error:?}")),
    }
}

fn no_such_test(id: &str) -> Problem {
    Problem::not_found("test_not_found", format!("There is no test {id}."))
}

async fn stored(service: &Service, id: &str) -> Result<storage::Stored, Problem> {
    storage::get(service.database(), id).await?.ok_or_else(|| no_such_test(id))
}

/// The part of a list that was asked for.
fn page(limit: Option<u32>, offset: Option<u32>) -> Result<(u32, u32), Problem> {
    let limit = limit.unwrap_or(50);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok((limit, offset.unwrap_or(0)));
    }
    let message = format!("must be from 1 to {LIMIT_MAX}");
    Err(Problem::bad_request("invalid_query", format!("limit {message}."))
        .with_field("limit", message))
}
