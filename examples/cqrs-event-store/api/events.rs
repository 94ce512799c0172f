//! The log.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use examples_common::{JsonBody, Problem};
use futures::TryStreamExt;
use potter_core::Metadata;
use potter_eventsourcing::{At, EventFilter, ReadOptions, RecordedEvent};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::time_travel::{StateView, state_at};
use super::{Params, Path, limit, no_such_aggregate, position, position_at};
use crate::command::AggregateId;
use crate::service::{Service, problem};

/// An event.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct EventView {
    event_id: String,
    #[schema(example = "account-123")]
    aggregate_id: String,
    #[schema(example = "account")]
    aggregate_type: String,
    #[schema(example = "account.deposited")]
    event_type: String,
    /// Its place in its aggregate: 1, 2, 3, …
    pub(super) version: u64,
    /// Its place among all events: growing, with gaps.
    pub(super) position: u64,
    schema_version: u32,
    #[schema(value_type = Object)]
    data: potter_core::Json,
    #[schema(value_type = Object)]
    metadata: Metadata,
    recorded_at: DateTime<Utc>,
}

impl From<RecordedEvent> for EventView {
    fn from(event: RecordedEvent) -> Self {
        Self {
            event_id: event.event_id.to_string(),
            aggregate_id: event.stream_id.to_string(),
            aggregate_type: event.stream_type().to_owned(),
            event_type: event.event_type,
            version: event.version,
            position: event.global_position,
            schema_version: event.schema_version,
            data: event.payload,
            metadata: event.metadata,
            recorded_at: event.recorded_at,
        }
    }
}

/// What of the log is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    event_type: Option<String>,
    aggregate_type: Option<String>,
    from: Option<DateTime<Utc>>,
    cursor: Option<String>,
    limit: Option<u32>,
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventPage {
    events: Vec<EventView>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
    /// The highest position there is.
    head: u64,
}

/// The filter of comma-separated types.
pub(super) fn filter(event_type: Option<&str>, aggregate_type: Option<&str>) -> EventFilter {
    let mut filter = EventFilter::all();
    if let Some(types) = event_type {
        filter = filter.event_types(types.split(','));
    }
    if let Some(types) = aggregate_type {
        filter = filter.stream_types(types.split(','));
    }
    filter
}

/// All events, in the order of their positions.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(("event_type" = Option<String>, Query, description = "one or more, separated by commas"),
        ("aggregate_type" = Option<String>, Query, description = "one or more, separated by commas"),
        ("from" = Option<String>, Query, description = "recorded at this time or later (RFC 3339)"),
        ("cursor" = Option<String>, Query), ("limit" = Option<u32>, Query, description = "1 to 500 (50)")),
    responses((status = 200, body = EventPage), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(service): State<Service>,
    Params(params): Params<ListParams>,
) -> Result<Json<EventPage>, Problem> {
    let limit = limit(params.limit)? as usize;
    let mut after = position("cursor", params.cursor.as_deref())?;
    if let Some(from) = params.from {
        let before = from - chrono::Duration::microseconds(1);
        after = after.max(position_at(&service, before).await?);
    }
    let filter = filter(params.event_type.as_deref(), params.aggregate_type.as_deref());
    let mut events = Vec::new();
    // A page of the store may be short without being at the end.
    loop {
        let wanted = limit - events.len();
        let page = service.events.read_page(after, &filter, wanted as u64).await;
        let page = page.map_err(|error| problem(&error))?;
        let stuck = page.through <= after;
        after = after.max(page.through);
        events.extend(page.events);
        if events.len() >= limit || after >= page.head || stuck {
            let next_cursor = (after < page.head).then(|| after.to_string());
            let events = events.into_iter().map(EventView::from).collect();
            return Ok(Json(EventPage { events, next_cursor, head: page.head }));
        }
    }
}

/// What of an aggregate's events is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfAggregateParams {
    from_version: Option<u64>,
    limit: Option<u32>,
}

/// The events of an aggregate.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AggregateEvents {
    #[schema(example = "account-123")]
    aggregate_id: String,
    #[schema(example = "account")]
    aggregate_type: &'static str,
    /// The version of its last event.
    version: u64,
    events: Vec<EventView>,
    /// The from_version of the next page; null at the end.
    next_cursor: Option<String>,
}

/// The events of one aggregate.
#[utoipa::path(get, path = "/api/v1/events/{aggregate_id}", tag = "events",
    params(("aggregate_id" = String, Path), ("from_version" = Option<u64>, Query),
        ("limit" = Option<u32>, Query, description = "1 to 500 (50)")),
    responses((status = 200, body = AggregateEvents), (status = 404, body = Problem)))]
