//! A JSON body, or a problem that says what is wrong with it and where.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use crate::problem::Problem;

/// The largest body that [`JsonBody`] takes, bytes (default 1 MiB); as a request extension it
/// changes the limit: `router.layer(Extension(BodyLimit(64 * 1024)))`.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit(pub usize);

impl Default for BodyLimit {
    fn default() -> Self {
        Self(1024 * 1024)
    }
}

/// How much of a body that is too large is read and thrown away, so that a client which sends
/// first and listens then gets the answer and not a broken connection.
const DISCARD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The body as a `T`.
///
/// JSON by its content type; or, as `curl -d` sends it, as a form or as nothing. Not so from a page in a
/// browser: a form is what a page of any other site may send without being asked, so that a stranger's
/// page could give orders to a service on this machine.
///
/// Refuses with 415 (no JSON by its content type), 413 (larger than [`BodyLimit`]), 400
/// (malformed, with line and column) and 422 (JSON of another shape, with the field's path;
/// unknown fields too when `T` has `#[serde(deny_unknown_fields)]`).
#[derive(Clone, Copy, Debug)]
pub struct JsonBody<T>(pub T);

impl<T, S> FromRequest<S> for JsonBody<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let limit = request.extensions().get::<BodyLimit>().copied().unwrap_or_default();
        let is_json = may_be_json(request.headers());
        let body = read(request.into_body(), limit.0).await?;
        if !is_json {
            let detail = "The body must be JSON: send the header Content-Type: application/json.";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::new(status, "unsupported_media_type", detail));
        }
        parse(&body).map(Self)
    }
}

fn may_be_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return !is_of_a_page(headers);
    };
    let mime = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let mime = mime.trim().to_ascii_lowercase();
    match mime.as_str() {
        "application/json" => true,
        "application/x-www-form-urlencoded" => !is_of_a_page(headers),
        mime => mime.starts_with("application/") && mime.ends_with("+json"),
    }
}

/// Browsers say where a request that changes something comes from.
fn is_of_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

async fn read(body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let (mut chunks, mut bytes, mut seen) = (body.into_data_stream(), Vec::new(), 0usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            Problem::bad_request("incomplete_body", "The body ended before it was complete.")
        })?;
        seen = seen.saturating_add(chunk.len());
        if seen <= limit {
            bytes.extend_from_slice(&chunk);
        } else if seen > limit.saturating_add(DISCARD_BYTES_MAX) {
            break;
        }
    }
    if seen > limit {
        let detail = format!("The body is larger than {limit} bytes.");
        return Err(Problem::too_large("body_too_large", detail));
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::bad_request("malformed_json", "The body is empty: send JSON."));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize(&mut json) {
        Ok(value) => json.end().map(|()| value).map_err(|error| malformed(&error)),
        Err(error) if error.inner().classify() == Category::Data => {
            // The shape was wrong before the end was reached: what follows may be no JSON at all.
            match serde_json::from_slice::<IgnoredAny>(body) {
                Ok(_) => Err(wrong_shape(&error)),
                Err(error) => Err(malformed(&error)),
            }
        }
        Err(error) => Err(malformed(error.inner())),
    }
}

fn malformed(error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    let what = message_of(error);
    Problem::bad_request(
        "malformed_json",
        format!("The body is not valid JSON: {what} at line {line}, column {column}."),
    )
}

fn wrong_shape(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let message = message_of(error.inner());
    let path = error.path().to_string();
    let mut field = if path == "." { String::new() } else { path };
    // The path ends at the object that lacks the field, or has one too many.
    let named = ["missing field `", "unknown field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    if let Some(name) = named
        && field.rsplit('.').next() != Some(name)
    {
        field = if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    }
    let place = if field.is_empty() { "The body".to_owned() } else { format!("Field {field}") };
    let problem = Problem::unprocessable("invalid_body", format!("{place}: {message}."));
    if field.is_empty() { problem } else { problem.with_field(field, message) }
}

/// What serde_json says, without the place that it adds at the end.
fn message_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        #[serde(rename = "items")]
        _items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        #[serde(rename = "sku")]
        _sku: String,
        #[serde(rename = "quantity")]
        _quantity: u32,
    }

    #[test]
    fn the_place_of_a_mistake_is_named() {
        for (body, status, field) in [
            (r#"{"items":[{"sku":"a","quantity":1}]}"#, 200, ""),
            (r#"{"items":[{"sku":"a","quantity":-1}]}"#, 422, "items[0].quantity"),
            (r#"{"items":[{"sku":"a"}]}"#, 422, "items[0].quantity"),
            (r#"{"items":[{"sku":"a","quantity":1,"x":2}]}"#, 422, "items[0].x"),
            (r"{}", 422, "items"),
            (r#"{"item":[]}"#, 422, "item"),
            (r#"{"items":3"#, 400, ""),
            (r#"{"items":[]} x"#, 400, ""),
            (" ", 400, ""),
            ("3", 422, ""),
        ] {
            match parse::<Order>(body.as_bytes()) {
                Ok(_) => assert_eq!(status, 200, "{body}"),
                Err(problem) => {
                    assert_eq!(problem.status, status, "{body}: {problem}");
                    let named = problem.errors.first().map_or("", |error| error.field.as_str());
                    assert_eq!(named, field, "{body}: {problem}");
                }
            }
        }
        let problem = parse::<Order>(b"{\n \"items\": oops}").unwrap_err();
        assert!(problem.detail.ends_with("at line 2, column 11."), "{problem}");
    }
}
