//! The program; see the README beside it.

use std::io::Write;
use std::process::ExitCode;

use example_consistency_testing::{app, demo};
use examples_common::{Program, StartError, run};
use jepsen_workloads::run_orchestrator;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const USAGE: &str = "\
Consistency tests of PostgreSQL, of the event store and of the saga engine, under faults.

usage: consistency-testing          serve HTTP (http://127.0.0.1:8095/docs shows the requests)
       consistency-testing demo     bank transfers under partitions and kills; opens no port for you
       consistency-testing orchestrator
                                    what a test of sagas starts, and kills
       consistency-testing --help   print this

PORT (or SERVER_PORT)   the port to listen on (8095; 0 is any free one)
HOST                    the address to listen on (127.0.0.1)
PRIMARY_DATABASE_URL    postgres://user:password@host:port/name: test this server in place of a
                        private one that the program starts itself
REPLICA_DATABASE_URLS   its replicas, separated by commas
DATABASE_URL            where the results are kept: sqlite://… or postgres://…
                        (./data/consistency-testing.db)
DATA_DIR                where histories and reports are kept (./data/consistency-testing)
POTTER_POSTGRES_BIN     the directory with initdb, if PostgreSQL is not found by itself
LOG_LEVEL               off, error, warn, info, debug or trace (info)
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    match arguments.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..] {
        [] => {
            let version = env!("CARGO_PKG_VERSION");
            run(Program { service: "consistency-testing", version, port: 8095 }, app)
        }
        ["orchestrator"] => ended(orchestrator()),
        ["demo"] => ended(demo(&mut std::io::stdout())),
        ["--help" | "-h" | "help"] => {
            let _ = write!(std::io::stdout(), "{USAGE}");
            ExitCode::SUCCESS
        }
        [first, ..] => {
            let message = format!("there is no argument \"{first}\"; --help lists what there is");
            let _ = writeln!(std::io::stderr(), "consistency-testing: {message}");
            ExitCode::from(2)
        }
    }
}

fn ended(result: Result<(), StartError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "consistency-testing: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a test of sagas starts, and kills: one of the processes that run them.
fn orchestrator() -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            terminated.recv().await;
            stopped.cancel();
        });
        run_orchestrator(stop).await
    })
}
