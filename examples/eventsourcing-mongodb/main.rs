//! The program; see the README beside it.

use std::process::ExitCode;

use example_eventsourcing_mongodb::{app, settings};
use examples_common::{Program, run_with};

fn main() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    let program = Program { service: "eventsourcing-mongodb", version, port: 8080 };
    run_with(program, settings(&program), app)
}
