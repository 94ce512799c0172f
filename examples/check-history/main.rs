//! Checks recorded histories.
//!
//! Run with: `cargo run --example check-history -- FILE --model MODEL`

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod expected;
mod models;
mod verdicts;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use potter_jepsen::{
    Analysis, Budget, Error, ErrorKind, Loaded, Result, Spec, load, report, shrink,
};

/// Checks a recorded history and says what it proves. Exits with 0 if it is valid, 1 if not, 3 if
/// that is unknown, 2 if it can't be checked.
#[derive(Parser)]
struct Arguments {
    /// The history; with --verdicts, the folder that holds verdicts.tsv.
    path: PathBuf,
    /// What it should satisfy, with parameters: "cas-register init=nil", "list-append level=serializable".
    #[arg(long)]
    model: Option<String>,
    /// Check every file of verdicts.tsv (file, model, expected), print a line each.
    #[arg(long)]
    verdicts: bool,
    /// Seconds for one history.
    #[arg(long, default_value_t = 60.0)]
    time_limit: f64,
    /// Mebibytes that a search may hold.
    #[arg(long, default_value_t = 1024)]
    memory: usize,
    /// Write a report as one HTML file.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Print JSON in place of text.
    #[arg(long)]
    json: bool,
    /// Make an invalid history small and write it here as EDN.
    #[arg(long)]
    shrink: Option<PathBuf>,
}

impl Arguments {
    fn budget(&self) -> Budget {
        let time = Duration::try_from_secs_f64(self.time_limit).unwrap_or(Duration::MAX);
        Budget::new(time, self.memory.saturating_mul(1 << 20))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.verdicts {
        true => verdicts::check_all(&arguments.path, &arguments.budget()),
        false => check_one(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("check-history: {error}");
        ExitCode::from(2)
    })
}

fn open(path: &Path) -> Result<Loaded> {
    let file = std::fs::File::open(path).map_err(|error| {
        Error::new(ErrorKind::Read, format!("{} can't be opened: {error}", path.display()))
    })?;
    load(std::io::BufReader::with_capacity(1 << 20, file), None)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| {
        Error::new(ErrorKind::Read, format!("{} can't be written: {error}", path.display()))
    })
}

/// Loads the file, with keys where the model says that they are.
fn prepare(path: &Path, spec: &Spec) -> Result<Loaded> {
    let mut loaded = open(path)?;
    if spec.has_independent_keys() {
        loaded.history = loaded.history.with_keys_from_values();
    }
    Ok(loaded)
}

fn check(loaded: &Loaded, spec: &Spec, budget: &Budget) -> Result<Analysis> {
    spec.checker(loaded.format)?.check(&loaded.history, budget)
}

fn check_one(arguments: &Arguments) -> Result<ExitCode> {
    let Some(model) = &arguments.model else {
        let message = format!("--model is missing; there are {}", Spec::NAMES.join(", "));
        return Err(Error::new(ErrorKind::Unsupported, message));
    };
    let spec = Spec::parse(model)?;
    let loaded = prepare(&arguments.path, &spec)?;
    let budget = arguments.budget();
    let analysis = check(&loaded, &spec, &budget)?;
    match arguments.json {
        true => println!("{}", report::json(&loaded.history, &analysis)),
        false => print!("{}", report::text(&loaded.history, &analysis)),
    }
    if let Some(path) = &arguments.html {
        let title = arguments.path.display().to_string();
        write(path, &report::html(&loaded.history, &analysis, &title))?;
    }
    if let Some(path) = &arguments.shrink {
        let checker = spec.checker(loaded.format)?;
        match shrink(&*checker, &loaded.history, &analysis, &budget) {
            Some(small) => {
                write(path, &small.history.to_edn())?;
                eprintln!(
                    "shrunk from {} operations to {} with {} checks{}",
                    loaded.history.operations().len(),
                    small.history.operations().len(),
                    small.checks,
                    if small.minimal { "" } else { " (perhaps not the smallest)" },
                );
            }
            None => eprintln!("nothing to shrink: the history is not invalid"),
        }
    }
    Ok(match analysis.verdict {
        ref verdict if verdict.is_valid() => ExitCode::SUCCESS,
        ref verdict if verdict.is_invalid() => ExitCode::from(1),
        _ => ExitCode::from(3),
    })
}
