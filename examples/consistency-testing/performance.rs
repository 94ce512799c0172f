//! How fast a test's operations were: latencies and rates, from its history.

use std::collections::BTreeMap;

use potter_jepsen::{History, Outcome};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most seconds of rates that are kept.
const SECONDS_MAX: usize = 3_700;

/// The latencies of one kind of operation, in milliseconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
pub(crate) struct Latency {
    /// How many succeeded.
    count: usize,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// What ended in one second of a test.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
pub(crate) struct Second {
    second: usize,
    ok: u64,
    fail: u64,
    info: u64,
}

/// The figures of one test.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
pub(crate) struct Performance {
    pub(crate) operations: usize,
    pub(crate) ok: usize,
    pub(crate) fail: usize,
    pub(crate) info: usize,
    /// From the first event to the last.
    pub(crate) seconds: f64,
    /// Successes a second.
    pub(crate) ok_per_second: f64,
    /// By operation.
    pub(crate) latency: BTreeMap<String, Latency>,
    pub(crate) throughput: Vec<Second>,
}

#[allow(clippy::cast_precision_loss)] // Figures for people.
fn millis(nanos: i64) -> f64 {
    (nanos as f64 / 1e4).round() / 100.0
}

#[allow(clippy::cast_precision_loss)] // Figures for people.
pub(crate) fn of(history: &History) -> Performance {
    let mut all = Performance::default();
    let mut latencies: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut seconds: Vec<Second> = Vec::new();
    let events = history.events();
    for (id, operation) in history.operations().iter().enumerate() {
        all.operations += 1;
        let ended = operation.complete.and_then(|at| events[at as usize].time);
        let begun = events[operation.invoke as usize].time;
        let second = ended.and_then(|time| usize::try_from(time / 1_000_000_000).ok());
        let second = second.filter(|second| *second < SECONDS_MAX);
        if let Some(second) = second {
            while seconds.len() <= second {
                seconds.push(Second { second: seconds.len(), ..Second::default() });
            }
        }
        let mut count = |f: fn(&mut Second) -> &mut u64| {
            if let Some(second) = second {
                *f(&mut seconds[second]) += 1;
            }
        };
        match operation.outcome {
            Outcome::Ok => {
                all.ok += 1;
                count(|second| &mut second.ok);
                if let (Some(begun), Some(ended)) = (begun, ended) {
                    latencies.entry(history.f(id).to_owned()).or_default().push(ended - begun);
                }
            }
            Outcome::Fail => {
                all.fail += 1;
                count(|second| &mut second.fail);
            }
            Outcome::Info => {
                all.info += 1;
                count(|second| &mut second.info);
            }
        }
    }
    let last = events.iter().rev().find_map(|event| event.time).unwrap_or(0);
    all.seconds = millis(last) / 1_000.0;
    if all.seconds > 0.0 {
        all.ok_per_second = (all.ok as f64 / all.seconds * 10.0).round() / 10.0;
    }
    all.throughput = seconds;
    all.latency = latencies.into_iter().map(|(f, times)| (f, latency(times))).collect();
    all
}

fn latency(mut times: Vec<i64>) -> Latency {
    times.sort_unstable();
    let at = |per_cent: usize| millis(times[(times.len() - 1) * per_cent / 100]);
    Latency { count: times.len(), p50_ms: at(50), p95_ms: at(95), p99_ms: at(99), max_ms: at(100) }
}
