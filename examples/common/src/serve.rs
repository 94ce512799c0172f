//! From start to stop.

use std::fmt;
use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use potter_core::telemetry::{MetricsHandle, Shutdown, Telemetry};
use potter_core::{Error, ErrorKind};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::settings::Settings;

/// Why a program can't start: any error; its text is what the user sees.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// What a program is.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name, as in `/health` and the database's file.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The port when `PORT` is not set.
    pub port: u16,
}

/// What a program builds its routes from.
#[derive(Clone, Debug)]
pub struct Context {
    /// The program.
    pub program: Program,
    /// Its settings.
    pub settings: Settings,
    /// What stops it: background work ends when its token is cancelled.
    pub shutdown: Shutdown,
    /// What works beside the requests: the program ends when these tasks have ended, too.
    pub background: TaskTracker,
    /// Its metrics.
    pub metrics: MetricsHandle,
}

/// Runs a service: settings, telemetry, its routes (made by `app`), then requests until SIGTERM
/// or SIGINT. A program that can't start says why in one line on stderr and exits with 1.
pub fn run<F, Fut>(program: Program, app: F) -> ExitCode
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<Router, StartError>>,
{
    ended(program, start(program, Settings::from_env(program.service, program.port), app))
}

/// The same for a program that is not on `DATABASE_URL`: with settings of its own.
pub fn run_with<F, Fut>(program: Program, settings: Result<Settings, Error>, app: F) -> ExitCode
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<Router, StartError>>,
{
    ended(program, start(program, settings, app))
}

fn ended(program: Program, outcome: Result<(), StartError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever the error holds. Nothing can be done if stderr is closed.
            let text = error.to_string().replace(['\n', '\r'], " ");
            let _ = writeln!(std::io::stderr(), "{}: {text}", program.service);
            ExitCode::FAILURE
        }
    }
}

fn start<F, Fut>(
    program: Program,
    settings: Result<Settings, Error>,
    app: F,
) -> Result<(), StartError>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<Router, StartError>>,
{
    let settings = settings?;
    let telemetry = Telemetry::builder(program.service).init()?;
    if settings.database_is_default {
        std::fs::create_dir_all("data")
            .map_err(|error| format!("./data can't be made: {error}"))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let context = Context {
            program,
            settings,
            shutdown: Shutdown::on_signals()?,
            background: TaskTracker::new(),
            metrics: telemetry.metrics(),
        };
        let router = app(context.clone()).await?;
        let served = serve(router, &context).await;
        // It may have ended because it could not listen: what works beside it ends as well.
        context.shutdown.stop();
        context.background.close();
        let grace = context.shutdown.grace();
        if tokio::time::timeout(grace, context.background.wait()).await.is_err() {
            tracing::warn!("stopped with background work under way: it took too long");
        }
        served
    });
    // Blocking work that hangs must not keep the program from its end.
    runtime.shutdown_timeout(Duration::from_millis(500));
    done
}

/// Listens, says where, and answers until the shutdown; then finishes the requests under way,
/// for the shutdown's grace less a second at most.
///
/// # Errors
/// `Config` naming `HOST` and `PORT` when it can't listen there.
pub async fn serve(router: Router, context: &Context) -> Result<(), StartError> {
    let Context { program, settings, shutdown, .. } = context;
    let (host, port) = (settings.host.as_str(), settings.port);
    let place = host.trim_start_matches('[').trim_end_matches(']');
    let refused = |source: std::io::Error| {
        let message = format!("can't listen on HOST={host} PORT={port}: {source}");
        Error::with_source(ErrorKind::Config, message, source)
    };
    let listener = TcpListener::bind((place, port)).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    tracing::info!(
        service = program.service,
        version = program.version,
        %address,
        url = %Url(address),
        database = settings.database_shown(),
        "listening"
    );
    let token = shutdown.token();
    let served =
        axum::serve(listener, router).with_graceful_shutdown(token.clone().cancelled_owned());
    let late = async {
        token.cancelled().await;
        tokio::time::sleep(shutdown.grace().saturating_sub(Duration::from_secs(1))).await;
    };
    tokio::select! {
        done = async { served.await } => done?,
        () = late => tracing::warn!("stopped with requests under way: they took too long"),
    }
    tracing::info!(service = program.service, "stopped");
    Ok(())
}

struct Url(std::net::SocketAddr);

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}
