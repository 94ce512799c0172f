//! The program; see the README beside it.

use std::process::ExitCode;

use example_eventsourcing_basic::app;
use examples_common::{Program, run};

fn main() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    run(Program { service: "eventsourcing-basic", version, port: 8080 }, app)
}
