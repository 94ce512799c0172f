//! States that are kept, so that a load reads only what came after.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use examples_common::{IdempotencyKey, OnceAnswer, Problem};
use potter_eventsourcing::Snapshot;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Params, Path, limit, no_such_aggregate, once_beside, position};
use crate::command::AggregateId;
use crate::service::{Service, problem};

/// A snapshot, without its state.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct SnapshotView {
    id: String,
    #[schema(example = "account-123")]
    aggregate_id: String,
    version: u64,
    schema_version: u32,
    /// How large its state is.
    state_bytes: usize,
    taken_at: DateTime<Utc>,
}

impl From<Snapshot> for SnapshotView {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            id: snapshot.id.to_string(),
            aggregate_id: snapshot.stream_id.to_string(),
            version: snapshot.version,
            schema_version: snapshot.schema_version,
            state_bytes: snapshot.state.as_str().len(),
            taken_at: snapshot.taken_at,
        }
    }
}

/// Which snapshots.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    aggregate_id: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// A page of them.
pub(super) struct SnapshotPage {
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) next_cursor: Option<String>,
}

/// A page of the snapshots of one aggregate, or all.
pub(super) async fn page(service: &Service, params: &ListParams) -> Result<SnapshotPage, Problem> {
    let limit = limit(params.limit)?;
    let offset = position("cursor", params.cursor.as_deref())?;
    let id = params.aggregate_id.as_deref().map(AggregateId::parse).transpose()?;
    let stream = id.as_ref().map(|id| &id.stream);
    let snapshots = service.snapshots.store().list(stream, offset, limit).await;
    let snapshots = snapshots.map_err(|error| problem(&error))?;
    let is_full = snapshots.len() == limit as usize;
    let next_cursor = is_full.then(|| (offset + u64::from(limit)).to_string());
    Ok(SnapshotPage { snapshots, next_cursor })
}

/// The snapshots, by aggregate, the newest first.
#[utoipa::path(get, path = "/api/v1/snapshots", tag = "snapshots",
    params(("aggregate_id" = Option<String>, Query), ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Value), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(service): State<Service>,
    Params(params): Params<ListParams>,
) -> Result<Json<Value>, Problem> {
    let page = page(&service, &params).await?;
    let snapshots: Vec<_> = page.snapshots.into_iter().map(SnapshotView::from).collect();
    Ok(Json(json!({ "snapshots": snapshots, "next_cursor": page.next_cursor })))
}

/// Keeps the state of an aggregate as it is now. Again at the same version changes nothing.
#[utoipa::path(post, path = "/api/v1/snapshots/{id}", tag = "snapshots",
    params(("id" = String, Path, description = "the aggregate"),
        ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = SnapshotView), (status = 404, body = Problem)))]
pub(super) async fn create(
    State(service): State<Service>,
    Path(aggregate_id): Path<String>,
    key: IdempotencyKey,
) -> Result<OnceAnswer, Problem> {
    let id = AggregateId::parse(&aggregate_id)?;
    once_beside(&service, &key, &("snapshot", &aggregate_id), take(&service, &id)).await
}

async fn take(service: &Service, id: &AggregateId) -> Result<OnceAnswer, Problem> {
    let taken = service.of(id.kind).take_snapshot(id.local()).await;
    if taken.map_err(|error| problem(&error))?.is_none() {
        return Err(no_such_aggregate(id.stream.as_str()));
    }
    let newest = service.snapshots.store().list(Some(&id.stream), 0, 1).await;
    let newest = newest.map_err(|error| problem(&error))?.into_iter().next();
    let newest = newest.ok_or_else(|| Problem::internal(&"the snapshot is not there"))?;
    OnceAnswer::new(StatusCode::CREATED, &SnapshotView::from(newest))
}

/// Deletes a snapshot. The aggregate is loaded from an older one, or from its events.
#[utoipa::path(delete, path = "/api/v1/snapshots/{id}", tag = "snapshots",
    params(("id" = String, Path, description = "the snapshot")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn delete(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let unknown =
        || Problem::not_found("snapshot_not_found", format!("There is no snapshot {id}."));
    let snapshot: Uuid = id.parse().map_err(|_| unknown())?;
    let deleted = service.snapshots.store().delete(snapshot).await;
    if deleted.map_err(|error| problem(&error))? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown())
    }
}
