//! What every service answers beside its own routes.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, middleware};
use potter_core::telemetry::MetricsHandle;
use utoipa_axum::router::OpenApiRouter;

use crate::extract::BodyLimit;
use crate::health::{self, HealthCheck};
use crate::problem::Problem;
use crate::serve::Context;
use crate::{docs, request};

/// Adds `/health`, `/metrics`, `/openapi.json`, `/docs`, the problem answers and the request
/// middleware to a service's routes.
#[derive(Clone, Debug)]
#[must_use]
pub struct Kit {
    service: &'static str,
    version: &'static str,
    checks: Vec<HealthCheck>,
    metrics: MetricsHandle,
}

impl Kit {
    /// For the program that `context` is of.
    pub fn new(context: &Context) -> Self {
        Self {
            service: context.program.service,
            version: context.program.version,
            checks: Vec::new(),
            metrics: context.metrics.clone(),
        }
    }

    /// Adds a dependency to what `/health` looks at.
    pub fn check(mut self, check: HealthCheck) -> Self {
        self.checks.push(check);
        self
    }

    /// The whole service.
    pub fn router(self, routes: impl Into<OpenApiRouter>) -> Router {
        let (routes, mut document) = routes.into().split_for_parts();
        self.service.clone_into(&mut document.info.title);
        self.version.clone_into(&mut document.info.version);
        let (service, version, metrics) = (self.service, self.version, self.metrics);
        let checks: Arc<[HealthCheck]> = self.checks.into();
        routes
            .merge(docs::routes(document))
            .route(
                "/health",
                get(move || {
                    let checks = Arc::clone(&checks);
                    async move { health::answer(service, version, &checks).await }
                }),
            )
            .route("/metrics", get(move || async move { metrics_text(&metrics) }))
            .fallback(no_such_route)
            .layer(DefaultBodyLimit::max(BodyLimit::default().0))
            .layer(middleware::from_fn(request::observe))
    }
}

fn metrics_text(metrics: &MetricsHandle) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

async fn no_such_route(uri: axum::http::Uri) -> Problem {
    let detail = format!("There is nothing at {}; GET /docs lists what there is.", uri.path());
    Problem::not_found("no_such_route", detail)
}
