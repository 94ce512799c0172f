//! The service's own documentation: the OpenAPI document, and a page that shows it.

use std::sync::Arc;

use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::OpenApi;

/// Nothing is loaded from anywhere else: the page works without the internet.
const PAGE: &str = include_str!("docs.html");
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      connect-src 'self'";

pub(crate) fn routes(document: OpenApi) -> Router {
    let document = Arc::new(document);
    Router::new()
        .route("/openapi.json", get(move || async move { Json(&*document).into_response() }))
        .route("/docs", get(|| async { ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE)) }))
}
