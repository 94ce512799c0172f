//! The program over HTTP.

mod orders;
mod request;
mod sagas;
mod stock;
mod view;

use axum::Router;
use axum::http::HeaderMap;
use examples_common::{Context, HealthCheck, Kit, Problem, StartError};
use potter_saga::ErrorKind;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::service::{Service, connect};
use crate::switches::Switches;

/// The longest idempotency key, bytes.
const KEY_BYTES_MAX: usize = 255;

/// Connects, starts to run sagas, and answers requests.
///
/// # Errors
/// When a setting can't be used or the database can't be reached: the message names the variable.
pub async fn app(context: Context) -> Result<Router, StartError> {
    let switches = Switches::from_env()?;
    let database = connect(&context.settings.database_url, switches.lease).await?;
    let service = Service::open(database.clone(), switches).await?;
    service.run_in(&context).await?;
    let health = HealthCheck::new("database", move || {
        let database = database.clone();
        async move { Ok(database.ping().await?) }
    });
    let routes = OpenApiRouter::new()
        .routes(routes!(orders::place))
        .routes(routes!(orders::get))
        .routes(routes!(sagas::list))
        .routes(routes!(sagas::get))
        .routes(routes!(sagas::history))
        .routes(routes!(sagas::cancel))
        .routes(routes!(sagas::resume))
        .routes(routes!(stock::list))
        .routes(routes!(stock::get))
        .with_state(service);
    Ok(Kit::new(&context).check(health).router(routes))
}

/// What an error of the sagas means for the one who asked.
fn problem(error: &potter_saga::Error) -> Problem {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::NotFound => Problem::not_found("saga_not_found", text),
        ErrorKind::InvalidState => Problem::conflict("invalid_state", text),
        ErrorKind::InvalidInput => Problem::unprocessable("invalid_input", text),
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Conflict => {
            tracing::warn!(error = text, "a dependency is down");
            Problem::unavailable("unavailable", "The database does not answer: try again.")
        }
        ErrorKind::Unknown => potter_core::Error::new(potter_core::ErrorKind::Unknown, text).into(),
        _ => Problem::internal(&format_args!("{error:?}")),
    }
}

/// The request's `Idempotency-Key`, if it has one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
    key.map(Some).ok_or_else(|| {
        let detail =
            format!("An Idempotency-Key has 1 to {KEY_BYTES_MAX} visible ASCII characters.");
        Problem::bad_request("invalid_idempotency_key", detail)
    })
}
