//! The program over HTTP.

mod analytics;
mod commands;
mod events;
mod projections;
mod queries;
mod snapshots;
mod stream;
mod time_travel;

use std::time::Duration;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use examples_common::{Context, HealthCheck, IdempotencyKey, Kit, OnceAnswer, Problem, StartError};
use potter_core::{Begun, IdempotencyStore, Json};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::service::{Service, connect, problem};

/// How many things a list has at most.
const LIMIT_MAX: u32 = 500;
const LIMIT_DEFAULT: u32 = 50;

/// Connects, lets the read models follow, and answers requests.
///
/// # Errors
/// When a setting can't be used or a server can't be reached: the message names the variable.
pub async fn app(context: Context) -> Result<Router, StartError> {
    let database = connect(&context.settings.database_url).await?;
    let service = Service::open(database.clone(), context.shutdown.token()).await?;
    service.run_in(&context)?;
    let health = HealthCheck::new("database", move || {
        let database = database.clone();
        async move { Ok(database.ping().await?) }
    });
    let mut kit = Kit::new(&context).check(health);
    if let Some(health) = service.warehouse.health() {
        kit = kit.check(health);
    }
    let routes = OpenApiRouter::new()
        .routes(routes!(commands::list, commands::execute))
        .routes(routes!(commands::batch))
        .routes(routes!(commands::status))
        .routes(routes!(queries::query))
        .routes(routes!(events::list))
        .routes(routes!(stream::follow))
        .routes(routes!(events::of_aggregate))
        .routes(routes!(events::replay))
        .routes(routes!(projections::list))
        .routes(routes!(projections::get))
        .routes(routes!(projections::status))
        .routes(routes!(projections::rebuild))
        .routes(routes!(projections::reset))
        .routes(routes!(time_travel::restore))
        .routes(routes!(time_travel::timeline))
        .routes(routes!(time_travel::compare))
        .routes(routes!(time_travel::snapshots))
        .routes(routes!(time_travel::analytics))
        .routes(routes!(analytics::events))
        .routes(routes!(analytics::aggregates))
        .routes(routes!(analytics::performance))
        .routes(routes!(analytics::trends))
        .routes(routes!(snapshots::list))
        .routes(routes!(snapshots::create, snapshots::delete))
        .with_state(service);
    Ok(kit.router(routes))
}

/// The parameters of a query string; a mistake is a problem that says which.
struct Params<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        read.map(|axum::extract::Query(params)| Self(params)).map_err(|error: QueryRejection| {
            let text = error.body_text();
            let text = text.rsplit_once("query string: ").map_or(text.as_str(), |(_, why)| why);
            Problem::bad_request("invalid_parameter", format!("A parameter can't be used: {text}."))
        })
    }
}

/// The parameters of a path.
struct Path<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(path)| Self(path)).map_err(|error: PathRejection| {
            Problem::bad_request("invalid_path", format!("The path can't be used: {error}."))
        })
    }
}

fn limit(given: Option<u32>) -> Result<u32, Problem> {
    let limit = given.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    let detail = format!("limit is from 1 to {LIMIT_MAX}.");
    Err(Problem::unprocessable("invalid_limit", &*detail).with_field("limit", detail))
}

/// A position that the caller gave as text, such as a cursor.
fn position(name: &'static str, given: Option<&str>) -> Result<u64, Problem> {
    let Some(given) = given else { return Ok(0) };
    // Positions are signed in the databases.
    let position = given.parse().ok().filter(|position| *position <= i64::MAX as u64);
    position.ok_or_else(|| {
        let detail = format!("{name} is a position: a number that this service gave.");
        Problem::unprocessable("invalid_position", &*detail).with_field(name, detail)
    })
}

/// Does work that has transactions of its own, once for each key. A refusal frees the key after half
/// a minute.
///
/// # Errors
/// What the work refused with; 422 `idempotency_key_reused`; 409 while the same key is at work.
async fn once_beside(
    service: &Service,
    key: &IdempotencyKey,
    request: &(impl Serialize + Sync),
    work: impl Future<Output = Result<OnceAnswer, Problem>>,
) -> Result<OnceAnswer, Problem> {
    const IN_FLIGHT_MAX: Duration = Duration::from_secs(30);
    let Some(key) = &key.0 else { return work.await };
    let store = IdempotencyStore::new("cqrs-event-store.beside").in_flight_ttl(IN_FLIGHT_MAX);
    let hash = IdempotencyStore::request_hash(request)?;
    let mut tx = service.database.begin().await?;
    let ticket = match store.begin(&mut tx, key, &hash).await? {
        Begun::Done(answer) => return Ok(answer.get()?),
        Begun::New(ticket) => ticket,
        other => return Err(Problem::internal(&format_args!("a key that is {other:?}"))),
    };
    tx.commit().await?;
    let answer = work.await?;
    let mut tx = service.database.begin().await?;
    store.complete(&mut tx, ticket, Json::of(&answer)?).await?;
    tx.commit().await?;
    Ok(answer)
}

fn no_such_aggregate(id: &str) -> Problem {
    let detail = format!("Nothing happened to {id} yet: create it by a command.");
    Problem::not_found("aggregate_not_found", detail)
}

/// The last event that was recorded up to a time, by position.
async fn position_at(service: &Service, time: DateTime<Utc>) -> Result<u64, Problem> {
    service.events.position_at(time).await.map_err(|error| problem(&error))
}
