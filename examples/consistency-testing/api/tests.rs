//! Tests: created, run, watched, stopped, forgotten.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use examples_common::{IdempotencyKey, JsonBody, OnceAnswer, Problem, once};
use potter_core::new_id;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::view::{ProgressView, TestView};
use super::{Service, no_such_test, page, stored};
use crate::spec::TestRequest;
use crate::storage::{self, Filter, LogLine, Status};

/// How many tests may wait at a time.
const WAITING_MAX: i64 = 100;

/// A test that was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    id: String,
    /// The same as `id`.
    test_id: String,
    name: String,
    status: Status,
    seed: u64,
    message: &'static str,
}

/// Creates a test and runs it as soon as the tests before it have ended.
#[utoipa::path(post, path = "/tests", operation_id = "create_test", request_body = TestRequest,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = Accepted), (status = 422, body = Problem),
        (status = 429, description = "Too many tests wait", body = Problem)))]
pub(super) async fn create(
    State(service): State<Service>,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<TestRequest>,
) -> Result<OnceAnswer, Problem> {
    let new = new_id();
    // The random part of the id: something new for each test.
    let seed = u64::from(new.as_fields().0) ^ (u64::from_be_bytes(*new.as_fields().3) >> 16);
    let spec = request.clone().check(seed)?;
    let needs = crate::faults::find(&spec.nemesis).map_err(|text| refused(&text))?.needs;
    if needs != crate::faults::Needs::Network && !service.runs.environments.is_private() {
        let detail = format!(
            "The servers of PRIMARY_DATABASE_URL are not this program's: {} can't be done to them. \
             Unset the variable to test a private server.",
            spec.nemesis
        );
        return Err(Problem::unprocessable("nemesis_unavailable", detail));
    }
    let answer = once(service.database(), "consistency-testing", &key, &request, move |tx| {
        let (spec, id) = (spec.clone(), new.to_string());
        Box::pin(async move {
            let (status, message) = if spec.start {
                (Status::Queued, "It runs when the tests before it have ended.")
            } else {
                (Status::Created, "It waits for POST /tests/{id}/start.")
            };
            if storage::waiting(tx).await? >= WAITING_MAX {
                let detail = format!(
                    "{WAITING_MAX} tests wait already: ask again when one has ended, or delete some."
                );
                return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", detail));
            }
            storage::insert(tx, &id, &spec, status).await?;
            let test_id = id.clone();
            let (name, seed) = (spec.name, spec.seed);
            let accepted = Accepted { id, test_id, name, status, seed, message };
            OnceAnswer::new(StatusCode::ACCEPTED, &accepted)
        })
    })
    .await?;
    service.runs.wake();
    Ok(answer)
}

fn refused(text: &str) -> Problem {
    Problem::unprocessable("invalid_test", format!("{text}."))
}

/// Which tests to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// created, queued, starting, running, checking, completed, cancelled, failed or interrupted.
    pub(super) status: Option<String>,
    /// valid, invalid or unknown.
    pub(super) verdict: Option<String>,
    pub(super) workload: Option<String>,
    /// 1 to 500, default 50.
    pub(super) limit: Option<u32>,
    pub(super) offset: Option<u32>,
}

impl ListQuery {
    pub(super) fn filter(self, over: bool) -> Result<Filter, Problem> {
        let (limit, offset) = page(self.limit, self.offset)?;
        let status = self.status.map(|word| {
            Status::parse(&word.to_ascii_lowercase()).ok_or_else(|| {
                let names = Status::ALL.map(Status::name).join(", ");
                let detail = format!("status: there is no \"{word}\"; there are {names}.");
                Problem::bad_request("invalid_query", detail)
            })
        });
        let (status, verdict, workload) = (status.transpose()?, self.verdict, self.workload);
        Ok(Filter { status, verdict, workload, over, limit, offset })
    }
}

/// Tests, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TestList {
    tests: Vec<TestView>,
    total: i64,
    limit: u32,
    offset: u32,
}

/// Lists tests, newest first.
#[utoipa::path(get, path = "/tests", operation_id = "list_tests", params(ListQuery),
    responses((status = 200, body = TestList), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(service): State<Service>,
    Query(query): Query<ListQuery>,
) -> Result<Json<TestList>, Problem> {
    let filter = query.filter(false)?;
    let (tests, total) = storage::list(service.database(), &filter).await?;
    let tests = tests.iter().map(TestView::of).collect();
    Ok(Json(TestList { tests, total, limit: filter.limit, offset: filter.offset }))
}

/// A test.
#[utoipa::path(get, path = "/tests/{id}", operation_id = "get_test", params(("id" = String, Path)),
    responses((status = 200, body = TestView), (status = 404, body = Problem)))]
