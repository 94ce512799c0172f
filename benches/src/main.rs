//! Benchmarks of the event store and of sagas, each beside its floor: the same rows written or
//! read by bare SQL through the same driver, on the same engine, in the same run.
//!
//! `scripts/bench` runs it. Rounds of the two sides alternate, and the medians are compared:
//! single times mean little on a shared machine. A round before them counts what does not depend
//! on the machine: commits, round trips and bytes of write-ahead log for one operation.
//!
//! Arguments: words that the rows to run must contain (`append`, `saga`, `sqlite`, …), and
//! `--rounds N` (5).

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark ends at the first error")]

mod append;
mod count;
mod floor;
mod proxy;
mod read;
mod saga;
mod target;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use target::{Engine, Target};

/// One side of a row: prepares outside the clock, then does so many operations.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A row of the table.
pub(crate) struct Row {
    name: String,
    /// Operations of one round.
    operations: u32,
    floor: fn(Target, u32) -> Prepared,
    potter: fn(Target, u32) -> Prepared,
}

/// Answers the work to be timed.
pub(crate) type Prepared = Pin<Box<dyn Future<Output = Work> + Send>>;

struct Side {
    seconds: Vec<f64>,
    counts: count::Counts,
}

impl Side {
    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

#[tokio::main]
async fn main() {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    let mut rounds = 5;
    if let Some(at) = arguments.iter().position(|word| word == "--rounds") {
        let number = arguments.get(at + 1).and_then(|word| word.parse().ok());
        rounds = number.expect("--rounds takes a number");
        arguments.drain(at..=at + 1);
    }
    println!(
        "| engine | what | floor, op/s | Potter, op/s | ratio (min–max) | commits/op | round trips/op | WAL bytes/op |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for engine in [Engine::Sqlite, Engine::Postgres] {
        for row in append::rows().into_iter().chain(read::rows()).chain(saga::rows()) {
            let name = format!("{engine:?} {}", row.name).to_lowercase();
            if arguments.iter().all(|word| name.contains(word.as_str())) {
                run(engine, &row, rounds).await;
            }
        }
    }
}

async fn run(engine: Engine, row: &Row, rounds: usize) {
    let mut sides = Vec::new();
    for make in [row.floor, row.potter] {
        sides.push(Side {
            seconds: Vec::new(),
            counts: counted(engine, make, row.operations / 4).await,
        });
    }
    for round in 0..rounds {
        // The order alternates too: what comes first must not have the colder cache.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            let make = [row.floor, row.potter][side];
            sides[side].seconds.push(timed(engine, make, row.operations).await.as_secs_f64());
        }
    }
    print(engine, row, &sides);
}

async fn counted(
    engine: Engine,
    make: fn(Target, u32) -> Prepared,
    operations: u32,
) -> count::Counts {
    let operations = operations.max(1);
    let target = Target::fresh(engine, true).await;
    let work = make(target.clone(), operations).await;
    let before = count::Counter::start(&target).await;
    work.await;
    let counts = before.end(&target, operations).await;
    target.remove().await;
    counts
}

async fn timed(engine: Engine, make: fn(Target, u32) -> Prepared, operations: u32) -> Duration {
    let target = Target::fresh(engine, false).await;
    let work = make(target.clone(), operations).await;
    let began = Instant::now();
    work.await;
    let took = began.elapsed();
    target.remove().await;
    took
}

fn print(engine: Engine, row: &Row, sides: &[Side]) {
    let rate = |side: &Side| f64::from(row.operations) / side.median();
    let ratios: Vec<f64> = sides[0]
        .seconds
        .iter()
        .zip(&sides[1].seconds)
        .map(|(floor, potter)| floor / potter)
        .collect();
    let min = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let max = ratios.iter().copied().fold(0.0, f64::max);
    println!(
        "| {engine:?} | {} | {:.0} | {:.0} | **{:.2}** ({min:.2}–{max:.2}) | {} → {} | {} → {} | {} → {} |",
        row.name,
        rate(&sides[0]),
        rate(&sides[1]),
        rate(&sides[1]) / rate(&sides[0]),
        shown(sides[0].counts.commits),
        shown(sides[1].counts.commits),
        shown(sides[0].counts.round_trips),
        shown(sides[1].counts.round_trips),
        whole(sides[0].counts.wal_bytes),
        whole(sides[1].counts.wal_bytes),
    );
}

fn shown(number: Option<f64>) -> String {
    number.map_or_else(|| "–".to_owned(), |number| format!("{number:.2}"))
}

fn whole(number: Option<f64>) -> String {
    number.map_or_else(|| "–".to_owned(), |number| format!("{number:.0}"))
}
