//! The program; see the README beside it.

use std::io::Write;
use std::process::ExitCode;

use example_saga_order::{app, demo};
use examples_common::{Program, run};

const USAGE: &str = "\
An order as a saga: reserve_inventory, process_payment, create_shipment, complete_order.

usage: saga-order          serve HTTP (http://127.0.0.1:8080/docs shows the requests)
       saga-order demo     run two orders, one of which is refused, and print what happens
       saga-order --help   print this

PORT (or SERVER_PORT)  the port to listen on (8080; 0 is any free one)
HOST                   the address to listen on (127.0.0.1)
DATABASE_URL           postgres://user:password@host:port/name or sqlite://path/to/file.db
                       (./data/saga-order.db; demo: a temporary file)
LOG_LEVEL              off, error, warn, info, debug or trace (info)

To see what happens when things go wrong:
FAIL_AT=STEP           that step refuses every order: what was done before is undone
FAIL_ONCE=STEP         the first attempt at that step fails, for every order: it is tried again
STEP_DELAY_MS=N        every step takes so long: time to cancel, or to kill the program
LEASE_MS=N             how long after its end another process takes its sagas over (10000)
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    match arguments.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..] {
        [] => {
            let version = env!("CARGO_PKG_VERSION");
            run(Program { service: "saga-order", version, port: 8080 }, app)
        }
        ["demo"] => match demo(&mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "saga-order: {error}");
                ExitCode::FAILURE
            }
        },
        ["--help" | "-h" | "help"] => {
            let _ = write!(std::io::stdout(), "{USAGE}");
            ExitCode::SUCCESS
        }
        [first, ..] => {
            let message = format!("there is no argument \"{first}\"; --help lists what there is");
            let _ = writeln!(std::io::stderr(), "saga-order: {message}");
            ExitCode::from(2)
        }
    }
}
