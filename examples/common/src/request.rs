//! What happens around every request: ids, one line in the log, metrics, errors as problems.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use potter_core::telemetry::join_trace;
use potter_core::{Metadata, TraceContext, new_id};
use tracing::Instrument;
use tracing::field::Empty;

use crate::problem::Problem;

const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const CORRELATION_BYTES_MAX: usize = 128;
/// The most of a plain-text refusal that goes into a problem.
const REFUSAL_BYTES_MAX: usize = 4096;

/// The request's ids, for handlers: an extractor.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The caller's `X-Correlation-ID`, or a new one; it is in the answer too.
    pub correlation_id: String,
    /// The trace that the request belongs to.
    pub trace: TraceContext,
}

impl RequestContext {
    /// The metadata of what the request sets off.
    pub fn metadata(&self) -> Metadata {
        Metadata::new()
            .with_correlation_id(&self.correlation_id)
            .with_traceparent(self.trace.to_string())
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self {
            correlation_id: correlation_id(&parts.headers),
            trace: TraceContext::root(),
        }))
    }
}

/// The caller's id when it is short and plain, so that it can't forge a line of the log.
fn correlation_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        (1..=CORRELATION_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&b))
    };
    let given = headers.get(CORRELATION_ID).and_then(|value| value.to_str().ok()).filter(sane);
    given.map_or_else(|| new_id().to_string(), ToOwned::to_owned)
}

/// The layer around all routes.
pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let correlation_id = correlation_id(request.headers());
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let caller = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let caller = caller.and_then(TraceContext::parse);
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{method} {}", matched.as_deref().unwrap_or("unmatched")),
        trace_id = Empty,
        correlation_id,
    );
    let trace = join_trace(&span, caller.as_ref());
    span.record("trace_id", trace.trace_id());
    request
        .extensions_mut()
        .insert(RequestContext { correlation_id: correlation_id.clone(), trace });

    let line = Line {
        method,
        path: matched.clone().unwrap_or_else(|| request.uri().path().to_owned()),
        label: matched.unwrap_or_else(|| "unmatched".to_owned()),
        trace_id: trace.trace_id(),
        correlation_id,
        start: Instant::now(),
        status: None,
    };
    metrics::gauge!("http_requests_in_flight").increment(1.0);
    let answer = async {
        let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let answer =
            answer.unwrap_or_else(|_| Problem::internal(&"a handler panicked").into_response());
        with_problem(answer).await
    };
    let mut answer = answer.instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&line.correlation_id) {
        answer.headers_mut().insert(CORRELATION_ID, value);
    }
    line.done(answer.status());
    answer
}

/// The request's line in the log. Dropped before it is done, the caller has gone away.
struct Line {
    method: Method,
    path: String,
    label: String,
    trace_id: String,
    correlation_id: String,
    start: Instant,
    status: Option<StatusCode>,
}

impl Line {
    fn done(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // 499 is what proxies write for "the client closed the connection".
        let status = self.status.map_or(499, |status| status.as_u16());
        let seconds = self.start.elapsed().as_secs_f64();
        let method = method_label(&self.method);
        let label = std::mem::take(&mut self.label);
        metrics::gauge!("http_requests_in_flight").decrement(1.0);
        metrics::counter!("http_requests_total", "method" => method, "path" => label.clone(), "status" => status.to_string())
            .increment(1);
        metrics::histogram!("http_request_duration_seconds", "method" => method, "path" => label)
            .record(seconds);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    method = %self.method,
                    path = self.path,
                    status,
                    duration_ms = seconds * 1000.0,
                    trace_id = self.trace_id,
                    correlation_id = self.correlation_id,
                    "request"
                )
            };
        }
        match status {
            500.. => line!(error),
            _ if matches!(self.path.as_str(), "/health" | "/metrics") => line!(debug),
            _ => line!(info),
        }
    }
}

/// A label that callers can't make up.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

/// Turns a refusal in plain text, such as those of axum's own extractors, into a problem.
async fn with_problem(answer: Response) -> Response {
    let status = answer.status();
    let content_type = answer.headers().get(header::CONTENT_TYPE);
    let plain = content_type.is_none_or(|value| value.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !plain {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let text = to_bytes(body, REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let problem = if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
        Problem { status: status.as_u16(), ..Problem::internal(&text) }
    } else {
        let code = code_of(status);
        let text = text.trim();
        let detail = match (status, text) {
            (StatusCode::METHOD_NOT_ALLOWED, "") => {
                "This path is not for that method; the header Allow lists those that it takes."
            }
            (_, "") => "The request was refused.",
            (_, text) => text,
        };
        Problem::new(status, code, detail)
    };
    let (problem, body) = problem.into_response().into_parts();
    // The refusal's own headers stay (Allow), but for those that speak of its text.
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(problem.headers);
    Response::from_parts(parts, Body::new(body))
}

/// The status in words, as a code: `method_not_allowed`.
fn code_of(status: StatusCode) -> String {
    let words = status.canonical_reason().unwrap_or("refused").to_ascii_lowercase();
    words.replace([' ', '-'], "_")
}
