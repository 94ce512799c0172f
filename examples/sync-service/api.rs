//! The program over HTTP.

mod conflicts;
mod crdt;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use examples_common::{Context, HealthCheck, Kit, Problem, StartError, env_parsed, env_text};
use potter_core::{Database, Error, SystemClock};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::companion::Companion;
use crate::service::{Options, SyncService};
use crate::store::Store;
use crate::store::sql::SqlStore;
use crate::upkeep;

/// Connects and answers requests.
///
/// # Errors
/// When a setting can't be used or the database can't be reached: the message names the variable.
pub async fn app(context: Context) -> Result<Router, StartError> {
    let options = options(&context)?;
    let every: u64 = env_parsed(&["SYNC_UPKEEP_SECONDS"], 60)?;
    let store = open(&context.settings.database_url).await?;
    let companion = companion(&context, &store).await?;
    let clock = Arc::new(SystemClock);
    let service = SyncService::open_beside(Arc::clone(&store), companion, clock, options).await?;
    let stop = context.shutdown.token();
    let every = Duration::from_secs(every.max(1));
    context.background.spawn(upkeep::run(service.clone(), every, stop.clone()));
    let waits = service.clone();
    context.background.spawn(async move {
        stop.cancelled().await;
        waits.end_waits();
    });
    let health = HealthCheck::new("database", move || {
        let store = Arc::clone(&store);
        async move { Ok(store.ping().await?) }
    });
    Ok(Kit::new(&context).check(health).router(router(service)))
}

fn router(service: SyncService) -> OpenApiRouter {
    let routes = OpenApiRouter::new()
        .routes(routes!(sync::register))
        .routes(routes!(sync::upload))
        .routes(routes!(sync::download))
        .routes(routes!(sync::status))
        .routes(routes!(sync::vector_clock))
        .routes(routes!(sync::increment))
        .routes(routes!(crdt::merge))
        .routes(routes!(crdt::state))
        .routes(routes!(conflicts::list))
        .routes(routes!(conflicts::get))
        .routes(routes!(conflicts::resolve))
        .routes(routes!(conflicts::auto_resolve))
        .with_state(service);
    OpenApiRouter::new().nest("/api/v1", routes)
}

fn options(context: &Context) -> Result<Options, StartError> {
    let host = context.settings.host.trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let tokens_required = match env_text(&["SYNC_TOKENS"]) {
        None => !loopback,
        Some((_, word)) if word == "required" => true,
        Some((_, word)) if word == "optional" => false,
        Some((name, word)) => {
            return Err(format!("{name}={word} can't be used: required or optional").into());
        }
    };
    if !tokens_required {
        tracing::info!("tokens are optional: whoever reaches this address may ask as any device");
    }
    let days: u64 = env_parsed(&["SYNC_RETIRE_DAYS"], 90)?;
    let retire_after = Duration::from_secs(days.clamp(1, 36_500) * 24 * 3600);
    let mut options = Options { tokens_required, retire_after, ..Options::default() };
    let look: u64 = env_parsed(&["SYNC_LOOK_MS"], 0)?;
    if look > 0 {
        (options.look_every, options.look_every_told) =
            (Duration::from_millis(look), Duration::from_millis(look));
    }
    Ok(options)
}

/// Redis, if it is set.
///
/// # Errors
/// When it can't be reached: the message names the variable, and not the password.
async fn companion(
    context: &Context,
    store: &Arc<dyn Store>,
) -> Result<Option<Arc<dyn Companion>>, StartError> {
    match env_text(&["REDIS_URL", "REDIS_ADDR"]) {
        Some((name, url)) => connect_redis(context, store, name, &url).await.map(Some),
        None => Ok(None),
    }
}

