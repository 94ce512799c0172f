//! The mirror of the log in ClickHouse.

use std::sync::Arc;

use examples_common::{Context, HealthCheck, StartError};
use potter_core::Error;
use potter_eventsourcing::{
    ClickHouse, ClickHouseMirror, EventAnalytics, EventFilter, EventStore, MirrorHandle,
};
use serde_json::{Value, json};

/// The mirror. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    clickhouse: ClickHouse,
    events: Events,
    analytics: Arc<dyn EventAnalytics>,
    handle: MirrorHandle,
}

#[derive(Clone)]
struct Events(Arc<dyn EventStore>);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventStore")
    }
}

impl Mirror {
    /// Connects, and makes the tables if they are not there.
    pub(super) async fn connect(
        variable: &str,
        url: &str,
        events: &Arc<dyn EventStore>,
    ) -> Result<Self, StartError> {
        let url = by_http(url);
        let refused = |error: potter_eventsourcing::Error| {
            let message = format!("{variable} can't be used: {error}");
            Error::with_source(potter_core::ErrorKind::Config, message, error)
        };
        let clickhouse = ClickHouse::connect(&url).await.map_err(refused)?;
        clickhouse.migrate().await.map_err(refused)?;
        Ok(Self {
            analytics: Arc::new(clickhouse.analytics()),
            events: Events(Arc::clone(events)),
            clickhouse,
            handle: MirrorHandle::default(),
        })
    }

    pub(super) fn run_in(&self, context: &Context) {
        let mirror = ClickHouseMirror::new(Arc::clone(&self.events.0), self.clickhouse.clone());
        let mirror = mirror.observed_by(self.handle.clone());
        let stop = context.shutdown.token();
        let url = self.clickhouse.url_shown();
        tracing::info!(url, "the log is mirrored into ClickHouse");
        context.background.spawn(mirror.run(stop.cancelled_owned()));
    }

    pub(super) fn health(&self) -> HealthCheck {
        let clickhouse = self.clickhouse.clone();
        HealthCheck::new("clickhouse", move || {
            let clickhouse = clickhouse.clone();
            async move { Ok(clickhouse.ping().await?) }
        })
    }

    /// How far it is, and how many events of the log it lacks.
    pub(super) async fn status(&self) -> potter_eventsourcing::Result<Value> {
        let status = self.handle.status();
        let (events, after) = (&self.events.0, status.position.unwrap_or(0));
        let head = events.head_position().await?;
        let lag = events.count(after, head, &EventFilter::all()).await?;
        let url = self.clickhouse.url_shown();
        Ok(json!({ "url": url, "status": status, "head": head, "lag_events": lag }))
    }

    pub(super) fn analytics(&self) -> &Arc<dyn EventAnalytics> {
        &self.analytics
    }
}

/// `tcp://host:9000/database`, the native protocol at its usual port, as the HTTP interface of the
/// same server at its usual port.
fn by_http(url: &str) -> String {
    let Some(rest) = url.strip_prefix("tcp://") else { return url.to_owned() };
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    match place.strip_suffix(":9000") {
        Some(host) => format!("http://{host}:8123/{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::by_http;

    #[test]
    fn the_native_port_becomes_the_http_port() {
        for (given, taken) in [
            ("tcp://localhost:9000/default", "http://localhost:8123/default"),
            ("tcp://me:pw@ch:9000", "http://me:pw@ch:8123/"),
            ("tcp://ch:9440/x", "tcp://ch:9440/x"),
            ("https://ch:8443/x", "https://ch:8443/x"),
        ] {
            assert_eq!(by_http(given), taken);
        }
    }
}