pub(super) async fn of_aggregate(
    State(service): State<Service>,
    Path(aggregate_id): Path<String>,
    Params(params): Params<OfAggregateParams>,
) -> Result<Json<AggregateEvents>, Problem> {
    let id = AggregateId::parse(&aggregate_id)?;
    let limit = limit(params.limit)?;
    let version = service.events.stream_version(&id.stream).await;
    let version = version.map_err(|error| problem(&error))?;
    if version == 0 {
        return Err(no_such_aggregate(&aggregate_id));
    }
    let from = params.from_version.unwrap_or(1).max(1);
    let options = ReadOptions::forwards().from_version(from).limit(u64::from(limit));
    let events: Vec<_> = service
        .events
        .read_stream(&id.stream, options)
        .try_collect()
        .await
        .map_err(|error| problem(&error))?;
    let last = events.last().map_or(version, |event: &RecordedEvent| event.version);
    Ok(Json(AggregateEvents {
        aggregate_id,
        aggregate_type: id.kind.as_str(),
        version: version.max(last),
        next_cursor: (last < version).then(|| (last + 1).to_string()),
        events: events.into_iter().map(EventView::from).collect(),
    }))
}

/// How to replay.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayRequest {
    /// Up to and with the event of this version.
    to_version: Option<u64>,
    /// Up to this time.
    point_in_time: Option<DateTime<Utc>>,
    /// As if the events of these versions had not happened.
    #[serde(default)]
    without: Vec<u64>,
}

/// What a replay came to. Nothing was written.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Replayed {
    #[serde(flatten)]
    state: StateView,
    /// How many events were applied.
    events_replayed: u64,
    /// Does the state from the newest snapshot equal the state from all events? Null when the
    /// replay ended before the last event.
    snapshot_agrees: Option<bool>,
    /// What the aggregate would be without the events that were left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    what_if: Option<Value>,
}

/// Folds the events of an aggregate again, from the first on. The body may be left out.
#[utoipa::path(post, path = "/api/v1/events/{aggregate_id}/replay", tag = "events",
    params(("aggregate_id" = String, Path)), request_body = Option<ReplayRequest>,
    responses((status = 200, body = Replayed), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn replay(
    State(service): State<Service>,
    Path(aggregate_id): Path<String>,
    request: axum::extract::Request,
) -> Result<Json<Replayed>, Problem> {
    let request = optional_body(request).await?;
    let id = AggregateId::parse(&aggregate_id)?;
    let version = service.events.stream_version(&id.stream).await;
    let version = version.map_err(|error| problem(&error))?;
    if version == 0 {
        return Err(no_such_aggregate(&aggregate_id));
    }
    let at = match (request.to_version, request.point_in_time) {
        (Some(_), Some(_)) => {
            let detail = "Give to_version or point_in_time, not both.";
            return Err(Problem::unprocessable("invalid_replay", detail));
        }
        (Some(version), None) => At::Version(version),
        (None, Some(time)) => At::Time(time),
        (None, None) => At::Version(version),
    };
    if !request.without.is_empty() && (request.to_version, request.point_in_time) != (None, None) {
        let detail = "without goes over the whole history: leave to_version and point_in_time out.";
        return Err(Problem::unprocessable("invalid_replay", detail));
    }
    if request.without.len() > super::LIMIT_MAX as usize {
        let detail = format!("without has at most {} versions.", super::LIMIT_MAX);
        return Err(Problem::unprocessable("invalid_replay", detail));
    }
    let state = state_at(&service, &id, at).await?;
    let aggregates = service.of(id.kind);
    let snapshot_agrees = if state.version == version {
        let differences = aggregates.verify_snapshot(id.local()).await;
        Some(differences.map_err(|error| problem(&error))?.is_empty())
    } else {
        None
    };
    let what_if = if request.without.is_empty() {
        None
    } else {
        let state = aggregates.without(id.local(), &request.without).await;
        Some(state.map_err(|error| problem(&error))?)
    };
    Ok(Json(Replayed { events_replayed: state.version, state, snapshot_agrees, what_if }))
}

/// No body is the default.
async fn optional_body(request: axum::extract::Request) -> Result<ReplayRequest, Problem> {
    use axum::body::HttpBody;
    use axum::extract::FromRequest;
    if request.body().size_hint().exact() == Some(0) {
        return Ok(ReplayRequest::default());
    }
    JsonBody::from_request(request, &()).await.map(|JsonBody(request)| request)
}
