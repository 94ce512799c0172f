//! The read models, for those who run them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use examples_common::{IdempotencyKey, OnceAnswer, Problem};
use potter_eventsourcing::{ErrorKind, ProjectionState, Rebuildable};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Path, once_beside};
use crate::rebuilds::RebuildView;
use crate::service::{Service, problem};

/// How a read model is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct ProjectionView {
    #[schema(example = "accounts")]
    name: String,
    /// `running`, `rebuilding`, `stopped`, `failed`, or `starting` before its first run.
    #[schema(example = "running")]
    state: &'static str,
    /// The version of the code that its tables belong to.
    version: u32,
    /// Everything up to here is in it.
    position: u64,
    /// The highest position there is.
    head: u64,
    /// How many events it does not have yet.
    lag_events: u64,
    /// For how long the oldest of them waits.
    lag_seconds: f64,
    /// How many events went into it.
    events_processed: u64,
    /// From 0 to 100.
    progress: f64,
    /// How many events were set aside, because it failed on them.
    parked: u64,
    /// Why it stands still, if it does.
    errors: Vec<String>,
    /// How many workers write it.
    workers: usize,
    /// Its last rebuild by this process.
    rebuild: Option<RebuildView>,
}

fn find(service: &Service, name: &str) -> Result<Arc<dyn Rebuildable>, Problem> {
    let found = service.models.iter().find(|model| model.name() == name);
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = service.models.iter().map(|model| model.name()).collect();
        let detail = format!("There is no projection {name}. There are: {}.", names.join(", "));
        Problem::not_found("projection_not_found", detail)
    })
}

async fn view(service: &Service, model: &dyn Rebuildable) -> Result<ProjectionView, Problem> {
    let (name, rebuild) = (model.name(), service.rebuilds.last(model.name()));
    let status = match service.admin.status(name).await {
        Ok(status) => status,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let head = service.events.head_position().await.map_err(|error| problem(&error))?;
            return Ok(ProjectionView {
                name: name.to_owned(),
                state: "starting",
                version: model.version(),
                position: 0,
                head,
                lag_events: 0,
                lag_seconds: 0.0,
                events_processed: 0,
                progress: 0.0,
                parked: 0,
                errors: Vec::new(),
                workers: 0,
                rebuild,
            });
        }
        Err(error) => return Err(problem(&error)),
    };
    let errors: Vec<_> = status.failed().filter_map(|segment| segment.failure.clone()).collect();
    let rebuilding = rebuild.as_ref().is_some_and(|one| one.state == "running")
        || status.state == ProjectionState::Switching;
    let state = match status.state {
        _ if !errors.is_empty() => "failed",
        _ if rebuilding => "rebuilding",
        ProjectionState::Paused => "stopped",
        _ => "running",
    };
    let total = status.handled + status.lag_events;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let progress = if total == 0 { 100.0 } else { status.handled as f64 * 100.0 / total as f64 };
    Ok(ProjectionView {
        state,
        version: status.version,
        position: status.position,
        head: status.head,
        lag_events: status.lag_events,
        lag_seconds: status.lag.as_secs_f64(),
        events_processed: status.handled,
        progress,
        parked: status.parked,
        errors,
        workers: status.workers(),
        name: status.name,
        rebuild,
    })
}

/// The read models, and the mirror in ClickHouse if there is one.
#[utoipa::path(get, path = "/api/v1/projections", tag = "projections", responses((status = 200, body = Value)))]
pub(super) async fn list(State(service): State<Service>) -> Result<Json<Value>, Problem> {
    let mut projections = Vec::new();
    for model in service.models.iter() {
        projections.push(view(&service, &**model).await?);
    }
    let total = projections.len();
    let mirror = service.warehouse.mirror().await.map_err(|error| problem(&error))?;
    Ok(Json(json!({ "projections": projections, "total": total, "mirror": mirror })))
}

/// One read model.
#[utoipa::path(get, path = "/api/v1/projections/{name}", tag = "projections", params(("name" = String, Path)),
    responses((status = 200, body = ProjectionView), (status = 404, body = Problem)))]
pub(super) async fn get(
    State(service): State<Service>,
    Path(name): Path<String>,
) -> Result<Json<ProjectionView>, Problem> {
    view(&service, &*find(&service, &name)?).await.map(Json)
}

/// How far a read model is, and what its segments do.
#[utoipa::path(get, path = "/api/v1/projections/{name}/status", tag = "projections", params(("name" = String, Path)),
    responses((status = 200, body = Value), (status = 404, body = Problem)))]
pub(super) async fn status(
    State(service): State<Service>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let view = view(&service, &*find(&service, &name)?).await?;
    let segments = match service.admin.status(&name).await {
        Ok(status) => status.segments,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(problem(&error)),
    };
    Ok(Json(json!({ "status": view, "segments": segments })))
}

/// Builds a read model anew beside itself; it takes over when it has caught up. Queries are
/// answered all the time.
#[utoipa::path(post, path = "/api/v1/projections/{name}/rebuild", tag = "projections",
    params(("name" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = RebuildView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn rebuild(
    State(service): State<Service>,
    Path(name): Path<String>,
    key: IdempotencyKey,
) -> Result<OnceAnswer, Problem> {
    let model = find(&service, &name)?;
    once_beside(&service, &key, &("rebuild", &name), async {
        OnceAnswer::new(StatusCode::ACCEPTED, &service.rebuilds.start(model)?)
    })
    .await
}

/// Empties a read model and begins again at the first event. Until it has caught up, queries see a
/// part of it.
#[utoipa::path(post, path = "/api/v1/projections/{name}/reset", tag = "projections",
    params(("name" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = ProjectionView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn reset(
    State(service): State<Service>,
    Path(name): Path<String>,
    key: IdempotencyKey,
) -> Result<OnceAnswer, Problem> {
    let model = find(&service, &name)?;
    once_beside(&service, &key, &("reset", &name), begin_again(&service, &*model)).await
}

async fn begin_again(service: &Service, model: &dyn Rebuildable) -> Result<OnceAnswer, Problem> {
    let name = model.name();
    if service.rebuilds.last(name).is_some_and(|one| one.state == "running") {
        let detail = format!("The read model {name} is being rebuilt: wait for its end.");
        return Err(Problem::conflict("rebuild_under_way", detail));
    }
    service.admin.reset(model).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let detail = format!("The read model {name} did not run yet: try again in a moment.");
            Problem::conflict("projection_starting", detail)
        }
        _ => problem(&error),
    })?;
    OnceAnswer::new(StatusCode::ACCEPTED, &view(service, model).await?)
}
