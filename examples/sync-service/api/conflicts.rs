//! Conflicts.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use examples_common::{IdempotencyKey, JsonBody, Problem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{MaybeJson, Ready, Token};
use crate::conflicts::{AutoResolveRequest, ResolveRequest, Resolved};
use crate::document::Sibling;
use crate::service::SyncService;
use crate::store::{Conflict, ConflictFilter};

/// Where different values stand side by side.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConflictView {
    id: Uuid,
    user_id: String,
    entity_type: String,
    entity_id: String,
    crdt_type: &'static str,
    /// Which entry of a map.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The values, the latest first. Where the last writer wins, the first is shown and the others
    /// are what the register dropped.
    values: Vec<Sibling>,
    /// `open`, `resolved` or `superseded` (a later write had seen them all).
    status: &'static str,
    detected_at: DateTime<Utc>,
    resolved_at: Option<DateTime<Utc>>,
    resolution: Option<String>,
}

impl From<Conflict> for ConflictView {
    fn from(one: Conflict) -> Self {
        Self {
            id: one.id,
            user_id: one.user_id,
            entity_type: one.key.entity_type,
            entity_id: one.key.entity_id,
            crdt_type: one.kind.name(),
            key: one.entry,
            values: one.siblings,
            status: one.status,
            detected_at: one.detected_at,
            resolved_at: one.resolved_at,
            resolution: one.resolution,
        }
    }
}

/// Some conflicts, and how many there are.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConflictList {
    conflicts: Vec<ConflictView>,
    total: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    device_id: Option<String>,
    status: Option<String>,
    limit: Option<u64>,
    offset: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Asking {
    device_id: Option<String>,
}

/// Conflicts, the latest first.
#[utoipa::path(get, path = "/conflicts",
    params(("device_id" = Option<String>, Query, description = "as which device: needed with tokens"),
        ("status" = Option<String>, Query, description = "open, resolved or superseded"),
        ("limit" = Option<u64>, Query, description = "1 to 500 (100)"),
        ("offset" = Option<u64>, Query), ("Authorization" = Option<String>, Header)),
    responses((status = 200, body = ConflictList), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(service): State<SyncService>,
    Token(token): Token,
    Query(listing): Query<Listing>,
) -> Result<Json<ConflictList>, Problem> {
    let limit = listing.limit.unwrap_or(100);
    if !(1..=500).contains(&limit) {
        let detail = "limit is from 1 to 500.";
        return Err(Problem::unprocessable("invalid_limit", detail).with_field("limit", detail));
    }
    if let Some(status) = &listing.status
        && !["open", "resolved", "superseded"].contains(&status.as_str())
    {
        let detail = "status is open, resolved or superseded.";
        return Err(Problem::unprocessable("invalid_status", detail).with_field("status", detail));
    }
    let user_id = service.user_of(listing.device_id.as_deref(), token.as_deref()).await?;
    // As much as every store can count.
    let offset = listing.offset.unwrap_or(0).min(u64::from(u32::MAX));
    let filter = ConflictFilter { user_id, status: listing.status, limit, offset };
    let (found, total) = service.store().conflicts(&filter).await?;
    let conflicts = found.into_iter().map(ConflictView::from).collect();
    Ok(Json(ConflictList { conflicts, total }))
}

/// One of them.
#[utoipa::path(get, path = "/conflicts/{id}",
    params(("id" = Uuid, Path), ("device_id" = Option<String>, Query),
        ("Authorization" = Option<String>, Header)),
    responses((status = 200, body = ConflictView), (status = 404, body = Problem)))]
pub(super) async fn get(
    State(service): State<SyncService>,
    Token(token): Token,
    Path(id): Path<String>,
    Query(asking): Query<Asking>,
) -> Result<Json<ConflictView>, Problem> {
    let user = service.user_of(asking.device_id.as_deref(), token.as_deref()).await?;
    let found = service.visible_conflict(parsed(&id)?, user.as_deref()).await?;
    Ok(Json(found.into()))
}

/// Ends a conflict with a value.
#[utoipa::path(post, path = "/conflicts/{id}/resolve", request_body = ResolveRequest,
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header),
        ("Authorization" = Option<String>, Header)),
    responses((status = 200, body = Resolved), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn resolve(
    State(service): State<SyncService>,
    Token(token): Token,
    IdempotencyKey(key): IdempotencyKey,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<ResolveRequest>,
) -> Result<Ready, Problem> {
    let id = parsed(&id)?;
    let answer = service.resolve(id, &request, token.as_deref(), key.as_deref()).await?;
    Ok(Ready(StatusCode::OK, answer))
}

/// Ends a conflict by a rule. The body may be empty: the last writer wins.
#[utoipa::path(post, path = "/conflicts/{id}/auto-resolve",
    request_body = Option<AutoResolveRequest>,
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header),
        ("Authorization" = Option<String>, Header)),
    responses((status = 200, body = Resolved), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn auto_resolve(
    State(service): State<SyncService>,
    Token(token): Token,
    IdempotencyKey(key): IdempotencyKey,
    Path(id): Path<String>,
    MaybeJson(request): MaybeJson<AutoResolveRequest>,
) -> Result<Ready, Problem> {
    let id = parsed(&id)?;
    let answer = service.auto_resolve(id, &request, token.as_deref(), key.as_deref()).await?;
    Ok(Ready(StatusCode::OK, answer))
}

fn parsed(id: &str) -> Result<Uuid, Problem> {
    id.parse().map_err(|_| {
        Problem::not_found("conflict_not_found", "There is no conflict of that id: it is no UUID.")
    })
}
