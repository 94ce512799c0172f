//! Where questions about the whole history are answered: the log itself, or its mirror in
//! ClickHouse.

#[cfg_attr(feature = "clickhouse", path = "warehouse/mirror.rs")]
#[cfg_attr(not(feature = "clickhouse"), path = "warehouse/none.rs")]
mod mirror;

use std::sync::Arc;

use examples_common::{Context, HealthCheck, Problem, StartError, env_text};
use potter_core::Database;
use potter_eventsourcing::{EventAnalytics, EventStore, event_analytics};
use serde_json::Value;

use mirror::Mirror;

/// What answers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Warehouse {
    log: Arc<dyn EventAnalytics>,
    mirror: Option<Mirror>,
}

impl Warehouse {
    /// The log, and ClickHouse if `CLICKHOUSE_URL` is set.
    ///
    /// # Errors
    /// When it is set and can't be used: the message names it.
    pub(crate) async fn connect(
        database: &Database,
        events: &Arc<dyn EventStore>,
    ) -> Result<Self, StartError> {
        let log = Arc::new(event_analytics(database)?);
        let mirror = match env_text(&["CLICKHOUSE_URL"]) {
            Some((variable, url)) => Some(Mirror::connect(variable, &url, events).await?),
            None => None,
        };
        Ok(Self { log, mirror })
    }

    /// Mirrors the log until the program is to stop.
    pub(crate) fn run_in(&self, context: &Context) {
        if let Some(mirror) = &self.mirror {
            mirror.run_in(context);
        }
    }

    /// Does ClickHouse answer, if it is to?
    pub(crate) fn health(&self) -> Option<HealthCheck> {
        self.mirror.as_ref().map(Mirror::health)
    }

    /// How the mirror is, if there is one.
    ///
    /// # Errors
    /// `Unavailable` when the log's database is.
    pub(crate) async fn mirror(&self) -> potter_eventsourcing::Result<Option<Value>> {
        match &self.mirror {
            Some(mirror) => mirror.status().await.map(Some),
            None => Ok(None),
        }
    }

    /// What answers: `log`, `clickhouse`, or, without a wish, ClickHouse if it is there.
    ///
    /// # Errors
    /// 422 `invalid_source`.
    pub(crate) fn analytics(
        &self,
        source: Option<&str>,
    ) -> Result<&Arc<dyn EventAnalytics>, Problem> {
        let mirror = self.mirror.as_ref().map(Mirror::analytics);
        match (source, mirror) {
            (None | Some("clickhouse"), Some(mirror)) => Ok(mirror),
            (None | Some("log"), _) => Ok(&self.log),
            _ => {
                let detail = "source is log or, where CLICKHOUSE_URL is set, clickhouse.";
                Err(Problem::unprocessable("invalid_source", detail).with_field("source", detail))
            }
        }
    }
}
