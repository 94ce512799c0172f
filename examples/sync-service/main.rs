//! The program; see the README beside it.

use std::io::Write;
use std::process::ExitCode;

use example_sync_service::{app, bench, demo};
use examples_common::{Program, StartError, run};

const USAGE: &str = "\
Devices that go offline: their operations are merged by CRDTs, each once, in one order for all.

usage: sync-service          serve HTTP (http://127.0.0.1:8091/docs shows the requests)
       sync-service demo     two devices, a conflict, a lost answer, a copied phone: told as a story
       sync-service bench    how many operations a second are accepted durably (build it with --release)
       sync-service --help   print this

PORT (or SERVER_PORT)  the port to listen on (8091; 0 is any free one)
HOST                   the address to listen on (127.0.0.1)
DATABASE_URL           postgres://user:password@host:port/name or sqlite://path/to/file.db
                       (./data/sync-service.db; demo: a temporary file)
MONGO_URL              mongodb://host:port/name instead, in a build with the feature mongodb
REDIS_URL              redis://user:password@host:port/0 (or REDIS_ADDR=host:port): a cache, and how
                       the processes on one store tell each other of news; nothing is kept in it
SYNC_TOKENS            required: a request must show its device's token; optional: only a wrong one
                       is refused (optional on a loopback address, else required)
SYNC_RETIRE_DAYS       after how many silent days a device is retired (90)
SYNC_UPKEEP_SECONDS    how often logs are trimmed and garbage is reclaimed (60)
SYNC_LOOK_MS           how often a download that waits looks at the store (500; with Redis 5000)
LOG_LEVEL              off, error, warn, info, debug or trace (info)
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    match arguments.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..] {
        [] => {
            let version = env!("CARGO_PKG_VERSION");
            run(Program { service: "sync-service", version, port: 8091 }, app)
        }
        ["demo"] => ended(demo(&mut std::io::stdout())),
        ["bench"] => ended(bench(&mut std::io::stdout())),
        ["--help" | "-h" | "help"] => {
            let _ = write!(std::io::stdout(), "{USAGE}");
            ExitCode::SUCCESS
        }
        [first, ..] => {
            let message = format!("there is no argument \"{first}\"; --help lists what there is");
            let _ = writeln!(std::io::stderr(), "sync-service: {message}");
            ExitCode::from(2)
        }
    }
}

fn ended(done: Result<(), StartError>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "sync-service: {error}");
            ExitCode::FAILURE
        }
    }
}