pub(super) async fn get(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<TestView>, Problem> {
    Ok(Json(TestView::of(&stored(&service, &id).await?)))
}

/// Where a test is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatusView {
    test_id: String,
    status: Status,
    verdict: Option<String>,
    error: Option<String>,
}

/// Where a test is.
#[utoipa::path(get, path = "/tests/{id}/status", operation_id = "get_test_status",
    params(("id" = String, Path)),
    responses((status = 200, body = StatusView), (status = 404, body = Problem)))]
pub(super) async fn status(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<StatusView>, Problem> {
    let stored = stored(&service, &id).await?;
    let (verdict, error) = (stored.verdict, stored.error);
    Ok(Json(StatusView { test_id: id, status: stored.status, verdict, error }))
}

/// How far a test is: operations until now, faults in effect.
#[utoipa::path(get, path = "/tests/{id}/progress", operation_id = "get_test_progress",
    params(("id" = String, Path)),
    responses((status = 200, body = ProgressView), (status = 404, body = Problem)))]
pub(super) async fn progress(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<ProgressView>, Problem> {
    let live = service.runs.progress(&id);
    Ok(Json(ProgressView::of(&stored(&service, &id).await?, live.as_ref())))
}

/// The part of a list that is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// 1 to 500, default 50.
    pub(super) limit: Option<u32>,
    pub(super) offset: Option<u32>,
}

/// Lines of a test's log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Log {
    test_id: String,
    logs: Vec<LogLine>,
    total: i64,
}

/// What a test did: phases, faults with what was seen of them.
#[utoipa::path(get, path = "/tests/{id}/logs", operation_id = "get_test_logs",
    params(("id" = String, Path), PageQuery),
    responses((status = 200, body = Log), (status = 404, body = Problem)))]
pub(super) async fn logs(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Log>, Problem> {
    let (limit, offset) = page(query.limit, query.offset)?;
    stored(&service, &id).await?;
    let (logs, total) = storage::log_of(service.database(), &id, limit, offset).await?;
    Ok(Json(Log { test_id: id, logs, total }))
}

/// What was set off.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Asked {
    test_id: String,
    status: Status,
}

/// Runs a test that was created with `"start": false`.
#[utoipa::path(post, path = "/tests/{id}/start", operation_id = "start_test",
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Asked), (status = 404, body = Problem),
        (status = 409, description = "It was started before", body = Problem)))]
pub(super) async fn start(
    State(service): State<Service>,
    Path(id): Path<String>,
    key: IdempotencyKey,
) -> Result<axum::response::Response, Problem> {
    let asked = Box::pin(async {
        let from = [Status::Created];
        if !storage::advance(service.database(), &id, &from, Status::Queued).await? {
            let status = stored(&service, &id).await?.status.name();
            let detail = format!("Test {id} is {status}; a test is started once: create another.");
            return Err(Problem::conflict("already_started", detail));
        }
        service.runs.wake();
        Ok(Asked { test_id: id.clone(), status: Status::Queued })
    });
    service.remembered.once("start", &key, &id, asked).await
}

/// Stops a test: one that runs is healed, and what it saw until now is checked.
#[utoipa::path(post, path = "/tests/{id}/stop", operation_id = "stop_test",
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Asked), (status = 404, body = Problem),
        (status = 409, description = "It has ended", body = Problem)))]
pub(super) async fn stop(
    State(service): State<Service>,
    Path(id): Path<String>,
    key: IdempotencyKey,
) -> Result<axum::response::Response, Problem> {
    let asked = Box::pin(async {
        let waits = [Status::Created, Status::Queued];
        if storage::advance(service.database(), &id, &waits, Status::Cancelled).await? {
            return Ok(Asked { test_id: id.clone(), status: Status::Cancelled });
        }
        let status = stored(&service, &id).await?.status;
        if !status.is_live() {
            let detail = format!("Test {id} is {} already.", status.name());
            return Err(Problem::conflict("already_ended", detail));
        }
        service.runs.cancel(&id);
        Ok(Asked { test_id: id.clone(), status })
    });
    service.remembered.once("stop", &key, &id, asked).await
}

/// Forgets a test with its history and its reports.
#[utoipa::path(delete, path = "/tests/{id}", operation_id = "delete_test",
    params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem),
        (status = 409, description = "It runs: stop it first", body = Problem)))]
pub(super) async fn delete(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    if !storage::delete(service.database(), &id).await? {
        let Some(stored) = storage::get(service.database(), &id).await? else {
            return Err(no_such_test(&id));
        };
        let detail = format!("Test {id} is {}: stop it first.", stored.status.name());
        return Err(Problem::conflict("test_runs", detail));
    }
    // The id was one of the database, so it is no path to somewhere else.
    match tokio::fs::remove_dir_all(service.runs.directory(&id)).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, id, "files of a deleted test stay");
        }
        _ => {}
    }
    Ok(StatusCode::NO_CONTENT)
}
