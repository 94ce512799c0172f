//! Whether the service can do its work: it, and what it depends on.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::problem::Problem;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;
type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// How long one dependency may take to answer.
const LIMIT: Duration = Duration::from_secs(2);

/// A named look at something that the service depends on.
#[derive(Clone)]
pub struct HealthCheck {
    name: &'static str,
    check: Check,
}

impl HealthCheck {
    /// Looks at `name` with `check`, which has 2 s. Its error goes to the log only.
    pub fn new<F, Fut>(name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        Self { name, check: Arc::new(move || Box::pin(check())) }
    }

    async fn is_healthy(&self) -> bool {
        match tokio::time::timeout(LIMIT, (self.check)()).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(dependency = self.name, %error, "a dependency is down");
                false
            }
            Err(_) => {
                tracing::warn!(dependency = self.name, "a dependency does not answer");
                false
            }
        }
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck").field("name", &self.name).finish_non_exhaustive()
    }
}

/// 200 with the service's name and version, or 503 that names what is down.
pub(crate) async fn answer(service: &str, version: &str, checks: &[HealthCheck]) -> Response {
    let outcomes = futures::future::join_all(checks.iter().map(HealthCheck::is_healthy)).await;
    let down: Vec<_> =
        checks.iter().zip(outcomes).filter(|(_, ok)| !ok).map(|(check, _)| check.name).collect();
    if down.is_empty() {
        let body = json!({ "status": "healthy", "service": service, "version": version });
        return Json(body).into_response();
    }
    let detail = format!("{service} can't reach: {}.", down.join(", "));
    let problem = Problem::unavailable("unhealthy", detail);
    down.into_iter().fold(problem, |p, name| p.with_field(name, "does not answer")).into_response()
}
