//! Devices and their operations.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use examples_common::{IdempotencyKey, JsonBody, Problem};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Ready, Token};
use crate::service::{
    ClockAnswer, DownloadRequest, Downloaded, RegisterRequest, Registered, StatusAnswer,
    SyncService, UploadAnswer, UploadRequest,
};

/// Registers a device. Again: the same answer.
#[utoipa::path(post, path = "/sync/register-device", request_body = RegisterRequest,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Registered), (status = 200, body = Registered),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn register(
    State(service): State<SyncService>,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(request): JsonBody<RegisterRequest>,
) -> Result<Ready, Problem> {
    let (new, answer) = service.register(&request, key.as_deref()).await?;
    Ok(Ready(if new { StatusCode::CREATED } else { StatusCode::OK }, answer))
}

/// Takes in what a device did.
#[utoipa::path(post, path = "/sync/upload", request_body = UploadRequest,
    params(("Idempotency-Key" = Option<String>, Header), ("Authorization" = Option<String>, Header)),
    responses((status = 200, body = UploadAnswer), (status = 401, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn upload(
    State(service): State<SyncService>,
    Token(token): Token,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(request): JsonBody<UploadRequest>,
) -> Result<Ready, Problem> {
    let answer = service.upload(&request, token.as_deref(), key.as_deref()).await?;
    Ok(Ready(StatusCode::OK, answer))
}

/// Changes that a device lacks.
#[utoipa::path(get, path = "/sync/download",
    params(("device_id" = String, Query), ("cursor" = Option<String>, Query),
        ("limit" = Option<u64>, Query, description = "1 to 500 (100)"),
        ("incarnation" = Option<u64>, Query), ("include_own" = Option<bool>, Query),
        ("wait_ms" = Option<u64>, Query, description = "wait so long for something new"),
        ("Authorization" = Option<String>, Header)),
    responses((status = 200, body = Downloaded), (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 410, body = Problem)))]
pub(super) async fn download(
    State(service): State<SyncService>,
    Token(token): Token,
    Query(request): Query<DownloadRequest>,
) -> Result<Ready, Problem> {
    let answer = service.download(&request, token.as_deref()).await?;
    Ok(Ready(StatusCode::OK, answer))
}

/// How a device and its user's others stand.
#[utoipa::path(get, path = "/sync/status/{device_id}",
    params(("device_id" = String, Path), ("Authorization" = Option<String>, Header)),
    responses((status = 200, body = StatusAnswer), (status = 404, body = Problem)))]
pub(super) async fn status(
    State(service): State<SyncService>,
    Token(token): Token,
    Path(device_id): Path<String>,
) -> Result<Json<StatusAnswer>, Problem> {
    Ok(Json(service.status(&device_id, token.as_deref()).await?))
}

/// A device's vector clock: one event for each upload that changed something, those counted by
/// hand, and what it observed.
#[utoipa::path(get, path = "/vector-clock/{device_id}",
    params(("device_id" = String, Path), ("Authorization" = Option<String>, Header)),
    responses((status = 200, body = ClockAnswer), (status = 404, body = Problem)))]
pub(super) async fn vector_clock(
    State(service): State<SyncService>,
    Token(token): Token,
    Path(device_id): Path<String>,
) -> Result<Json<ClockAnswer>, Problem> {
    Ok(Json(service.vector_clock(&device_id, token.as_deref()).await?))
}

/// What a device observed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IncrementRequest {
    /// The vector clock of a message from another device: taken in before counting.
    #[serde(default)]
    observed: BTreeMap<String, u64>,
}

/// Counts one more event of a device. The body may be empty.
#[utoipa::path(post, path = "/vector-clock/{device_id}/increment",
    params(("device_id" = String, Path), ("Idempotency-Key" = Option<String>, Header),
        ("Authorization" = Option<String>, Header)),
    request_body = Option<IncrementRequest>,
    responses((status = 200, body = ClockAnswer), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn increment(
    State(service): State<SyncService>,
    Token(token): Token,
    IdempotencyKey(key): IdempotencyKey,
    Path(device_id): Path<String>,
    body: super::MaybeJson<IncrementRequest>,
) -> Result<Ready, Problem> {
    let observed = body.0.observed;
    let token = token.as_deref();
    let answer = service.increment_clock(&device_id, token, &observed, key.as_deref()).await?;
    Ok(Ready(StatusCode::OK, answer))
}
