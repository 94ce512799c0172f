//! Questions about the whole history, answered by SQL on the log or by its mirror in ClickHouse.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Duration, Utc};
use examples_common::Problem;
use potter_eventsourcing::{Bucket, BucketTotals, EventAnalytics, Slice};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Params, limit, position_at};
use crate::command_log;
use crate::service::{Service, problem};

/// What part of the history is asked about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnalyticsParams {
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    event_type: Option<String>,
    aggregate_type: Option<String>,
    bucket: Option<Bucket>,
    limit: Option<u32>,
    source: Option<String>,
}

impl AnalyticsParams {
    /// Times are positions: so the log and its mirror mean the same.
    async fn slice(&self, service: &Service) -> Result<Slice, Problem> {
        let mut slice = Slice::all();
        if let Some(from) = self.from {
            slice = slice.after(position_at(service, from - Duration::microseconds(1)).await?);
        }
        if let Some(to) = self.to {
            slice = slice.until(position_at(service, to).await?);
        }
        slice.event_type.clone_from(&self.event_type);
        slice.stream_type.clone_from(&self.aggregate_type);
        Ok(slice)
    }

    fn ask<'a>(&self, service: &'a Service) -> Result<&'a Arc<dyn EventAnalytics>, Problem> {
        service.warehouse.analytics(self.source.as_deref())
    }
}

fn failed(error: &potter_eventsourcing::Error) -> Problem {
    problem(error)
}

/// How many events, of which types.
#[utoipa::path(get, path = "/api/v1/analytics/events", tag = "analytics",
    params(("from" = Option<String>, Query), ("to" = Option<String>, Query),
        ("event_type" = Option<String>, Query), ("aggregate_type" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("source" = Option<String>, Query, description = "log or clickhouse")),
    responses((status = 200, body = Value), (status = 422, body = Problem)))]
pub(super) async fn events(
    State(service): State<Service>,
    Params(params): Params<AnalyticsParams>,
) -> Result<Json<Value>, Problem> {
    let (limit, slice) = (limit(params.limit)?, params.slice(&service).await?);
    let analytics = params.ask(&service)?;
    let totals = analytics.totals(&slice).await.map_err(|error| failed(&error))?;
    let types = analytics.by_event_type(&slice, limit).await.map_err(|error| failed(&error))?;
    Ok(Json(json!({
        "source": analytics.source(), "totals": totals, "event_types": types, "total": types.len(),
    })))
}

/// How many aggregates, of which types, and the busiest of them.
#[utoipa::path(get, path = "/api/v1/analytics/aggregates", tag = "analytics",
    params(("from" = Option<String>, Query), ("to" = Option<String>, Query),
        ("event_type" = Option<String>, Query), ("aggregate_type" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("source" = Option<String>, Query)),
    responses((status = 200, body = Value), (status = 422, body = Problem)))]
pub(super) async fn aggregates(
    State(service): State<Service>,
    Params(params): Params<AnalyticsParams>,
) -> Result<Json<Value>, Problem> {
    let (limit, slice) = (limit(params.limit)?, params.slice(&service).await?);
    let analytics = params.ask(&service)?;
    let types = analytics.by_stream_type(&slice, limit).await.map_err(|error| failed(&error))?;
    let busiest = analytics.busiest_streams(&slice, limit).await.map_err(|error| failed(&error))?;
    let types: Vec<_> = types
        .iter()
        .map(|one| {
            json!({
                "aggregate_type": one.stream_type,
                "aggregates": one.streams,
                "events": one.events,
                "events_per_aggregate": one.events_per_stream(),
                "version_max": one.version_max,
            })
        })
        .collect();
    let busiest: Vec<_> = busiest
        .iter()
        .map(|one| {
            json!({
                "aggregate_id": one.stream_id, "events": one.events, "version": one.version,
                "last_at": one.last_at,
            })
        })
        .collect();
    Ok(Json(json!({
        "source": analytics.source(), "aggregate_types": types, "busiest": busiest,
        "total": types.len(),
    })))
}

/// Since when performance is asked about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PerformanceParams {
    from: Option<DateTime<Utc>>,
}

/// How commands went and how long they took (in the last 24 hours without `from`), and how far the
/// read models are.
#[utoipa::path(get, path = "/api/v1/analytics/performance", tag = "analytics",
    params(("from" = Option<String>, Query)), responses((status = 200, body = Value)))]
pub(super) async fn performance(
    State(service): State<Service>,
    Params(params): Params<PerformanceParams>,
) -> Result<Json<Value>, Problem> {
    let since = params.from.unwrap_or_else(|| Utc::now() - Duration::hours(24));
    let commands = command_log::figures(&service.database, since).await?;
    let mut models = HashMap::new();
    for model in service.models.iter() {
        if let Ok(status) = service.admin.status(model.name()).await {
            let lag =
                json!({ "lag_events": status.lag_events, "lag_seconds": status.lag.as_secs_f64() });
            models.insert(model.name().to_owned(), lag);
        }
    }
    Ok(Json(json!({ "since": since, "commands": commands, "projections": models })))
}

/// How much happened in each minute, hour (default), day or week, and how that changes.
#[utoipa::path(get, path = "/api/v1/analytics/trends", tag = "analytics",
    params(("bucket" = Option<String>, Query, description = "minute, hour, day or week"),
        ("from" = Option<String>, Query), ("to" = Option<String>, Query),
        ("event_type" = Option<String>, Query), ("aggregate_type" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("source" = Option<String>, Query)),
    responses((status = 200, body = Value), (status = 422, body = Problem)))]
pub(super) async fn trends(
    State(service): State<Service>,
    Params(params): Params<AnalyticsParams>,
) -> Result<Json<Value>, Problem> {
    let (limit, slice) = (limit(params.limit)?, params.slice(&service).await?);
    let (analytics, bucket) = (params.ask(&service)?, params.bucket.unwrap_or(Bucket::Hour));
    let buckets =
        analytics.over_time(&slice, bucket, limit).await.map_err(|error| failed(&error))?;
    let width = Duration::from_std(bucket.width()).unwrap_or_default();
    let shown: Vec<_> = buckets
        .iter()
        .enumerate()
        .map(|(at, one)| {
            json!({
                "start": one.start, "events": one.events, "aggregates": one.streams,
                "change": change(&buckets, at, width),
            })
        })
        .collect();
    let peak = buckets.iter().max_by_key(|one| one.events);
    let peak = peak.map(|one| json!({ "start": one.start, "events": one.events }));
    Ok(Json(json!({
        "source": analytics.source(), "bucket": bucket, "buckets": shown, "peak": peak,
        "total": buckets.len(),
    })))
}

/// How many events more than in the bucket right before; null for the first, which may have been
/// cut off.
fn change(buckets: &[BucketTotals], at: usize, width: Duration) -> Option<i64> {
    let (now, before) = (&buckets[at], &buckets[at.checked_sub(1)?]);
    let events = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    // Buckets without an event are not listed.
    let is_next = before.start + width == now.start;
    Some(events(now.events) - if is_next { events(before.events) } else { 0 })
}
