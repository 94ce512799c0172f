//! potter-crdt beside the best-known Rust crates: one process, rounds of all in turn, medians.
//!
//! Run with `cargo run --release` in this directory; `-- sets` and the like run one part.

mod counters;
mod deltas;
mod sets;
mod text;

use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// A thing to measure: sets itself up and returns how long the measured part took.
type Case<'a> = (&'static str, Box<dyn FnMut() -> Duration + 'a>);

/// Medians, one after the other in each round, after one round to warm up.
fn medians(rounds: usize, mut cases: Vec<Case<'_>>) -> Vec<(&'static str, Duration)> {
    let mut times = vec![Vec::new(); cases.len()];
    for round in 0..=rounds {
        for (case, times) in cases.iter_mut().zip(&mut times) {
            let time = case.1();
            if round > 0 {
                times.push(time);
            }
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    cases.iter().map(|case| case.0).zip(times.into_iter().map(median)).collect()
}

fn time<R>(run: impl FnOnce() -> R) -> Duration {
    let begin = Instant::now();
    let result = run();
    let time = begin.elapsed();
    std::hint::black_box(result);
    time
}

/// One row of a table; peers that have no such thing are left out.
fn row(title: &str, cells: &[(&str, String)]) {
    let cell = |peer: &str| {
        cells.iter().find(|(name, _)| *name == peer).map_or("–", |(_, cell)| cell.as_str())
    };
    println!(
        "| {title} | {} | {} | {} | {} | {} |",
        cell("potter"),
        cell("crdts"),
        cell("yrs"),
        cell("automerge"),
        cell("loro")
    );
}

fn times(title: &str, rounds: usize, unit: f64, cases: Vec<Case<'_>>) {
    let cells: Vec<_> = medians(rounds, cases)
        .into_iter()
        .map(|(name, time)| {
            let value = time.as_secs_f64() * unit;
            let digits = if value < 0.1 { 4 } else if value < 10.0 { 2 } else { 1 };
            (name, format!("{value:.digits$}"))
        })
        .collect();
    row(title, &cells);
}

const NS: f64 = 1e9;
const MS: f64 = 1e3;

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

fn main() {
    let only = std::env::args().nth(1);
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    println!("| | potter-crdt | crdts | yrs | automerge | loro |");
    println!("|---|---|---|---|---|---|");
    if wanted("counters") {
        counters::run();
    }
    if wanted("sets") {
        sets::run();
    }
    if wanted("deltas") {
        deltas::run();
    }
    if wanted("memory") {
        sets::memory();
    }
    if wanted("text") {
        text::run();
    }
}
