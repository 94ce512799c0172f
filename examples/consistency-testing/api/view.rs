//! What the answers look like.

use std::time::Duration;

use potter_jepsen::runner::Progress;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::duration;
use crate::storage::{Status, Stored};

/// A test.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TestView {
    pub(super) id: String,
    /// The same as `id`.
    test_id: String,
    name: String,
    workload: String,
    nemesis: String,
    pub(super) status: Status,
    /// valid, invalid or unknown; `null` before the end.
    verdict: Option<String>,
    /// Why there is no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[schema(example = "5m")]
    duration: String,
    duration_ms: u64,
    client_count: usize,
    isolation: String,
    reads: String,
    keys: u32,
    seed: u64,
    op_timeout: String,
    op_timeout_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    created_at: String,
    started_at: Option<String>,
    ended_at: Option<String>,
}

impl TestView {
    pub(super) fn of(stored: &Stored) -> Self {
        let spec = &stored.spec;
        Self {
            id: stored.id.clone(),
            test_id: stored.id.clone(),
            name: spec.name.clone(),
            workload: spec.workload.clone(),
            nemesis: spec.nemesis.clone(),
            status: stored.status,
            verdict: stored.verdict.clone(),
            error: stored.error.clone(),
            duration: duration::show(spec.duration()),
            duration_ms: spec.duration_ms,
            client_count: spec.client_count,
            isolation: spec.isolation.clone(),
            reads: spec.reads.clone(),
            keys: spec.keys,
            seed: spec.seed,
            op_timeout: duration::show(spec.op_timeout()),
            op_timeout_ms: spec.op_timeout_ms,
            rate: spec.rate,
            created_at: stored.created_at.clone(),
            started_at: stored.started_at.clone(),
            ended_at: stored.ended_at.clone(),
        }
    }
}

/// What came out of a test, or that nothing has yet.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResultView {
    #[serde(flatten)]
    test: TestView,
    /// Valid? Unknown is neither: `null`.
    passed: Option<bool>,
    /// Why, in one sentence.
    why: Option<String>,
    /// How many operations ended in which way.
    #[schema(value_type = Object)]
    counts: Value,
    /// Isolation levels with their verdicts, for transactions.
    #[schema(value_type = Object)]
    levels: Value,
    /// The kinds of anomaly that were found.
    violations: Vec<String>,
    /// Faults that were made.
    faults: u64,
    /// Faults and heals whose effect was not seen; because of them a valid result is unknown.
    unverified_faults: Vec<String>,
    notes: Vec<String>,
}

/// The analysis of a test that has one.
pub(super) fn analysis(stored: &Stored) -> Value {
    let text = stored.analysis.as_deref().unwrap_or("null");
    serde_json::from_str(text).unwrap_or_default()
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

impl ResultView {
    pub(super) fn of(stored: &Stored) -> Self {
        let analysis = analysis(stored);
        let anomalies = analysis["anomalies"].as_array().map(Vec::as_slice).unwrap_or_default();
        let names = anomalies.iter().filter_map(|anomaly| anomaly["anomaly"].as_str());
        Self {
            test: TestView::of(stored),
            passed: match stored.verdict.as_deref() {
                Some("valid") => Some(true),
                Some("invalid") => Some(false),
                _ => None,
            },
            why: analysis["why"].as_str().map(str::to_owned),
            counts: analysis["counts"].clone(),
            levels: analysis["levels"].clone(),
            violations: names.map(str::to_owned).collect(),
            faults: analysis["faults"].as_u64().unwrap_or(0),
            unverified_faults: texts(&analysis["unverified_faults"]),
            notes: texts(&analysis["notes"]),
        }
    }
}

/// How far a test is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProgressView {
    test_id: String,
    status: Status,
    /// setup, running, checking or done.
    phase: &'static str,
    elapsed: String,
    elapsed_ms: u64,
    /// Of the time for clients; 100 when they are done.
    percent: u64,
    operations: u64,
    ok: u64,
    fail: u64,
    info: u64,
    faults: u64,
    active_faults: Vec<String>,
}

impl ProgressView {
    pub(super) fn of(stored: &Stored, progress: Option<&Progress>) -> Self {
        let analysis = analysis(stored);
        let count = |name: &str| analysis["counts"][name].as_u64().unwrap_or(0);
        let begun = Progress::default();
        let live = progress.unwrap_or(&begun);
        let over = progress.is_none() && stored.analysis.is_some();
        let whole = stored.spec.duration();
        let elapsed = if over { whole } else { live.elapsed };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            test_id: stored.id.clone(),
            status: stored.status,
            phase: if stored.status.is_over() { "done" } else { live.phase.name() },
            elapsed: duration::show(Duration::from_millis(millis(elapsed))),
            elapsed_ms: millis(elapsed),
            percent: (millis(elapsed) * 100 / millis(whole).max(1)).min(100),
            operations: if over { count("operations") } else { live.operations },
            ok: if over { count("ok") } else { live.ok },
            fail: if over { count("fail") } else { live.fail },
            info: if over { count("info") } else { live.info },
            faults: if over { analysis["faults"].as_u64().unwrap_or(0) } else { live.faults },
            active_faults: live.active_faults.clone(),
        }
    }
}