#[cfg(feature = "redis")]
async fn connect_redis(
    context: &Context,
    store: &Arc<dyn Store>,
    name: &str,
    url: &str,
) -> Result<Arc<dyn Companion>, StartError> {
    let secret = store.secret().await?;
    let (redis, link) = crate::redis::Redis::connect(url, &secret).await.map_err(|error| {
        Error::with_source(error.kind(), format!("{name} can't be used: {error}"), error)
    })?;
    context.background.spawn(link.run(context.shutdown.token()));
    tracing::info!("Redis is the cache, and tells other processes; nothing is kept in it");
    Ok(redis)
}

#[cfg(not(feature = "redis"))]
async fn connect_redis(
    _context: &Context,
    _store: &Arc<dyn Store>,
    name: &str,
    _url: &str,
) -> Result<Arc<dyn Companion>, StartError> {
    std::future::ready(()).await;
    let how = "cargo run -p example-sync-service --features redis --example sync-service";
    Err(format!("{name} is set, and this build has no Redis: {how}").into())
}

/// The store that the environment names: MongoDB if `MONGO_URL` is set, else the database at `url`.
///
/// # Errors
/// When it can't be reached: the message names the variable.
pub(crate) async fn open(url: &str) -> Result<Arc<dyn Store>, StartError> {
    let sql = env_text(&["DATABASE_URL", "POSTGRES_URL"]);
    match (env_text(&["MONGO_URL", "MONGODB_URI"]), &sql) {
        (Some((mongo, _)), Some((sql, _))) => {
            return Err(format!("{mongo} and {sql} are both set: the store is one of them").into());
        }
        (Some((name, url)), None) => return open_mongo(name, &url).await,
        (None, _) => {}
    }
    let database = Database::connect(url).await.map_err(|error| {
        let variable = sql.map_or("DATABASE_URL", |(name, _)| name);
        Error::with_source(error.kind(), format!("{variable} can't be used: {error}"), error)
    })?;
    Ok(Arc::new(SqlStore::open(database).await?))
}

#[cfg(feature = "mongodb")]
async fn open_mongo(name: &str, url: &str) -> Result<Arc<dyn Store>, StartError> {
    let store = crate::store::mongodb::MongoStore::open(url).await.map_err(|error| {
        Error::with_source(error.kind(), format!("{name} can't be used: {error}"), error)
    })?;
    tracing::info!("everything is kept in MongoDB");
    Ok(Arc::new(store))
}

#[cfg(not(feature = "mongodb"))]
async fn open_mongo(name: &str, _url: &str) -> Result<Arc<dyn Store>, StartError> {
    std::future::ready(()).await;
    let how = "cargo run -p example-sync-service --features mongodb --example sync-service";
    Err(format!("{name} is set, and this build has no MongoDB: {how}").into())
}

/// The token that came with a request, if one did.
struct Token(Option<String>);

impl<S: Sync> FromRequestParts<S> for Token {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(AUTHORIZATION) else { return Ok(Self(None)) };
        let token = value.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        token.map(|token| Self(Some(token))).ok_or_else(|| {
            let detail = "The header Authorization must be: Bearer and the device's token.";
            Problem::new(StatusCode::UNAUTHORIZED, "invalid_token", detail)
        })
    }
}

/// JSON that was written before.
struct Ready(StatusCode, String);

impl IntoResponse for Ready {
    fn into_response(self) -> Response {
        (self.0, [(header::CONTENT_TYPE, "application/json")], self.1).into_response()
    }
}

/// A JSON body, or the default if there is none.
struct MaybeJson<T>(T);

impl<T, S> axum::extract::FromRequest<S> for MaybeJson<T>
where
    T: serde::de::DeserializeOwned + Default,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Problem> {
        let length = request.headers().get(header::CONTENT_LENGTH);
        let empty = length.is_none_or(|length| length.as_bytes() == b"0")
            && !request.headers().contains_key(header::TRANSFER_ENCODING);
        if empty {
            return Ok(Self(T::default()));
        }
        let body = examples_common::JsonBody::<T>::from_request(request, state).await?;
        Ok(Self(body.0))
    }
}
