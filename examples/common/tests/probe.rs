//! A service with a route for each thing that the kit promises.

use std::process::ExitCode;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query};
use axum::routing::get;
use examples_common::{
    HealthCheck, JsonBody, Kit, Problem, Program, RequestContext, env_parsed, run,
};
use potter_core::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Order {
    customer: String,
    items: Vec<Item>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Item {
    sku: String,
    quantity: u32,
}

#[derive(Deserialize)]
struct Page {
    limit: u32,
}

/// Takes an order and gives it back.
#[utoipa::path(post, path = "/orders", request_body = Order,
    responses((status = 200, body = Order), (status = 422, body = Problem)))]
async fn echo(context: RequestContext, JsonBody(order): JsonBody<Order>) -> Json<Order> {
    tracing::info!(tenant = context.metadata().tenant, "an order came");
    Json(order)
}

async fn fail() -> Problem {
    Error::new(ErrorKind::Corrupt, "SELECT secret FROM orders gave nonsense").into()
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(800)).await;
    "done"
}

async fn hang() -> &'static str {
    std::future::pending().await
}

async fn panics() -> &'static str {
    panic!("the handler's secret")
}

fn main() -> ExitCode {
    let program = Program { service: "kit-probe", version: "1.2.3", port: 0 };
    run(program, |context| async move {
        let is_down = env_parsed(&["PROBE_DOWN"], false)?;
        let routes = OpenApiRouter::new()
            .routes(routes!(echo))
            .route("/items/{id}", get(|Path(id): Path<u32>| async move { id.to_string() }))
            .route("/items", get(|Query(page): Query<Page>| async move { page.limit.to_string() }))
            .route("/fail", get(fail))
            .route("/slow", get(slow))
            .route("/hang", get(hang))
            .route("/panic", get(panics));
        let fine = HealthCheck::new("cache", || async { Ok(()) });
        let database = HealthCheck::new("database", move || async move {
            if is_down { Err("password=secret refused".into()) } else { Ok(()) }
        });
        Ok(Kit::new(&context).check(fine).check(database).router(routes))
    })
}
