//! Aggregates as they were. Nothing is written.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use examples_common::{JsonBody, Problem};
use futures::TryStreamExt;
use potter_core::Json as RawJson;
use potter_eventsourcing::{
    At, Difference, ErrorKind, ReadOptions, Slice, Snapshot, TimelineEntry, Totals, differences,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::snapshots::{self, ListParams, SnapshotView};
use super::{Params, Path, limit, no_such_aggregate, position_at};
use crate::command::AggregateId;
use crate::service::{Service, problem};

/// An aggregate at a moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct StateView {
    #[schema(example = "account-123")]
    pub(super) aggregate_id: String,
    #[schema(example = "account")]
    pub(super) aggregate_type: &'static str,
    /// The version of the last event in it.
    pub(super) version: u64,
    /// Its fields.
    #[schema(value_type = Object)]
    pub(super) data: Value,
    /// When its last event was recorded; null before the first.
    pub(super) timestamp: Option<DateTime<Utc>>,
}

/// The aggregate at a moment.
///
/// # Errors
/// 404 `aggregate_not_found`, `before_first_event` or `version_not_found`.
pub(super) async fn state_at(
    service: &Service,
    id: &AggregateId,
    at: At,
) -> Result<StateView, Problem> {
    let text = id.stream.as_str();
    let version = service.events.stream_version(&id.stream).await;
    if version.map_err(|error| problem(&error))? == 0 {
        return Err(no_such_aggregate(text));
    }
    let state = service.of(id.kind).load_at(id.local(), at).await.map_err(|error| {
        let detail = format!("{error}.");
        match (error.kind(), at) {
            (ErrorKind::NotFound, At::Time(_)) => Problem::not_found("before_first_event", detail),
            (ErrorKind::NotFound, At::Version(_)) => {
                Problem::not_found("version_not_found", detail)
            }
            _ => problem(&error),
        }
    })?;
    let options = ReadOptions::forwards().from_version(state.version.max(1)).limit(1);
    let last = service.events.read_stream(&id.stream, options).try_next().await;
    let last = last.map_err(|error| problem(&error))?.filter(|one| one.version == state.version);
    Ok(StateView {
        aggregate_id: text.to_owned(),
        aggregate_type: id.kind.as_str(),
        version: state.version,
        data: state.data,
        timestamp: last.map(|event| event.recorded_at),
    })
}

/// Which moment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreRequest {
    #[schema(example = "account-123")]
    aggregate_id: String,
    /// At this time.
    point_in_time: Option<DateTime<Utc>>,
    /// Or behind the event of this version.
    version: Option<u64>,
}

/// An aggregate as it was at a time or a version.
#[utoipa::path(post, path = "/api/v1/time-travel/restore", tag = "time travel", request_body = RestoreRequest,
    responses((status = 200, body = StateView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn restore(
    State(service): State<Service>,
    JsonBody(request): JsonBody<RestoreRequest>,
) -> Result<Json<StateView>, Problem> {
    let id = AggregateId::parse(&request.aggregate_id)?;
    let at = match (request.point_in_time, request.version) {
        (Some(time), None) => At::Time(time),
        (None, Some(version)) => At::Version(version),
        _ => {
            let detail = "Give point_in_time (RFC 3339) or version: one of them.";
            return Err(Problem::unprocessable("invalid_moment", detail));
        }
    };
    state_at(&service, &id, at).await.map(Json)
}

/// What of a life is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimelineParams {
    from_version: Option<u64>,
    limit: Option<u32>,
}

/// An event in the life of an aggregate, and what it did.
#[derive(Debug, Serialize, ToSchema)]
struct Moment {
    version: u64,
    position: u64,
    #[schema(example = "account.withdrawn")]
    event_type: String,
    recorded_at: DateTime<Utc>,
    #[schema(value_type = Object)]
    data: RawJson,
    /// The aggregate behind it.
    #[schema(value_type = Object)]
    state: RawJson,
    /// What it changed, field by field.
    #[schema(value_type = Vec<Object>)]
    changes: Vec<Difference>,
}

impl From<TimelineEntry> for Moment {
    fn from(entry: TimelineEntry) -> Self {
        Self {
            version: entry.event.version,
            position: entry.event.global_position,
            event_type: entry.event.event_type,
            recorded_at: entry.event.recorded_at,
            data: entry.event.payload,
            state: entry.state,
            changes: entry.changes,
        }
    }
}

/// An event that changed how the aggregate stands.
#[derive(Debug, Serialize, ToSchema)]
struct Milestone {
    version: u64,
    event_type: String,
    recorded_at: DateTime<Utc>,
    /// What it stands at since.
    #[schema(example = "closed")]
    status: Value,
}

/// The life of an aggregate.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Timeline {
    #[schema(example = "account-123")]
    aggregate_id: String,
    events: Vec<Moment>,
    snapshots: Vec<SnapshotView>,
    /// Those of the events that changed its status.
    milestones: Vec<Milestone>,
    /// The from_version of the next page; null at the end.
    next_cursor: Option<String>,
}

