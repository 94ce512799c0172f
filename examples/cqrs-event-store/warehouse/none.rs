//! A build without ClickHouse.

use std::sync::Arc;

use examples_common::{Context, HealthCheck, StartError};
use potter_core::{Error, ErrorKind};
use potter_eventsourcing::{EventAnalytics, EventStore};
use serde_json::Value;

/// There is none.
#[derive(Clone, Debug)]
pub(super) enum Mirror {}

impl Mirror {
    /// Always fails: set, and left out, would be ignored silently.
    #[expect(clippy::unused_async, reason = "the other build waits here")]
    pub(super) async fn connect(
        variable: &str,
        _url: &str,
        _events: &Arc<dyn EventStore>,
    ) -> Result<Self, StartError> {
        let message = format!(
            "{variable} is set, and this build has no ClickHouse: run it with --features clickhouse"
        );
        Err(Error::new(ErrorKind::Config, message).into())
    }

    pub(super) fn run_in(&self, _context: &Context) {
        match *self {}
    }

    pub(super) fn health(&self) -> HealthCheck {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "the other build waits here")]
    pub(super) async fn status(&self) -> potter_eventsourcing::Result<Value> {
        match *self {}
    }

    pub(super) fn analytics(&self) -> &Arc<dyn EventAnalytics> {
        match *self {}
    }
}
