//! Errors as RFC 9457 `application/problem+json`.

use std::borrow::Cow;
use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use potter_core::{Error, ErrorKind};
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong, for the one who sent the request.
///
/// ```
/// use examples_common::Problem;
///
/// let problem = Problem::unprocessable("invalid_order", "An order needs at least one item.")
///     .with_field("items", "must not be empty");
/// assert_eq!(problem.status, 422);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[non_exhaustive]
pub struct Problem {
    /// A URI for the kind of problem: `urn:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:problem:not_found")]
    pub kind: String,
    /// The status in words.
    #[schema(example = "Not Found")]
    pub title: &'static str,
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// What happened here, and what to do.
    pub detail: String,
    /// Stable and machine-readable, snake_case.
    #[schema(example = "not_found")]
    pub code: Cow<'static, str>,
    /// The fields that are to blame.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
    /// Sent as `Retry-After`, seconds.
    #[serde(skip)]
    #[schema(ignore)]
    pub retry_after_seconds: Option<u16>,
}

/// One field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// The path in the body, such as `items[0].quantity`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Problem {
    /// Any status.
    pub fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Self {
        let code = code.into();
        Self {
            kind: format!("urn:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            errors: Vec::new(),
            retry_after_seconds: None,
        }
    }

    /// 400: the request is malformed.
    pub fn bad_request(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 409: it does not fit the state that the thing is in.
    pub fn conflict(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 413: more than the limit.
    pub fn too_large(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, code, detail)
    }

    /// 422: well-formed, and refused.
    pub fn unprocessable(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 503: something that the service needs is down; asks to come back in a second.
    pub fn unavailable(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        Self { retry_after_seconds: Some(1), ..problem }
    }

    /// 500: `error` goes to the log, and not to the caller.
    pub fn internal(error: &dyn fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::hidden()
    }

    pub(crate) fn hidden() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The service failed. Its log has the reason, under this answer's correlation id.",
        )
    }

    /// Adds a field that is to blame.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.errors.push(FieldProblem { field: field.into(), message: message.into() });
        self
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::NotFound => Self::not_found("not_found", text),
            ErrorKind::Conflict => Self::conflict("conflict", text),
            ErrorKind::InFlight => {
                Self { retry_after_seconds: Some(1), ..Self::conflict("in_flight", text) }
            }
            ErrorKind::KeyReused => Self::unprocessable("idempotency_key_reused", text),
            ErrorKind::InvalidInput => Self::unprocessable("invalid_input", text),
            ErrorKind::LimitExceeded => Self::unavailable("overloaded", text),
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Closed => {
                tracing::warn!(error = text, "a dependency is down");
                Self::unavailable("unavailable", text)
            }
            ErrorKind::Unknown => {
                tracing::error!(error = text, "the outcome of a request is unknown");
                let detail = "It may or may not have taken effect: look before sending it again, \
                              or send it again with the same Idempotency-Key.";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", detail)
            }
            // With its causes, for the log.
            _ => Self::internal(&format_args!("{error:?}")),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