/// The life of an aggregate: each event, the state behind it, and what it changed.
#[utoipa::path(get, path = "/api/v1/time-travel/timeline/{aggregate_id}", tag = "time travel",
    params(("aggregate_id" = String, Path), ("from_version" = Option<u64>, Query),
        ("limit" = Option<u32>, Query, description = "1 to 500 (50)")),
    responses((status = 200, body = Timeline), (status = 404, body = Problem)))]
pub(super) async fn timeline(
    State(service): State<Service>,
    Path(aggregate_id): Path<String>,
    Params(params): Params<TimelineParams>,
) -> Result<Json<Timeline>, Problem> {
    let id = AggregateId::parse(&aggregate_id)?;
    let limit = limit(params.limit)?;
    let version = service.events.stream_version(&id.stream).await;
    let version = version.map_err(|error| problem(&error))?;
    if version == 0 {
        return Err(no_such_aggregate(&aggregate_id));
    }
    let from = params.from_version.unwrap_or(1).max(1);
    let entries = service.of(id.kind).timeline(id.local(), from, u64::from(limit)).await;
    let entries = entries.map_err(|error| problem(&error))?;
    let milestones = entries.iter().filter_map(milestone).collect();
    let snapshots = service.snapshots.store().list(Some(&id.stream), 0, limit).await;
    let snapshots = snapshots.map_err(|error| problem(&error))?;
    let last = entries.last().map_or(version, |entry| entry.event.version);
    Ok(Json(Timeline {
        aggregate_id,
        events: entries.into_iter().map(Moment::from).collect(),
        snapshots: snapshots.into_iter().map(SnapshotView::from).collect::<Vec<_>>(),
        milestones,
        next_cursor: (last < version).then(|| (last + 1).to_string()),
    }))
}

fn milestone(entry: &TimelineEntry) -> Option<Milestone> {
    let change = entry.changes.iter().find(|change| change.field == "status")?;
    Some(Milestone {
        version: entry.event.version,
        event_type: entry.event.event_type.clone(),
        recorded_at: entry.event.recorded_at,
        status: change.new_value.clone().unwrap_or_default(),
    })
}

/// Which two states: of one aggregate at two moments, or of two aggregates. A moment that is left
/// out is now.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CompareRequest {
    #[schema(example = "account-123")]
    aggregate_id: String,
    /// The other one, if it is not the same.
    other_aggregate_id: Option<String>,
    #[serde(alias = "point_in_time1")]
    time1: Option<DateTime<Utc>>,
    version1: Option<u64>,
    #[serde(alias = "point_in_time2")]
    time2: Option<DateTime<Utc>>,
    version2: Option<u64>,
}

/// What differs between two states.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Comparison {
    state1: StateView,
    state2: StateView,
    /// From the first to the second, field by field.
    #[schema(value_type = Vec<Object>)]
    differences: Vec<Difference>,
}

