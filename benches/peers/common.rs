//! What the programs share, so that each side does the same work and counts it the same way. It is
//! compiled into each of them, with the driver that the peer itself uses.
//!
//! The work comes in the arguments and the environment:
//! `DATABASE_URL=… OPERATIONS=… WRITERS=… BATCH=… EVENTS=… NAME=… program WORK`. A result is one
//! line of JSON.

#![allow(dead_code, reason = "not every peer can do all of it")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub const STREAMS: u64 = 10_000;
pub const AMOUNT: i64 = 1250;
pub const EVENT_TYPE: &str = "account.deposited";

/// About 150 bytes of JSON, as a small event has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deposited {
    pub account: String,
    pub amount: i64,
    pub currency: String,
    pub reference: String,
    pub note: String,
}

impl Deposited {
    pub fn new() -> Self {
        Self {
            account: "acc-000000017".to_owned(),
            amount: AMOUNT,
            currency: "EUR".to_owned(),
            reference: "invoice 2026-000183".to_owned(),
            note: "the second instalment of three".to_owned(),
        }
    }

    /// One that carries the time at which its append begins.
    pub fn sent_now() -> Self {
        Self { reference: nanos().to_string(), ..Self::new() }
    }

    pub fn sent_at(&self) -> u64 {
        self.reference.parse().unwrap()
    }
}

/// The same payload for SQL that fills a log.
pub const PAYLOAD: &str = r#"{"account":"acc-000000017","amount":1250,"currency":"EUR","reference":"invoice 2026-000183","note":"the second instalment of three"}"#;

pub fn nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Job {
    pub work: String,
    pub url: String,
    pub operations: u64,
    pub writers: u64,
    pub batch: u64,
    pub events: u64,
    /// Names the projection: each round has one of its own, so that it starts at the beginning.
    pub name: String,
}

pub fn job() -> Job {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect(name))
    };
    Job {
        work: std::env::args().nth(1).expect("the work"),
        url: std::env::var("DATABASE_URL").expect("DATABASE_URL"),
        operations: number("OPERATIONS", 1000),
        writers: number("WRITERS", 1),
        batch: number("BATCH", 1),
        events: number("EVENTS", 10_000),
        name: std::env::var("NAME").unwrap_or_else(|_| "peer".to_owned()),
    }
}

impl Job {
    pub fn unsupported(&self) -> ! {
        eprintln!("{} is not something this library does", self.work);
        std::process::exit(3)
    }

    pub fn report(&self, operations: u64, time: Duration) {
        println!(
            "{}",
            serde_json::json!({
                "work": self.work,
                "operations": operations,
                "seconds": time.as_secs_f64(),
                "peak_kib": peak_kib(),
            })
        );
    }

    pub fn report_latency(&self, mut nanos: Vec<u64>, time: Duration) {
        nanos.sort_unstable();
        let at = |q: f64| nanos[((nanos.len() - 1) as f64 * q) as usize] as f64 / 1e6;
        println!(
            "{}",
            serde_json::json!({
                "work": self.work,
                "operations": nanos.len(),
                "seconds": time.as_secs_f64(),
                "p50_ms": at(0.5),
                "p99_ms": at(0.99),
                "max_ms": at(1.0),
            })
        );
    }
}

/// The most memory that this process ever had.
pub fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Runs the writers at once and waits for all: the time of all appends.
pub async fn together<F: Future<Output = ()> + Send + 'static>(
    writers: u64,
    writer: impl Fn(u64) -> F,
) -> Duration {
    let tasks: Vec<_> = (0..writers).map(&writer).collect();
    let began = Instant::now();
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    for task in tasks {
        task.await.unwrap();
    }
    began.elapsed()
}

/// One append each millisecond, whatever the ones before do.
pub async fn paced<F: Future<Output = ()> + Send + 'static>(count: u64, append: impl Fn(u64) -> F) {
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        ticks.tick().await;
        tasks.spawn(append(number));
        while tasks.try_join_next().is_some() {}
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Waits until `count` is `wanted`.
pub async fn until(count: &AtomicU64, wanted: u64) {
    let began = Instant::now();
    while count.load(Ordering::Relaxed) < wanted {
        assert!(
            began.elapsed() < Duration::from_secs(300),
            "only {} events came",
            count.load(Ordering::Relaxed)
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The read model: a row an event.
pub const READ_MODEL: &str =
    "CREATE TABLE read_model (stream text NOT NULL, amount bigint NOT NULL)";
pub const ONE_ROW: &str = "INSERT INTO read_model (stream, amount) VALUES ($1, $2)";
pub const ROWS: &str =
    "INSERT INTO read_model (stream, amount) SELECT * FROM unnest($1::text[], $2::bigint[])";
