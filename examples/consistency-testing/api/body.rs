//! A body that may be left out.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use examples_common::JsonBody;
use serde::de::DeserializeOwned;

/// JSON, or nothing: then what its type is by default.
pub(super) struct OptionalBody<T>(pub(super) T);

impl<S, T> FromRequest<S> for OptionalBody<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Default,
    JsonBody<T>: FromRequest<S>,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let whole = Request::from_parts(parts.clone(), body);
        let bytes = Bytes::from_request(whole, state).await.map_err(IntoResponse::into_response)?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(T::default()));
        }
        let json = HeaderValue::from_static("application/json");
        parts.headers.entry(header::CONTENT_TYPE).or_insert(json);
        let request = Request::from_parts(parts, Body::from(bytes));
        match JsonBody::from_request(request, state).await {
            Ok(JsonBody(body)) => Ok(Self(body)),
            Err(refused) => Err(refused.into_response()),
        }
    }
}