/// What differs between two moments, or two aggregates, field by field.
#[utoipa::path(post, path = "/api/v1/time-travel/compare", tag = "time travel", request_body = CompareRequest,
    responses((status = 200, body = Comparison), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn compare(
    State(service): State<Service>,
    JsonBody(request): JsonBody<CompareRequest>,
) -> Result<Json<Comparison>, Problem> {
    let first = AggregateId::parse(&request.aggregate_id)?;
    let second = match &request.other_aggregate_id {
        Some(other) => AggregateId::parse(other)?,
        None => first.clone(),
    };
    if second.kind != first.kind {
        let detail = "Only aggregates of one type can be compared.";
        return Err(Problem::unprocessable("invalid_comparison", detail));
    }
    let state1 = moment(&service, &first, request.time1, request.version1).await?;
    let state2 = moment(&service, &second, request.time2, request.version2).await?;
    let differences = differences(&state1.data, &state2.data);
    Ok(Json(Comparison { state1, state2, differences }))
}

async fn moment(
    service: &Service,
    id: &AggregateId,
    time: Option<DateTime<Utc>>,
    version: Option<u64>,
) -> Result<StateView, Problem> {
    let at = match (time, version) {
        (Some(time), None) => At::Time(time),
        (None, Some(version)) => At::Version(version),
        (None, None) => {
            let version = service.events.stream_version(&id.stream).await;
            // Of one that is not there, state_at says so.
            At::Version(version.map_err(|error| problem(&error))?)
        }
        (Some(_), Some(_)) => {
            let detail = "A moment is a time or a version, not both.";
            return Err(Problem::unprocessable("invalid_moment", detail));
        }
    };
    state_at(service, id, at).await
}

/// The states that are kept: where a restore begins.
#[utoipa::path(get, path = "/api/v1/time-travel/snapshots", tag = "time travel",
    params(("aggregate_id" = Option<String>, Query), ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Value), (status = 422, body = Problem)))]
pub(super) async fn snapshots(
    State(service): State<Service>,
    Params(params): Params<ListParams>,
) -> Result<Json<Value>, Problem> {
    let page = snapshots::page(&service, &params).await?;
    let states = page.snapshots.into_iter().map(with_state).collect::<Vec<_>>();
    Ok(Json(json!({ "snapshots": states, "next_cursor": page.next_cursor })))
}

fn with_state(snapshot: Snapshot) -> Value {
    let state = snapshot.state.clone();
    json!({ "snapshot": SnapshotView::from(snapshot), "state": state })
}

/// Which moment of the whole.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnalyticsParams {
    point_in_time: Option<DateTime<Utc>>,
    source: Option<String>,
}

/// The whole as it was at a time (now without one), and what came since.
#[utoipa::path(get, path = "/api/v1/time-travel/analytics", tag = "time travel",
    params(("point_in_time" = Option<String>, Query, description = "RFC 3339"),
        ("source" = Option<String>, Query, description = "log or clickhouse")),
    responses((status = 200, body = Value), (status = 422, body = Problem)))]
pub(super) async fn analytics(
    State(service): State<Service>,
    Params(params): Params<AnalyticsParams>,
) -> Result<Json<Value>, Problem> {
    let analytics = service.warehouse.analytics(params.source.as_deref())?;
    let until = match params.point_in_time {
        Some(time) => position_at(&service, time).await?,
        None => service.events.safe_position().await.map_err(|error| problem(&error))?,
    };
    let (then, since) = (Slice::all().until(until), Slice::all().after(until));
    let asked = async {
        let then_totals: Totals = analytics.totals(&then).await?;
        let aggregates = analytics.by_stream_type(&then, 100).await?;
        let event_types = analytics.by_event_type(&then, 100).await?;
        Ok((then_totals, aggregates, event_types, analytics.totals(&since).await?))
    };
    let asked: potter_eventsourcing::Result<_> = asked.await;
    let (totals, aggregates, event_types, since) = asked.map_err(|error| problem(&error))?;
    Ok(Json(json!({
        "point_in_time": params.point_in_time,
        "position": until,
        "source": analytics.source(),
        "totals": totals,
        "aggregates": aggregates,
        "event_types": event_types,
        "since_then": since,
    })))
}
