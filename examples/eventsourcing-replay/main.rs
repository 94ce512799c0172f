//! The program; see the README beside it.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use example_eventsourcing_replay::{Cli, run};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse(), &mut std::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string().replace(['\n', '\r'], " ");
            let _ = writeln!(std::io::stderr(), "eventsourcing-replay: {text}");
            ExitCode::FAILURE
        }
    }
}
