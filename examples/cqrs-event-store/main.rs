//! The program; see the README beside it.

use std::io::Write;
use std::process::ExitCode;

use example_cqrs_event_store::{app, demo};
use examples_common::{Program, run};

const USAGE: &str = "\
Commands, events, read models and time travel over HTTP.

usage: cqrs-event-store          serve HTTP (http://127.0.0.1:8090/docs shows the requests)
       cqrs-event-store demo     tell the life of an account and an order, without a server
       cqrs-event-store --help   print this

PORT (or SERVER_PORT)  the port to listen on (8090; 0 is any free one)
HOST                   the address to listen on (127.0.0.1)
DATABASE_URL           postgres://user:password@host:port/name or sqlite://path/to/file.db
                       (./data/cqrs-event-store.db; demo: a temporary file)
CLICKHOUSE_URL         http://user:password@host:8123/database: the history is mirrored there, and
                       analytics are asked there (needs a build with --features clickhouse)
SNAPSHOT_FREQUENCY     after how many events a state is kept (50)
SSE_HEARTBEAT_MS       how often a quiet stream of events says that it is alive (15000)
LOG_LEVEL              off, error, warn, info, debug or trace (info)
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    match arguments.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..] {
        [] => {
            let version = env!("CARGO_PKG_VERSION");
            run(Program { service: "cqrs-event-store", version, port: 8090 }, app)
        }
        ["demo"] => match demo(&mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "cqrs-event-store: {error}");
                ExitCode::FAILURE
            }
        },
        ["--help" | "-h" | "help"] => {
            let _ = write!(std::io::stdout(), "{USAGE}");
            ExitCode::SUCCESS
        }
        [first, ..] => {
            let message = format!("there is no argument \"{first}\"; --help lists what there is");
            let _ = writeln!(std::io::stderr(), "cqrs-event-store: {message}");
            ExitCode::from(2)
        }
    }
}
