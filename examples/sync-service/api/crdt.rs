//! States.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use examples_common::{JsonBody, Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use super::{Ready, Token};
use crate::document::{Document, Kind};
use crate::merge;
use crate::service::{SyncService, check_id, kind_of};
use crate::store::{Entity, EntityKey, User};

/// Two states of one CRDT.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MergeRequest {
    /// Their type.
    #[schema(example = "LWWRegister")]
    crdt_type: String,
    /// One of them.
    #[schema(value_type = Object)]
    local_state: Value,
    /// The other.
    #[schema(value_type = Object)]
    remote_state: Value,
}

/// The merge of two states; nothing is stored. Swapped arguments give the same answer.
#[utoipa::path(post, path = "/crdt/merge", request_body = MergeRequest,
    responses((status = 200, description = "The state, and for an LWWRegister value, timestamp and node_id"),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn merge(
    JsonBody(request): JsonBody<MergeRequest>,
) -> Result<Json<Value>, Problem> {
    let kind = kind_of(&request.crdt_type, "crdt_type")?;
    Ok(Json(merge::merge(kind, &request.local_state, &request.remote_state)?))
}

/// An entity.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StateView {
    entity_type: String,
    entity_id: String,
    crdt_type: &'static str,
    /// What a user sees.
    #[schema(value_type = Object)]
    value: Value,
    /// When the value of a last-writer-wins register was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    /// And by which device.
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<String>,
    /// Different values stand side by side.
    conflict: bool,
    /// The state, as `potter-crdt` writes it. Its `context` is what an operation may send as its own.
    #[schema(value_type = Object)]
    state: Value,
    /// The number of its last change.
    seq: u64,
    updated_at: DateTime<Utc>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Asking {
    device_id: Option<String>,
}

/// An entity as it is on the server.
#[utoipa::path(get, path = "/crdt/state/{entity_type}/{entity_id}",
    params(("entity_type" = String, Path, description = "`document` if the upload gave none; or the crdt_type of such a document"),
        ("entity_id" = String, Path),
        ("device_id" = Option<String>, Query, description = "as which device: needed with tokens"),
        ("Authorization" = Option<String>, Header)),
    responses((status = 200, body = StateView), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn state(
    State(service): State<SyncService>,
    Token(token): Token,
    Path((entity_type, entity_id)): Path<(String, String)>,
    Query(asking): Query<Asking>,
) -> Result<Ready, Problem> {
    check_id("entity_type", &entity_type)?;
    check_id("entity_id", &entity_id)?;
    let user = service.asking(asking.device_id.as_deref(), token.as_deref()).await?;
    let cache = service.cache();
    let kept = user.as_ref().and_then(|user| cache.key("state", user, &[&entity_type, &entity_id]));
    if let Some(view) = cache.get::<Box<RawValue>>(kept.as_ref()).await {
        return Ok(Ready(StatusCode::OK, view.get().to_owned()));
    }
    let view = view_of(&service, user.as_ref(), entity_type, entity_id).await?;
    let known = user.is_some_and(|user| view.seq <= user.head.seq);
    let view = to_raw_value(&view).map_err(|error| Problem::internal(&error))?;
    cache.put(kept.filter(|_| known), &view);
    Ok(Ready(StatusCode::OK, view.get().to_owned()))
}

async fn view_of(
    service: &SyncService,
    user: Option<&User>,
    entity_type: String,
    entity_id: String,
) -> Result<StateView, Problem> {
    let user = user.map(|user| user.user_id.as_str());
    let key = EntityKey { entity_type: entity_type.clone(), entity_id: entity_id.clone() };
    let mut found = find(service, user, &key).await?;
    if found.is_none()
        && let Some(kind) = Kind::parse(&entity_type)
    {
        let key = EntityKey { entity_type: "document".to_owned(), entity_id };
        found = find(service, user, &key).await?.filter(|found| found.kind == kind);
    }
    let entity = found.ok_or_else(|| {
        let detail = format!("There is no {} {}.", key.entity_type, key.entity_id);
        Problem::not_found("entity_not_found", detail)
    })?;
    let document = Document::from_bytes(entity.kind, &entity.state)
        .map_err(|error| Problem::internal(&error))?;
    let (timestamp, node_id) = document.stamp().unzip();
    Ok(StateView {
        entity_type: entity.key.entity_type,
        entity_id: entity.key.entity_id,
        crdt_type: entity.kind.name(),
        value: document.value(),
        timestamp,
        node_id,
        conflict: !document.conflicts().is_empty(),
        state: document.to_json(),
        seq: entity.seq,
        updated_at: entity.updated_at,
    })
}

async fn find(
    service: &SyncService,
    user: Option<&str>,
    key: &EntityKey,
) -> Result<Option<Entity>, Problem> {
    let store = service.store();
    if let Some(user) = user {
        let keys = [key.clone()];
        return Ok(store.load(user, "", &[], &[], &keys).await?.entities.remove(key));
    }
    let mut found = store.find_entity(key).await?;
    if found.len() > 1 {
        let detail = "Several users have an entity of that name: add ?device_id=… to the address.";
        return Err(Problem::conflict("ambiguous_entity", detail));
    }
    Ok(found.pop().map(|(_, entity)| entity))
}
