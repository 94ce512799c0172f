//! What a test is asked to be, checked.

use std::time::Duration;

use examples_common::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{duration, faults, workloads};

const CLIENTS_MAX: usize = 100;
const DURATION_MAX: Duration = Duration::from_secs(3_600);
const SAGAS_PER_SECOND: f64 = 20.0;
const NAME_BYTES_MAX: usize = 200;

/// A test to run.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestRequest {
    /// A name for people.
    #[schema(example = "bank_test")]
    name: String,
    /// One of GET /workloads.
    #[schema(example = "bank")]
    workload: String,
    /// One of GET /nemesis; `none` if left out.
    #[serde(default)]
    #[schema(example = "network_partition")]
    nemesis: Option<String>,
    /// How long the clients work: "30s", "5m", up to an hour. 30 s if left out.
    #[serde(default, deserialize_with = "duration::optional")]
    #[schema(value_type = Option<String>, example = "5m")]
    duration: Option<Duration>,
    /// 1 to 100; 5 if left out.
    #[serde(default, alias = "concurrency")]
    #[schema(example = 10)]
    client_count: Option<usize>,
    /// read-committed, repeatable-read or serializable (the default).
    #[serde(default, alias = "isolation_level")]
    isolation: Option<String>,
    /// primary (the default) or replica: where whatever only reads goes.
    #[serde(default)]
    reads: Option<String>,
    /// How many keys are in use at once.
    #[serde(default)]
    keys: Option<u32>,
    /// The seed of operations and faults; something new if left out.
    #[serde(default)]
    seed: Option<u64>,
    /// After this time the outcome of an operation is unknown: "5s".
    #[serde(default, deserialize_with = "duration::optional")]
    #[schema(value_type = Option<String>, example = "5s")]
    op_timeout: Option<Duration>,
    /// Operations a second of all clients together; without it as fast as they can (sagas: 20).
    #[serde(default)]
    rate: Option<f64>,
    /// `false`: it waits for POST /tests/{id}/start.
    #[serde(default)]
    start: Option<bool>,
}

/// The same, checked and complete.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct TestSpec {
    pub(crate) name: String,
    pub(crate) workload: String,
    pub(crate) nemesis: String,
    pub(crate) duration_ms: u64,
    pub(crate) client_count: usize,
    pub(crate) isolation: String,
    pub(crate) reads: String,
    pub(crate) keys: u32,
    pub(crate) seed: u64,
    pub(crate) op_timeout_ms: u64,
    pub(crate) rate: Option<f64>,
    #[serde(default)]
    pub(crate) start: bool,
}

impl TestSpec {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_millis(self.duration_ms)
    }

    pub(crate) fn op_timeout(&self) -> Duration {
        Duration::from_millis(self.op_timeout_ms)
    }

    /// The average pause between two operations.
    pub(crate) fn pace(&self) -> Option<Duration> {
        self.rate.map(|rate| Duration::from_secs_f64(1.0 / rate))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl TestRequest {
    /// The test, or all that is wrong with it.
    pub(crate) fn check(self, seed: u64) -> Result<TestSpec, Problem> {
        let mut wrong: Vec<(&str, String)> = Vec::new();
        let name = self.name.trim().to_owned();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
            wrong.push(("name", format!("must have 1 to {NAME_BYTES_MAX} bytes, on one line")));
        }
        let workload = workloads::find(&self.workload).map(|workload| workload.name.to_owned());
        let workload = workload.unwrap_or_else(|message| {
            wrong.push(("workload", message));
            String::new()
        });
        let nemesis = self.nemesis.as_deref().unwrap_or("none");
        let nemesis = faults::find(nemesis).map(|nemesis| nemesis.name.to_owned());
        let nemesis = nemesis.unwrap_or_else(|message| {
            wrong.push(("nemesis", message));
            String::new()
        });
        if nemesis == "orchestrator_crash" && workload != "saga" {
            let message = "orchestrator_crash is for the workload saga: no other has orchestrators";
            wrong.push(("nemesis", message.to_owned()));
        }
        let duration = self.duration.unwrap_or(Duration::from_secs(30));
        if duration < Duration::from_millis(500) || duration > DURATION_MAX {
            wrong.push(("duration", "must be from 500ms to 1h".to_owned()));
        }
        let client_count = self.client_count.unwrap_or(5);
        if !(1..=CLIENTS_MAX).contains(&client_count) {
            wrong.push(("client_count", format!("must be from 1 to {CLIENTS_MAX}")));
        }
        let isolation = self.isolation.unwrap_or_else(|| "serializable".to_owned());
        let isolation = workloads::isolation(&isolation).unwrap_or_else(|message| {
            wrong.push(("isolation", message));
            String::new()
        });
        let reads = self.reads.unwrap_or_else(|| "primary".to_owned()).to_ascii_lowercase();
        if !["primary", "replica"].contains(&reads.as_str()) {
            wrong.push(("reads", "must be primary or replica".to_owned()));
        }
        let keys = self.keys.unwrap_or(5);
        if !(1..=10_000).contains(&keys) {
            wrong.push(("keys", "must be from 1 to 10000".to_owned()));
        }
        let op_timeout = self.op_timeout.unwrap_or(Duration::from_secs(5));
        if op_timeout < Duration::from_millis(10) || op_timeout > Duration::from_secs(600) {
            wrong.push(("op_timeout", "must be from 10ms to 10m".to_owned()));
        }
        if self.rate.is_some_and(|rate| !(0.1..=1_000_000.0).contains(&rate)) {
            wrong.push(("rate", "must be from 0.1 to 1000000".to_owned()));
        }
        // Clients only start sagas; if nothing held them back, they would start thousands that then have
        // to come to their end.
        let rate = self.rate.or((workload == "saga").then_some(SAGAS_PER_SECOND));
        if wrong.is_empty() {
            return Ok(TestSpec {
                name,
                workload,
                nemesis,
                duration_ms: millis(duration),
                client_count,
                isolation,
                reads,
                keys,
                seed: self.seed.unwrap_or(seed),
                op_timeout_ms: millis(op_timeout),
                rate,
                start: self.start.unwrap_or(true),
            });
        }
        let detail: Vec<_> = wrong.iter().map(|(field, text)| format!("{field}: {text}")).collect();
        let problem = Problem::unprocessable("invalid_test", format!("{}.", detail.join("; ")));
        Err(wrong.into_iter().fold(problem, |all, (field, text)| all.with_field(field, text)))
    }
}
