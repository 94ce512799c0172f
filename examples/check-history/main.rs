//! Checks recorded histories: `cargo run --example check-history -- FILE --model MODEL`.

mod expected;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use potter_jepsen::{Analysis, Budget, Error, ErrorKind, Loaded, Spec, load};

/// Checks a recorded history and says what it proves.
#[derive(Parser)]
struct Arguments {
    /// The history; with --verdicts, the folder that holds verdicts.tsv.
    path: PathBuf,
    /// What it should satisfy: register, cas-register, kv, list-append, rw-register, bank, set, …
    #[arg(long, default_value = "cas-register")]
    model: String,
    /// Check every file of verdicts.tsv (file, model, expected), print a line each.
    #[arg(long)]
    verdicts: bool,
    /// Seconds for one history.
    #[arg(long, default_value_t = 60.0)]
    time_limit: f64,
    /// Mebibytes for one history.
    #[arg(long, default_value_t = 1024)]
    memory: usize,
}

type Result<T> = std::result::Result<T, Error>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.verdicts {
        true => check_all(&arguments),
        false => check_one(&arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("check-history: {error}");
            ExitCode::from(2)
        }
    }
}

fn open(path: &Path) -> Result<Loaded> {
    let file = std::fs::File::open(path).map_err(|error| {
        Error::new(ErrorKind::Read, format!("{} can't be opened: {error}", path.display()))
    })?;
    load(std::io::BufReader::with_capacity(1 << 20, file), None)
}

fn budget(arguments: &Arguments) -> Budget {
    Budget::new(Duration::from_secs_f64(arguments.time_limit), arguments.memory << 20)
}

fn check(loaded: &Loaded, spec: &Spec, budget: &Budget) -> Result<Analysis> {
    let checker = spec.checker(loaded.format)?;
    if spec.has_independent_keys() {
        return checker.check(&loaded.history.clone().with_keys_from_values(), budget);
    }
    checker.check(&loaded.history, budget)
}

fn check_one(arguments: &Arguments) -> Result<ExitCode> {
    let loaded = open(&arguments.path)?;
    let spec = Spec::parse(&arguments.model)?;
    let analysis = check(&loaded, &spec, &budget(arguments))?;
    println!("{}: {}", analysis.model, analysis.verdict.name());
    println!("{:#?}", analysis.levels.iter().map(|(l, v)| (l.name(), v.name())).collect::<Vec<_>>());
    println!("{:#?}", analysis.anomalies);
    Ok(ExitCode::from(u8::from(!analysis.verdict.is_valid())))
}

fn check_all(arguments: &Arguments) -> Result<ExitCode> {
    let list = arguments.path.join("verdicts.tsv");
    let text = std::fs::read_to_string(&list).map_err(|error| {
        Error::new(ErrorKind::Read, format!("{} can't be read: {error}", list.display()))
    })?;
    let (mut right, mut wrong) = (0, 0);
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let mut fields = line.split('\t').map(str::trim);
        let (Some(file), Some(model), Some(expected)) = (fields.next(), fields.next(), fields.next())
        else {
            println!("MISMATCH {line}: a line is file, model and expected, with tabs between");
            wrong += 1;
            continue;
        };
        let begin = Instant::now();
        let found = open(&arguments.path.join(file)).and_then(|loaded| {
            let spec = Spec::parse(model)?;
            check(&loaded, &spec, &budget(arguments))
        });
        let time = begin.elapsed().as_secs_f64() * 1000.0;
        let (says, problem) = match &found {
            Ok(analysis) => (expected::summary(analysis), expected::compare(analysis, expected)),
            Err(error) => (format!("error: {error}"), Err("it could not be checked".to_owned())),
        };
        match problem {
            Ok(()) => {
                right += 1;
                println!("ok       {file}: {says} ({time:.1} ms)");
            }
            Err(why) => {
                wrong += 1;
                println!("MISMATCH {file}: {says}; expected: {expected}; {why} ({time:.1} ms)");
            }
        }
    }
    println!("{right} as expected, {wrong} not");
    let failed = wrong > 0 || right == 0;
    Ok(ExitCode::from(u8::from(failed)))
}
