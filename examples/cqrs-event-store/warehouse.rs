//! Where questions about the whole history are answered: the log itself, or its mirror in
//! ClickHouse.

use std::sync::Arc;

use examples_common::{Context, HealthCheck, Problem, StartError, env_text};
use potter_core::{Database, Error, ErrorKind};
use potter_eventsourcing::{EventAnalytics, EventStore, event_analytics};

/// What answers.
#[derive(Clone)]
pub(crate) struct Warehouse {
    log: Arc<dyn EventAnalytics>,
}

impl Warehouse {
    /// The log, and ClickHouse if `CLICKHOUSE_URL` is set.
    ///
    /// # Errors
    /// When it is set and can't be used.
    pub(crate) async fn connect(
        database: &Database,
        _events: &Arc<dyn EventStore>,
    ) -> Result<Self, StartError> {
        let log = Arc::new(event_analytics(database)?);
        if let Some((name, _)) = env_text(&["CLICKHOUSE_URL"]) {
            let message = format!(
                "{name} is set, and this build has no ClickHouse: run it with --features clickhouse"
            );
            return Err(Error::new(ErrorKind::Config, message).into());
        }
        Ok(Self { log })
    }

    pub(crate) fn run_in(&self, _context: &Context) {}

    pub(crate) fn health(&self) -> Option<HealthCheck> {
        None
    }

    /// How the mirror in ClickHouse is, if there is one.
    pub(crate) async fn mirror(&self) -> Option<serde_json::Value> {
        None
    }

    /// What answers: `log`, `clickhouse`, or the best there is.
    ///
    /// # Errors
    /// 422 when it is not there.
    pub(crate) fn analytics(
        &self,
        source: Option<&str>,
    ) -> Result<&Arc<dyn EventAnalytics>, Problem> {
        match source {
            None | Some("log") => Ok(&self.log),
            Some(_) => {
                let detail = "source is log here; clickhouse needs CLICKHOUSE_URL.";
                Err(Problem::unprocessable("invalid_source", detail).with_field("source", detail))
            }
        }
    }
}
