//! Histories: what clients saw, as it was written down.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use examples_common::{IdempotencyKey, Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::body::OptionalBody;
use super::results::{blocking, history as load};
use super::tests::PageQuery;
use super::{Service, page, stored};

/// Events of a history.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Events {
    test_id: String,
    #[schema(value_type = Vec<Object>)]
    events: Vec<Value>,
    total: usize,
}

/// A test's history, event by event.
#[utoipa::path(get, path = "/history/{test_id}", operation_id = "get_history",
    params(("test_id" = String, Path), PageQuery),
    responses((status = 200, body = Events), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn get(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Events>, Problem> {
    let (limit, offset) = page(query.limit, query.offset)?;
    let history = load(&service, &stored(&service, &id).await?).await?;
    let total = history.events().len();
    let part = history.events().iter().skip(offset as usize).take(limit as usize);
    let events = part.map(|event| serde_json::from_str(&event.to_json()));
    let events = events.collect::<Result<_, _>>().map_err(|error| Problem::internal(&error))?;
    Ok(Json(Events { test_id: id, events, total }))
}

/// The report as one HTML file: timeline, anomalies, latencies, rates, faults.
#[utoipa::path(post, path = "/history/{test_id}/visualize", operation_id = "visualize_history",
    params(("test_id" = String, Path)),
    responses((status = 200, content_type = "text/html", body = String),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn visualize(
    State(service): State<Service>,
    Path(id): Path<String>,
    _key: IdempotencyKey,
) -> Result<Response, Problem> {
    page_of(&service, &id).await
}

/// The same for browsers.
#[utoipa::path(get, path = "/history/{test_id}/visualize", operation_id = "show_history",
    params(("test_id" = String, Path)),
    responses((status = 200, content_type = "text/html", body = String),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn visualize_again(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    page_of(&service, &id).await
}

async fn page_of(service: &Service, id: &str) -> Result<Response, Problem> {
    let stored = stored(service, id).await?;
    let path = service.runs.directory(id).join("report.html");
    let page = tokio::fs::read(path).await.map_err(|_| {
        let detail = format!("Test {id} is {} and has no report.", stored.status.name());
        Problem::conflict("no_report", detail)
    })?;
    // The report is a file of its own, and nothing in it may load anything.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  img-src data:";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    Ok((headers, page).into_response())
}

/// How to write a history.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportRequest {
    /// edn (as Jepsen) or jsonl (the default).
    #[serde(default)]
    #[schema(example = "edn")]
    format: Option<String>,
}

/// The whole history as a file for other checkers.
#[utoipa::path(post, path = "/history/{test_id}/export", operation_id = "export_history",
    request_body = ExportRequest, params(("test_id" = String, Path)),
    responses((status = 200, content_type = "text/plain", body = String),
        (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn export(
    State(service): State<Service>,
    Path(id): Path<String>,
    _key: IdempotencyKey,
    OptionalBody(request): OptionalBody<ExportRequest>,
) -> Result<Response, Problem> {
    let format = request.format.unwrap_or_else(|| "jsonl".to_owned()).to_ascii_lowercase();
    let (edn, kind, ending) = match format.as_str() {
        "edn" => (true, "application/edn", "edn"),
        "jsonl" | "json" | "ndjson" => (false, "application/x-ndjson", "jsonl"),
        other => {
            let detail = format!("There is no format \"{other}\"; there are edn and jsonl.");
            return Err(Problem::unprocessable("invalid_format", detail));
        }
    };
    let history = load(&service, &stored(&service, &id).await?).await?;
    let text = blocking(move || Ok(if edn { history.to_edn() } else { history.to_json_lines() }));
    let name = format!("attachment; filename=\"{id}.{ending}\"");
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, text.await?).into_response())
}
