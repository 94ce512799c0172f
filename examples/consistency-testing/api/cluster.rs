//! What can be tested, what it runs on, and how fast it was.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use examples_common::Problem;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Service, stored};
use crate::environment::places;
use crate::faults::CLIENT;
use crate::performance::{Latency, Performance, Second};
use crate::storage::{self, Filter, Status};
use crate::workloads;

/// A workload.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkloadView {
    name: &'static str,
    description: &'static str,
    /// postgresql, or the library that is tested on it.
    system: &'static str,
}

impl WorkloadView {
    fn of(named: &workloads::Named) -> Self {
        Self { name: named.name, description: named.about, system: named.system }
    }
}

/// All workloads.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkloadList {
    workloads: Vec<WorkloadView>,
    total: usize,
}

/// Lists the workloads.
#[utoipa::path(get, path = "/workloads", operation_id = "list_workloads",
    responses((status = 200, body = WorkloadList)))]
pub(super) async fn workloads() -> Json<WorkloadList> {
    let workloads: Vec<_> = workloads::all().iter().map(WorkloadView::of).collect();
    let total = workloads.len();
    Json(WorkloadList { workloads, total })
}

/// One workload.
#[utoipa::path(get, path = "/workloads/{name}", operation_id = "get_workload",
    params(("name" = String, Path)),
    responses((status = 200, body = WorkloadView), (status = 404, body = Problem)))]
pub(super) async fn workload(Path(name): Path<String>) -> Result<Json<WorkloadView>, Problem> {
    let named = workloads::find(&name)
        .map_err(|text| Problem::not_found("workload_not_found", format!("{text}.")))?;
    Ok(Json(WorkloadView::of(&named)))
}

/// A node of the system under test.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeView {
    name: String,
    /// primary or replica.
    role: &'static str,
    /// Where clients reach it, through the program.
    address: String,
    /// running, stopped or dead; `null` for a server that somebody else runs.
    state: Option<&'static str>,
    pid: Option<u32>,
}

/// The system under test.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClusterStatus {
    /// not_started, running or degraded.
    status: &'static str,
    /// private (this program's own servers) or external.
    kind: &'static str,
    nodes: Vec<NodeView>,
    faults_in_effect: Vec<String>,
    running_test: Option<String>,
}

/// The system under test. A private one is started when it is first needed.
#[utoipa::path(get, path = "/cluster/status", operation_id = "get_cluster_status",
    responses((status = 200, body = ClusterStatus)))]
pub(super) async fn status(State(service): State<Service>) -> Json<ClusterStatus> {
    let environments = &service.runs.environments;
    let kind = if environments.is_private() { "private" } else { "external" };
    let mut nodes = Vec::new();
    let mut status = "not_started";
    if let Some(environment) = environments.current().await {
        status = "running";
        let processes = environment.processes.list().await;
        let places = places(&environment.nodes);
        for (number, name) in environment.servers().into_iter().enumerate() {
            let process = processes.iter().find(|process| process.name == name);
            let state = process.map(|process| process.state.as_str());
            if state.is_some_and(|state| state != "running") {
                status = "degraded";
            }
            nodes.push(NodeView {
                role: if number == 0 { "primary" } else { "replica" },
                address: places.get(&name).cloned().unwrap_or_default(),
                state,
                pid: process.map(|process| process.pid),
                name,
            });
        }
    }
    let faults_in_effect = environments.journal.in_effect();
    let running_test = service.runs.running_test();
    Json(ClusterStatus { status, kind, nodes, faults_in_effect, running_test })
}

/// A connection between two nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LinkView {
    /// Who connects.
    from: String,
    to: String,
    /// Whether bytes pass, in both directions.
    connected: bool,
    delay_ms: u64,
}

/// Nodes, and who reaches whom.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Topology {
    nodes: Vec<String>,
    links: Vec<LinkView>,
}

/// Nodes, and who reaches whom now.
#[utoipa::path(get, path = "/cluster/topology", operation_id = "get_cluster_topology",
    responses((status = 200, body = Topology)))]
pub(super) async fn topology(State(service): State<Service>) -> Json<Topology> {
    let Some(environment) = service.runs.environments.current().await else {
        return Json(Topology { nodes: vec![CLIENT.to_owned()], links: Vec::new() });
    };
    let network = &environment.network;
    let links = network.links().into_iter().map(|(from, to)| {
        let (ahead, back) = (network.rules(&from, &to), network.rules(&to, &from));
        let blocked = ahead.as_ref().is_ok_and(|rules| rules.blocked)
            || back.as_ref().is_ok_and(|rules| rules.blocked);
        let delay = ahead.map_or(0, |rules| rules.delay.as_millis());
        let delay_ms = u64::try_from(delay).unwrap_or(u64::MAX);
        LinkView { from, to, connected: !blocked, delay_ms }
    });
    Json(Topology { links: links.collect(), nodes: network.nodes() })
}

