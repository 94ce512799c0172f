//! Requests that do their work once for each `Idempotency-Key`.

use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use potter_core::{Backoff, Begun, Database, IdempotencyStore, Json, Tx, jitter};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// The longest idempotency key, bytes.
const KEY_BYTES_MAX: usize = 255;

/// The request's `Idempotency-Key`, if it has one: an extractor. A malformed one is a 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        let key = value.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
        key.map(|key| Self(Some(key.to_owned()))).ok_or_else(|| {
            let detail =
                format!("An Idempotency-Key has 1 to {KEY_BYTES_MAX} visible ASCII characters.");
            Problem::bad_request("invalid_idempotency_key", detail)
        })
    }
}

/// An answer that can be given again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OnceAnswer {
    status: u16,
    body: Json,
}

impl OnceAnswer {
    /// An answer.
    ///
    /// # Errors
    /// When the body can't be JSON.
    pub fn new<T: Serialize + ?Sized>(status: StatusCode, body: &T) -> Result<Self, Problem> {
        Ok(Self { status: status.as_u16(), body: Json::of(body)? })
    }

    /// Its body.
    pub fn body(&self) -> &Json {
        &self.body
    }
}

impl IntoResponse for OnceAnswer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        (status, axum::Json(self.body)).into_response()
    }
}

/// How long a request goes on after conflicts with others before it answers 409.
const CONFLICTS_FOR: Duration = Duration::from_secs(10);

/// Does `work` in one transaction, once for each key of `scope`: the same key and request again
/// get the first answer, another request with it is refused with 422. A refusal (an `Err`) is
/// rolled back and leaves no trace. A transaction that met a conflict is begun again, for as long as
/// ten seconds.
///
/// # Errors
/// What `work` refused with; 422 `idempotency_key_reused`; 409 while the same key is at work.
pub async fn once<W>(
    database: &Database,
    scope: &'static str,
    key: &IdempotencyKey,
    request: &(impl Serialize + Sync),
    work: W,
) -> Result<OnceAnswer, Problem>
where
    W: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<OnceAnswer, Problem>> + Sync,
{
    // Many who change one aggregate at once each get their turn: one in every round wins.
    let retry = Backoff::exponential(Duration::from_millis(5))
        .cap(Duration::from_millis(100))
        .unlimited()
        .deadline(CONFLICTS_FOR);
    let (mut failed, began) = (0, Instant::now());
    loop {
        let done = attempt(database, scope, key, request, &work).await;
        let again = done.as_ref().is_err_and(|problem| problem.code == "conflict");
        failed += 1;
        match retry.delay(failed, began.elapsed(), jitter()) {
            Some(wait) if again => tokio::time::sleep(wait).await,
            _ => return done,
        }
    }
}

async fn attempt<W>(
    database: &Database,
    scope: &'static str,
    key: &IdempotencyKey,
    request: &(impl Serialize + Sync),
    work: &W,
) -> Result<OnceAnswer, Problem>
where
    W: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<OnceAnswer, Problem>> + Sync,
{
    let mut tx = database.begin().await?;
    let Some(key) = &key.0 else {
        let answer = work(&mut tx).await?;
        tx.commit().await?;
        return Ok(answer);
    };
    let store = IdempotencyStore::new(scope);
    let hash = IdempotencyStore::request_hash(request)?;
    match store.begin(&mut tx, key, &hash).await? {
        Begun::Done(answer) => Ok(answer.get()?),
        Begun::New(ticket) => {
            let answer = work(&mut tx).await?;
            store.complete(&mut tx, ticket, Json::of(&answer)?).await?;
            tx.commit().await?;
            Ok(answer)
        }
        _ => Err(Problem::internal(&"the key is in a state that this build does not know")),
    }
}
