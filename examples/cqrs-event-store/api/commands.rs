//! The write side.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use examples_common::{IdempotencyKey, JsonBody, OnceAnswer, Problem, RequestContext, once};
use potter_core::{Database, Metadata, derived_id, new_id};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Path;
use crate::command::{COMMAND_TYPES, CommandRequest};
use crate::command_log::{self, CommandStatus};
use crate::service::{CommandDone, Service, Work, command_id};

const BATCH_MAX: usize = 100;
const BATCH_SCOPE: &str = "cqrs-event-store.batch";
const COMMAND_ID: HeaderName = HeaderName::from_static("x-command-id");

/// Commands to carry out, in this order.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchRequest {
    /// All of them or none. Otherwise each stands alone.
    #[serde(default)]
    atomic: bool,
    /// 1 to 100.
    commands: Vec<CommandRequest>,
}

/// What became of a batch.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct BatchDone {
    atomic: bool,
    completed: usize,
    rejected: usize,
    results: Vec<BatchResult>,
}

/// What became of one command of a batch.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct BatchResult {
    index: usize,
    command_id: String,
    /// `completed` or `rejected`.
    #[schema(example = "completed")]
    status: &'static str,
    /// What it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<CommandDone>)]
    result: Option<potter_core::Json>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

/// The commands that there are.
#[utoipa::path(get, path = "/api/v1/commands", tag = "commands", responses((status = 200, body = Value)))]
pub(super) async fn list() -> Json<Value> {
    Json(json!({ "commands": COMMAND_TYPES }))
}

/// Carries a command out.
///
/// Sent again with the same Idempotency-Key or the same command_id, it is answered as the first
/// time. The header X-Command-ID of the answer, also of a refusal, names it for
/// /commands/{id}/status.
#[utoipa::path(post, path = "/api/v1/commands", tag = "commands", request_body = CommandRequest,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = CommandDone), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn execute(
    State(service): State<Service>,
    context: RequestContext,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<CommandRequest>,
) -> Response {
    let (id, done) = service.execute(&request, &key, context.metadata()).await;
    let mut answer = done.into_response();
    if let Ok(id) = HeaderValue::from_str(&id)
        && !id.is_empty()
    {
        answer.headers_mut().insert(COMMAND_ID, id);
    }
    answer
}

/// What became of a command.
#[utoipa::path(get, path = "/api/v1/commands/{id}/status", tag = "commands", params(("id" = String, Path)),
    responses((status = 200, body = CommandStatus), (status = 404, body = Problem)))]
pub(super) async fn status(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<CommandStatus>, Problem> {
    command_log::find(&service.database, &id).await.map(Json)
}

/// Carries commands out, one after the other.
///
/// With `atomic`, in one transaction: all or none. Without, each stands alone and has its own
/// result; sent again with the same Idempotency-Key, those that were completed are not repeated.
#[utoipa::path(post, path = "/api/v1/commands/batch", tag = "commands", request_body = BatchRequest,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = BatchDone), (status = 422, body = Problem)))]
pub(super) async fn batch(
    State(service): State<Service>,
    context: RequestContext,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<BatchRequest>,
) -> Result<OnceAnswer, Problem> {
    if !(1..=BATCH_MAX).contains(&request.commands.len()) {
        let detail = format!("A batch has 1 to {BATCH_MAX} commands.");
        return Err(
            Problem::unprocessable("invalid_batch", &*detail).with_field("commands", detail)
        );
    }
    let named = named(&request, &key)?;
    if request.atomic {
        return all_or_none(&service, &key, &request, &named, context.metadata()).await;
    }
    remember(&service.database, &key, &request).await?;
    let mut results = Vec::with_capacity(named.len());
    for (index, command) in named.iter().enumerate() {
        let none = IdempotencyKey(None);
        let (id, done) = service.execute(command, &none, context.metadata()).await;
        results.push(result(index, id, done));
    }
    OnceAnswer::new(StatusCode::OK, &done(false, results))
}

/// The commands, each with an id: of its own, or one that follows from the key and its place, so
/// that it is known again.
fn named(request: &BatchRequest, key: &IdempotencyKey) -> Result<Vec<CommandRequest>, Problem> {
    let name = |(index, command): (usize, &CommandRequest)| {
        let mut command = command.clone();
        command.command_id = Some(match (&command.command_id, &key.0) {
            (Some(_), _) => command_id(&command, key)?,
            (None, Some(key)) => derived_id(&[BATCH_SCOPE, key, &index.to_string()]).to_string(),
            (None, None) => new_id().to_string(),
        });
        Ok(command)
    };
    request.commands.iter().enumerate().map(name).collect()
}

/// Refuses another batch under the same key.
async fn remember(
    database: &Database,
    key: &IdempotencyKey,
    request: &BatchRequest,
) -> Result<(), Problem> {
    if key.0.is_none() {
        return Ok(());
    }
    let seen = once(database, BATCH_SCOPE, key, request, |_| {
        Box::pin(async { OnceAnswer::new(StatusCode::OK, "seen") })
    });
    seen.await.map(|_| ())
}

async fn all_or_none(
    service: &Service,
    key: &IdempotencyKey,
    request: &BatchRequest,
    named: &[CommandRequest],
    metadata: Metadata,
) -> Result<OnceAnswer, Problem> {
    let work = named.iter().enumerate().map(|(index, command)| {
        let id = command.command_id.clone().unwrap_or_default();
        let work = Work::new(service, command, id, metadata.clone());
        work.map_err(|problem| refused(index, &problem))
    });
    let work: Arc<[Work]> = work.collect::<Result<_, Problem>>()?;
    once(&service.database, BATCH_SCOPE, key, request, |tx| {
        let work = Arc::clone(&work);
        Box::pin(async move {
            let mut results = Vec::with_capacity(work.len());
            for (index, one) in work.iter().enumerate() {
                let done = one.run_in(tx).await.map_err(|problem| match &*problem.code {
                    // The transaction is begun again.
                    "conflict" => problem,
                    _ if problem.status >= 500 => problem,
                    _ => refused(index, &problem),
                })?;
                results.push(result(index, one.command_id().to_owned(), Ok(done)));
            }
            OnceAnswer::new(StatusCode::OK, &done(true, results))
        })
    })
    .await
}

/// The refusal of a whole batch.
fn refused(index: usize, problem: &Problem) -> Problem {
    let detail = format!(
        "Nothing was done, because commands[{index}] was refused ({}): {}",
        problem.code, problem.detail
    );
    Problem::unprocessable("batch_rejected", detail)
        .with_field(format!("commands[{index}]"), &*problem.detail)
}

fn result(index: usize, command_id: String, done: Result<OnceAnswer, Problem>) -> BatchResult {
    match done {
        Ok(answer) => BatchResult {
            index,
            command_id,
            status: "completed",
            result: Some(answer.body().clone()),
            error: None,
        },
        Err(problem) => BatchResult {
            index,
            command_id,
            status: "rejected",
            result: None,
            error: Some(problem),
        },
    }
}

fn done(atomic: bool, results: Vec<BatchResult>) -> BatchDone {
    let completed = results.iter().filter(|one| one.error.is_none()).count();
    BatchDone { atomic, completed, rejected: results.len() - completed, results }
}