/// Which test.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct TestQuery {
    /// The newest that has ended if left out.
    test_id: Option<String>,
}

async fn figures(service: &Service, query: TestQuery) -> Result<(String, Performance), Problem> {
    let found = match query.test_id {
        Some(id) => Some(stored(service, &id).await?),
        None => {
            let filter = Filter { over: true, limit: 50, ..Filter::default() };
            let (tests, _) = storage::list(service.database(), &filter).await?;
            tests.into_iter().find(|test| test.performance.is_some())
        }
    };
    let none = || Problem::not_found("no_figures", "No test has ended yet that was measured.");
    let found = found.ok_or_else(none)?;
    let text = found.performance.as_deref().ok_or_else(none)?;
    let figures = serde_json::from_str(text).map_err(|error| Problem::internal(&error))?;
    Ok((found.id, figures))
}

/// Tests in figures.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Metrics {
    /// How many tests have which status.
    tests: BTreeMap<&'static str, i64>,
    /// How many results have which verdict.
    verdicts: BTreeMap<&'static str, i64>,
    /// The newest test that was measured.
    test_id: Option<String>,
    operations: usize,
    ok: usize,
    fail: usize,
    info: usize,
    ok_per_second: f64,
}

/// Tests in figures, and those of the newest.
#[utoipa::path(get, path = "/performance/metrics", operation_id = "get_performance_metrics",
    params(TestQuery), responses((status = 200, body = Metrics), (status = 404, body = Problem)))]
pub(super) async fn metrics(
    State(service): State<Service>,
    Query(query): Query<TestQuery>,
) -> Result<Json<Metrics>, Problem> {
    let mut tests = BTreeMap::new();
    for status in Status::ALL {
        let filter = Filter { status: Some(status), limit: 1, ..Filter::default() };
        tests.insert(status.name(), storage::list(service.database(), &filter).await?.1);
    }
    let mut verdicts = BTreeMap::new();
    for verdict in ["valid", "invalid", "unknown"] {
        let verdict_is = Some(verdict.to_owned());
        let filter = Filter { verdict: verdict_is, limit: 1, ..Filter::default() };
        verdicts.insert(verdict, storage::list(service.database(), &filter).await?.1);
    }
    let asked = query.test_id.is_some();
    let (test_id, all) = match figures(&service, query).await {
        Ok((id, all)) => (Some(id), all),
        Err(problem) if asked => return Err(problem),
        Err(_) => (None, Performance::default()),
    };
    let Performance { operations, ok, fail, info, ok_per_second, .. } = all;
    Ok(Json(Metrics { tests, verdicts, test_id, operations, ok, fail, info, ok_per_second }))
}

/// How long operations took.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LatencyView {
    test_id: String,
    /// Of those that succeeded, by operation.
    latency: BTreeMap<String, Latency>,
}

/// How long the operations of a test took.
#[utoipa::path(get, path = "/performance/latency", operation_id = "get_latency",
    params(TestQuery), responses((status = 200, body = LatencyView), (status = 404, body = Problem)))]
pub(super) async fn latency(
    State(service): State<Service>,
    Query(query): Query<TestQuery>,
) -> Result<Json<LatencyView>, Problem> {
    let (test_id, all) = figures(&service, query).await?;
    Ok(Json(LatencyView { test_id, latency: all.latency }))
}

/// How many operations ended.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ThroughputView {
    test_id: String,
    ok_per_second: f64,
    seconds: f64,
    /// Second by second.
    throughput: Vec<Second>,
}

/// How many operations of a test ended in each second.
#[utoipa::path(get, path = "/performance/throughput", operation_id = "get_throughput",
    params(TestQuery),
    responses((status = 200, body = ThroughputView), (status = 404, body = Problem)))]
pub(super) async fn throughput(
    State(service): State<Service>,
    Query(query): Query<TestQuery>,
) -> Result<Json<ThroughputView>, Problem> {
    let (test_id, all) = figures(&service, query).await?;
    let Performance { ok_per_second, seconds, throughput, .. } = all;
    Ok(Json(ThroughputView { test_id, ok_per_second, seconds, throughput }))
}
