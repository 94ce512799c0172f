//! What came out of tests.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use examples_common::{IdempotencyKey, Problem};
use potter_jepsen::{Budget, EventKind, Format, History, Process, Spec, report};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::body::OptionalBody;
use super::tests::ListQuery;
use super::view::{ResultView, analysis};
use super::{Service, page, problem, stored};
use crate::storage::{self, Stored};
use crate::{duration, workloads};

const CHECK_BYTES: usize = 1 << 30;
const CHECK_TIME_MAX: Duration = Duration::from_secs(300);

/// Results, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResultList {
    results: Vec<ResultView>,
    total: i64,
    limit: u32,
    offset: u32,
}

/// Lists the tests that have ended with what came out, newest first.
#[utoipa::path(get, path = "/results", operation_id = "list_results", params(ListQuery),
    responses((status = 200, body = ResultList), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(service): State<Service>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ResultList>, Problem> {
    let filter = query.filter(true)?;
    let (tests, total) = storage::list(service.database(), &filter).await?;
    let results = tests.iter().map(ResultView::of).collect();
    Ok(Json(ResultList { results, total, limit: filter.limit, offset: filter.offset }))
}

/// What came out of a test; before its end the verdict is `null`.
#[utoipa::path(get, path = "/results/{id}", operation_id = "get_result",
    params(("id" = String, Path)),
    responses((status = 200, body = ResultView), (status = 404, body = Problem)))]
pub(super) async fn get(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<ResultView>, Problem> {
    Ok(Json(ResultView::of(&stored(&service, &id).await?)))
}

/// Another look at a test's history.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AnalyzeRequest {
    /// Another model than the workload's, with parameters: "list-append level=serializable".
    #[serde(default)]
    #[schema(example = "sequential")]
    model: Option<String>,
    /// How long it may take: "60s" if left out, 5 minutes at most.
    #[serde(default, deserialize_with = "duration::optional")]
    #[schema(value_type = Option<String>)]
    time_limit: Option<Duration>,
}

/// Checks a test's history again, against its own model or another.
#[utoipa::path(post, path = "/results/{id}/analyze", operation_id = "analyze_result",
    request_body = AnalyzeRequest,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Object), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn analyze(
    State(service): State<Service>,
    Path(id): Path<String>,
    key: IdempotencyKey,
    OptionalBody(request): OptionalBody<AnalyzeRequest>,
) -> Result<Response, Problem> {
    let work = Box::pin(async {
        let stored = stored(&service, &id).await?;
        let history = history(&service, &stored).await?;
        let time = request.time_limit.unwrap_or(Duration::from_secs(60)).min(CHECK_TIME_MAX);
        let model = request.model.clone();
        blocking(move || {
            let budget = Budget::new(time, CHECK_BYTES);
            let analysis = match model {
                Some(model) => {
                    let checker = Spec::parse(&model).and_then(|spec| spec.checker(Format::Json));
                    checker.and_then(|checker| checker.check(&history, &budget))
                }
                None => {
                    let checker = workloads::checker(&stored.spec);
                    let checker = checker.map_err(|error| Problem::internal(&error))?;
                    checker.check(&history, &budget)
                }
            };
            let analysis = analysis.map_err(|error| problem(&error))?;
            let text = report::json(&history, &analysis);
            serde_json::from_str::<Value>(&text).map_err(|error| Problem::internal(&error))
        })
        .await
    });
    service.remembered.once("analyze", &key, &(&id, &request), work).await
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::internal(&error))?
}

/// A test's history, from its file.
pub(super) async fn history(service: &Service, stored: &Stored) -> Result<History, Problem> {
    let path = service.runs.directory(&stored.id).join("history.jsonl");
    let (id, status) = (stored.id.clone(), stored.status);
    blocking(move || {
        if !path.is_file() {
            let detail = format!("Test {id} is {} and has no history.", status.name());
            return Err(Problem::conflict("no_history", detail));
        }
        potter_jepsen::runner::read_history(&path).map_err(|error| Problem::internal(&error))
    })
    .await
}

