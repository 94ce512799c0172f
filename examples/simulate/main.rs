//! A database with a bug of your choice, on a virtual clock: one seed is one history.
//!
//! Run with: `cargo run --example simulate -- --seed 7 --bug stale-reads`

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use potter_jepsen::runner::Run;
use potter_jepsen::sim::{Bug, Kind, Scenario};
use potter_jepsen::{Error, ErrorKind, Result, report};

/// Simulates clients, a database and faults. Exits with 0 if the history is valid, 1 if not, 3 if
/// that is unknown, 2 if the arguments make no sense.
#[derive(Parser)]
struct Arguments {
    /// Everything follows from it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What is wrong: none, stale-reads, lost-writes, lost-updates, write-skew, dirty-reads,
    /// wrong-timeouts.
    #[arg(long, default_value = "none")]
    bug: String,
    /// register or append; without it, the one that shows the bug best.
    #[arg(long)]
    workload: Option<String>,
    /// The number of clients.
    #[arg(long, default_value_t = 5)]
    clients: usize,
    /// Operations at most.
    #[arg(long, default_value_t = 100_000)]
    operations: u64,
    /// No partitions, no crashes, no lost messages.
    #[arg(long)]
    no_faults: bool,
    /// Try this many seeds, from --seed on, and count the verdicts.
    #[arg(long)]
    seeds: Option<u64>,
    /// Look for a smaller simulation that fails in the same way, and print its history.
    #[arg(long)]
    shrink: bool,
    /// Print every event, one a line.
    #[arg(long)]
    history: bool,
    /// Write a report as one HTML file.
    #[arg(long)]
    html: Option<PathBuf>,
}

impl Arguments {
    fn scenario(&self) -> Result<Scenario> {
        let unsupported = |message| Error::new(ErrorKind::Unsupported, message);
        let bug = Bug::parse(&self.bug).ok_or_else(|| {
            let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
            unsupported(format!("there is no bug {}; there are {}", self.bug, names.join(", ")))
        })?;
        let scenario = match self.workload.as_deref() {
            None => Scenario::showing(bug),
            Some("register") => Scenario::new(Kind::Register, bug),
            Some("append") => Scenario::new(Kind::Append, bug),
            Some(other) => {
                let message = format!("there is no workload {other}; there are register, append");
                return Err(unsupported(message));
            }
        };
        let scenario = scenario.seed(self.seed).concurrency(self.clients);
        Ok(scenario.max_operations(self.operations).faults(!self.no_faults))
    }

    /// The command that does the same again.
    fn command(&self, kind: Kind, (seed, clients, operations): (u64, usize, u64)) -> String {
        let faults = if self.no_faults { " --no-faults" } else { "" };
        format!(
            "cargo run --example simulate -- --seed {seed} --bug {} --workload {} --clients \
             {clients} --operations {operations}{faults}",
            self.bug,
            kind.name(),
        )
    }
}

fn main() -> ExitCode {
    match simulate(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("simulate: {error}");
            ExitCode::from(2)
        }
    }
}

fn simulate(arguments: &Arguments) -> Result<ExitCode> {
    let scenario = arguments.scenario()?;
    if let Some(count) = arguments.seeds {
        return many(arguments, &scenario, count);
    }
    let mut run = scenario.run()?;
    let mut numbers = (arguments.seed, arguments.clients, arguments.operations);
    if arguments.shrink && run.analysis.verdict.is_invalid() {
        let before = run.progress.operations;
        if let Some(smaller) = scenario.shrink() {
            numbers = smaller.numbers();
            println!(
                "shrunk from {before} operations of {} clients to {} of {}, by {} simulations",
                arguments.clients, smaller.run.progress.operations, numbers.1, smaller.tried
            );
            run = smaller.run;
        }
    }
    if arguments.history || arguments.shrink {
        print!("{}", run.history.to_edn());
    }
    tell(&run);
    println!("again: {}", arguments.command(scenario.kind(), numbers));
    if let Some(path) = &arguments.html {
        let title = format!("simulation, bug {}, seed {}", arguments.bug, numbers.0);
        std::fs::write(path, report::html(&run.history, &run.analysis, &title)).map_err(
            |error| {
                Error::new(
                    ErrorKind::Write,
                    format!("{} can't be written: {error}", path.display()),
                )
            },
        )?;
    }
    Ok(match &run.analysis.verdict {
        verdict if verdict.is_valid() => ExitCode::SUCCESS,
        verdict if verdict.is_invalid() => ExitCode::from(1),
        _ => ExitCode::from(3),
    })
}

fn tell(run: &Run) {
    let progress = &run.progress;
    println!(
        "{} virtual seconds, {} faults: {} operations, {} ok, {} failed, {} unknown",
        progress.elapsed.as_secs(),
        progress.faults,
        progress.operations,
        progress.ok,
        progress.fail,
        progress.info
    );
    print!("{}", report::text(&run.history, &run.analysis));
}

fn many(arguments: &Arguments, scenario: &Scenario, count: u64) -> Result<ExitCode> {
    let (mut valid, mut unknown, mut failing) = (0_u64, 0_u64, Vec::new());
    for seed in arguments.seed..arguments.seed.saturating_add(count) {
        let run = scenario.clone().seed(seed).run()?;
        match run.analysis.verdict.counterexample() {
            Some(found) => failing.push((seed, found.anomaly.clone())),
            None if run.analysis.verdict.is_valid() => valid += 1,
            None => unknown += 1,
        }
    }
    println!("{count} seeds: {valid} valid, {} invalid, {unknown} unknown", failing.len());
    for (seed, anomaly) in failing.iter().take(5) {
        let numbers = (*seed, arguments.clients, arguments.operations);
        println!("{anomaly}: {}", arguments.command(scenario.kind(), numbers));
    }
    Ok(match (failing.is_empty(), unknown) {
        (false, _) => ExitCode::from(1),
        (true, 0) => ExitCode::SUCCESS,
        (true, _) => ExitCode::from(3),
    })
}
