//! The log as it grows, as server-sent events.
//!
//! The id of each is its position. A client that comes again with the last id that it saw
//! (`Last-Event-ID`, which browsers send by themselves) gets what came after it: nothing is lost or
//! comes twice, also when the service was killed meanwhile. A client without one begins at the end
//! of the log, and is told at once where that is, so that it can come back there.
//!
//! One page of events is in memory for each client; a slow one is waited for.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use examples_common::Problem;
use futures::{Stream, StreamExt, stream};
use potter_eventsourcing::{RecordedEvent, Result as StoreResult};
use serde::Deserialize;
use std::time::Duration;

use super::events::{EventView, filter};
use super::{Params, position};
use crate::service::{Service, problem};

/// After how long a client that lost its connection comes back.
const RETRY: Duration = Duration::from_secs(1);
/// After how long a stream ends, so that its client comes back, to another process perhaps.
const LIFE_MAX: Duration = Duration::from_secs(3600);

/// What is followed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FollowParams {
    event_type: Option<String>,
    aggregate_type: Option<String>,
    after: Option<String>,
}

/// Follows the log: what comes after `Last-Event-ID` (or `after`; 0 is from the beginning on), then
/// what happens, as `text/event-stream`. Without either it begins at the end.
#[utoipa::path(get, path = "/api/v1/events/stream", tag = "events",
    params(("Last-Event-ID" = Option<String>, Header), ("after" = Option<String>, Query),
        ("event_type" = Option<String>, Query), ("aggregate_type" = Option<String>, Query)),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn follow(
    State(service): State<Service>,
    headers: HeaderMap,
    Params(params): Params<FollowParams>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let last_id = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("no text"));
    let after = match (last_id, params.after.as_deref()) {
        // A client that comes back says more than the address that it comes back to.
        (Some(id), _) => position("Last-Event-ID", Some(id))?,
        (None, Some(after)) => position("after", Some(after))?,
        (None, None) => {
            // Not the head: below it there may be events that are not committed yet.
            service.events.safe_position().await.map_err(|error| problem(&error))?
        }
    };
    let Ok(place) = service.streams.clone().try_acquire_owned() else {
        let detail = "Too many clients follow the log: try again later.";
        return Err(Problem::unavailable("too_many_streams", detail));
    };
    let filter = filter(params.event_type.as_deref(), params.aggregate_type.as_deref());
    let followed = potter_eventsourcing::follow(service.events.clone(), after, filter);
    let events = followed.filter_map(|event| std::future::ready(line(event)));
    // No data: a browser keeps the id and calls nobody.
    let begin = Event::default().id(after.to_string()).retry(RETRY);
    let stop = service.stop.clone();
    let end = async move {
        let _place = place;
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(LIFE_MAX) => {}
        }
    };
    let lines = stream::iter([begin]).chain(events).map(Ok).take_until(Box::pin(end));
    let heartbeat = KeepAlive::new().interval(service.heartbeat).text("heartbeat");
    Ok(Sse::new(lines).keep_alive(heartbeat))
}

/// An event as it is sent. The database being away is not the client's matter: it is tried again.
fn line(event: StoreResult<RecordedEvent>) -> Option<Event> {
    let event = match event {
        Ok(event) => EventView::from(event),
        Err(error) => {
            tracing::warn!(%error, "the log can't be read at the moment");
            return None;
        }
    };
    match serde_json::to_string(&event) {
        // Line ends are only between the tokens of JSON.
        Ok(json) => {
            let json = json.replace(['\n', '\r'], " ");
            Some(Event::default().id(event.position.to_string()).event("event").data(json))
        }
        Err(error) => {
            tracing::error!(%error, position = event.position, "an event can't be sent");
            None
        }
    }
}