/// What was found wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Violations {
    test_id: String,
    verdict: Option<String>,
    /// One example of each kind, with operations and, for cycles, the edges.
    #[schema(value_type = Vec<Object>)]
    violations: Value,
    total: usize,
}

/// What was found wrong, each kind with an example.
#[utoipa::path(get, path = "/results/{id}/violations", operation_id = "get_violations",
    params(("id" = String, Path)),
    responses((status = 200, body = Violations), (status = 404, body = Problem)))]
pub(super) async fn violations(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<Violations>, Problem> {
    let stored = stored(&service, &id).await?;
    let found = analysis(&stored)["anomalies"].take();
    let violations = if found.is_array() { found } else { Value::Array(Vec::new()) };
    let total = violations.as_array().map_or(0, Vec::len);
    Ok(Json(Violations { test_id: id, verdict: stored.verdict, violations, total }))
}

/// The part of a timeline that is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct TimelineQuery {
    /// 1 to 500, default 50.
    limit: Option<u32>,
    offset: Option<u32>,
    /// Only of this process.
    process: Option<i64>,
}

/// One operation on the timeline.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Span {
    id: usize,
    process: i64,
    f: String,
    /// In words.
    text: String,
    /// ok, fail or info.
    outcome: &'static str,
    begin_ms: Option<f64>,
    end_ms: Option<f64>,
}

/// A time in which a fault was in effect, or a heal.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FaultMark {
    f: String,
    at_ms: Option<f64>,
    verified: bool,
    detail: String,
}

/// Operations and faults in time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Timeline {
    test_id: String,
    operations: Vec<Span>,
    faults: Vec<FaultMark>,
    total: usize,
}

#[allow(clippy::cast_precision_loss)] // Times for people.
fn millis(nanos: Option<i64>) -> Option<f64> {
    nanos.map(|nanos| (nanos as f64 / 1e4).round() / 100.0)
}

/// A test's operations and faults in time.
#[utoipa::path(get, path = "/results/{id}/timeline", operation_id = "get_timeline",
    params(("id" = String, Path), TimelineQuery),
    responses((status = 200, body = Timeline), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn timeline(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(query): Query<TimelineQuery>,
) -> Result<Json<Timeline>, Problem> {
    let (limit, offset) = page(query.limit, query.offset)?;
    let history = history(&service, &stored(&service, &id).await?).await?;
    let events = history.events();
    let all = history.operations().iter().enumerate();
    let all = all.filter(|(_, op)| query.process.is_none_or(|process| op.process.0 == process));
    let total = all.clone().count();
    let span = |(id, op): (usize, &potter_jepsen::Operation)| Span {
        id,
        process: op.process.0,
        f: history.f(id).to_owned(),
        text: history.describe(id),
        outcome: match op.outcome {
            potter_jepsen::Outcome::Ok => "ok",
            potter_jepsen::Outcome::Fail => "fail",
            potter_jepsen::Outcome::Info => "info",
        },
        begin_ms: millis(events[op.invoke as usize].time),
        end_ms: millis(op.complete.and_then(|at| events[at as usize].time)),
    };
    let operations = all.skip(offset as usize).take(limit as usize).map(span).collect();
    let faults = events
        .iter()
        .filter(|event| event.process == Process::NEMESIS && event.kind != EventKind::Invoke);
    let mark = |event: &potter_jepsen::Event| FaultMark {
        f: event.f.to_string(),
        at_ms: millis(event.time),
        verified: event.kind == EventKind::Ok,
        detail: match &event.error {
            Some(error) => error.to_string(),
            None => event.value.get("detail").and_then(|d| d.as_name()).unwrap_or_default().into(),
        },
    };
    Ok(Json(Timeline { test_id: id, operations, faults: faults.map(mark).collect(), total }))
}
