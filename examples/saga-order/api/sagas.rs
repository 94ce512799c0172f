//! Sagas.

use axum::Json;
use axum::extract::{Path, Query, State};
use examples_common::Problem;
use potter_saga::{SagaFilter, SagaStatus};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::problem;
use super::view::{HistoryEntry, SagaSummary, SagaView};
use crate::service::{OrderSaga, Service};
use crate::steps::STEPS;
use potter_saga::Saga;

const LIMIT_MAX: u32 = 500;

/// Which sagas to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// pending, running, completed, compensating, compensated, failed or cancelled.
    status: Option<String>,
    /// 1 to 500, default 50.
    limit: Option<u32>,
    /// Leaves out so many.
    offset: Option<u32>,
}

/// Sagas, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SagaList {
    sagas: Vec<SagaSummary>,
    /// How many there are in all.
    total: u64,
    limit: u32,
    offset: u32,
}

/// Lists sagas, newest first.
#[utoipa::path(get, path = "/api/v1/sagas", operation_id = "list_sagas", params(ListQuery),
    responses((status = 200, body = SagaList), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(service): State<Service>,
    Query(query): Query<ListQuery>,
) -> Result<Json<SagaList>, Problem> {
    let refused = |field: &str, message: String| {
        Problem::bad_request("invalid_query", format!("{field}: {message}."))
            .with_field(field, message)
    };
    let (limit, offset) = (query.limit.unwrap_or(50), query.offset.unwrap_or(0));
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(refused("limit", format!("must be from 1 to {LIMIT_MAX}")));
    }
    let mut filter = SagaFilter::default();
    if let Some(word) = &query.status {
        let status: SagaStatus = word
            .parse()
            .map_err(|error: potter_saga::Error| refused("status", error.to_string()))?;
        filter.status = Some(status);
    }
    filter.name = Some(OrderSaga::NAME.to_owned());
    (filter.limit, filter.offset) = (limit, offset);
    let (records, total) =
        service.orchestrator.list(&filter).await.map_err(|error| problem(&error))?;
    let sagas = records.iter().map(SagaSummary::of).collect();
    Ok(Json(SagaList { sagas, total, limit, offset }))
}

/// Where a saga is, and what its steps have given so far.
#[utoipa::path(get, path = "/api/v1/sagas/{saga_id}", operation_id = "get_saga", params(("saga_id" = Uuid, Path)),
    responses((status = 200, body = SagaView), (status = 404, body = Problem)))]
pub(super) async fn get(
    State(service): State<Service>,
    Path(saga_id): Path<Uuid>,
) -> Result<Json<SagaView>, Problem> {
    // In this order: the log may know more than the record, and never less.
    let record = service.orchestrator.get(saga_id).await.map_err(|error| problem(&error))?;
    let log = service.tools.sagas.log(saga_id).await.map_err(|error| problem(&error))?;
    SagaView::of(&record, &log, &STEPS).map(Json).map_err(Problem::from)
}

/// The attempts of a saga's steps.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History {
    saga_id: Uuid,
    history: Vec<HistoryEntry>,
}

/// Every attempt at every step, in order.
#[utoipa::path(get, path = "/api/v1/sagas/{saga_id}/history", operation_id = "get_saga_history", params(("saga_id" = Uuid, Path)),
    responses((status = 200, body = History), (status = 404, body = Problem)))]
pub(super) async fn history(
    State(service): State<Service>,
    Path(saga_id): Path<Uuid>,
) -> Result<Json<History>, Problem> {
    let attempts = service.orchestrator.history(saga_id).await.map_err(|error| problem(&error))?;
    let history = attempts.into_iter().map(HistoryEntry::from).collect();
    Ok(Json(History { saga_id, history }))
}

/// What was set off.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Asked {
    saga_id: Uuid,
    status: &'static str,
    message: &'static str,
}

/// Cancels a saga: what was done is undone. Past `complete_order` there is no way back.
#[utoipa::path(post, path = "/api/v1/sagas/{saga_id}/cancel", operation_id = "cancel_saga", params(("saga_id" = Uuid, Path)),
    responses(
        (status = 200, body = Asked),
        (status = 404, body = Problem),
        (status = 409, description = "It is finished", body = Problem)))]
pub(super) async fn cancel(
    State(service): State<Service>,
    Path(saga_id): Path<Uuid>,
) -> Result<Json<Asked>, Problem> {
    service.orchestrator.cancel(saga_id).await.map_err(|error| problem(&error))?;
    Ok(Json(Asked { saga_id, status: "compensating", message: "Saga cancellation started" }))
}

/// Lets a saga that waits go on now: one that failed, or one between two attempts.
#[utoipa::path(post, path = "/api/v1/sagas/{saga_id}/resume", operation_id = "resume_saga", params(("saga_id" = Uuid, Path)),
    responses(
        (status = 200, body = Asked),
        (status = 404, body = Problem),
        (status = 409, description = "It is finished", body = Problem)))]
pub(super) async fn resume(
    State(service): State<Service>,
    Path(saga_id): Path<Uuid>,
) -> Result<Json<Asked>, Problem> {
    service.orchestrator.resume(saga_id).await.map_err(|error| problem(&error))?;
    Ok(Json(Asked { saga_id, status: "resumed", message: "Saga resumed" }))
}
