//! The program; see the README beside it.

use std::io::Write;
use std::process::ExitCode;

use example_eventsourcing_snapshots::{app, bench};
use examples_common::{Program, run};

const USAGE: &str = "\
Products that are loaded from snapshots and the events behind them.

usage: eventsourcing-snapshots          serve HTTP (http://127.0.0.1:8080/docs shows the requests)
       eventsourcing-snapshots bench    load products of many events with and without snapshots
       eventsourcing-snapshots --help   print this

PORT (or SERVER_PORT)  the port to listen on (8080; 0 is any free one)
DATABASE_URL           postgres://… or sqlite://… (./data/eventsourcing-snapshots.db; bench: a
                       temporary file)
SNAPSHOT_STRATEGY      frequency, timebased or hybrid (frequency)
SNAPSHOT_FREQUENCY     after how many events (10)
SNAPSHOT_INTERVAL_MS   after how long (3600000)
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let version = env!("CARGO_PKG_VERSION");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(Program { service: "eventsourcing-snapshots", version, port: 8080 }, app),
        ["bench"] => match bench(&mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "eventsourcing-snapshots: {error}");
                ExitCode::FAILURE
            }
        },
        ["--help" | "-h" | "help"] => {
            let _ = write!(std::io::stdout(), "{USAGE}");
            ExitCode::SUCCESS
        }
        [first, ..] => {
            let message = format!("there is no argument \"{first}\"; --help lists what there is");
            let _ = writeln!(std::io::stderr(), "eventsourcing-snapshots: {message}");
            ExitCode::from(2)
        }
    }
}
