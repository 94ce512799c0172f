//! Logs, metrics, traces and a graceful stop, for programs: one call at the top of `main`.
//!
//! | variable | meaning |
//! |---|---|
//! | `LOG_LEVEL` | `off`, `error`, `warn`, `info` (default), `debug`, `trace`, or a list of directives such as `info,sqlx=warn` |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` (alias `JAEGER_ENDPOINT`) | where spans go, as OTLP by HTTP with protobuf: `http://localhost:4318`. Needs the feature `otlp` |
//!
//! Logs are JSON lines on stdout, or the human format when stdout is a terminal.

mod env;
#[cfg(feature = "otlp")]
mod otlp;
mod shutdown;

use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
#[cfg(feature = "otlp")]
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt as log};

use self::env::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::trace_context::TraceContext;

pub use shutdown::Shutdown;

/// The telemetry of a running program. Keep it until the end: dropping it sends the last spans.
///
/// ```no_run
/// # fn main() -> potter_core::Result<()> {
/// let telemetry = potter_core::telemetry::Telemetry::builder("orders").init()?;
/// tracing::info!("started");
/// let text = telemetry.metrics().render();
/// # Ok(()) }
/// ```
#[must_use = "dropping it ends the export of spans"]
pub struct Telemetry {
    metrics: MetricsHandle,
    #[cfg(feature = "otlp")]
    exporter: Option<otlp::Exporter>,
}

impl Telemetry {
    /// For the program `service`.
    pub fn builder(service: impl Into<String>) -> TelemetryBuilder {
        TelemetryBuilder { service: service.into(), level: "info".to_owned() }
    }

    /// What has been measured so far.
    pub fn metrics(&self) -> MetricsHandle {
        self.metrics.clone()
    }

    /// Sends the spans that wait; blocks until they are sent, or 5 s at most.
    pub fn flush(&self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = &self.exporter {
            exporter.flush();
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// Sets up [`Telemetry`].
#[derive(Clone, Debug)]
#[must_use]
pub struct TelemetryBuilder {
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only spans carry it"))]
    service: String,
    level: String,
}

impl TelemetryBuilder {
    /// The level when `LOG_LEVEL` is not set (default `info`).
    pub fn default_level(mut self, level: impl Into<String>) -> Self {
        self.level = level.into();
        self
    }

    /// Starts logs, metrics and (when asked for) traces for the whole process.
    ///
    /// # Errors
    /// `Config` when a variable is malformed, asks for a feature that is not built in, or when it
    /// was called before; `Unavailable` when the endpoint for spans does not answer. The message
    /// names the variable.
    pub fn init(self) -> Result<Telemetry> {
        let plan = Plan::from_env(&self.level, |name| std::env::var(name).ok())?;
        #[cfg(feature = "otlp")]
        let exporter = match &plan.otlp {
            Some(endpoint) => Some(otlp::Exporter::connect(&self.service, endpoint)?),
            None => None,
        };
        let filter = EnvFilter::try_new(&plan.filter).map_err(|source| {
            let message = format!("LOG_LEVEL={} can't be read: {source}", plan.filter);
            Error::with_source(ErrorKind::Config, message, source)
        })?;
        let registry = tracing_subscriber::registry().with(log_layer().with_filter(filter));
        #[cfg(feature = "otlp")]
        let registry = registry.with(
            // Not what `LOG_LEVEL` says: quieter logs are no reason for traces with holes.
            exporter.as_ref().map(|exporter| exporter.layer().with_filter(LevelFilter::INFO)),
        );
        registry.try_init().map_err(|source| {
            Error::with_source(ErrorKind::Config, "logs were set up before: do it once", source)
        })?;
        Ok(Telemetry {
            metrics: start_metrics()?,
            #[cfg(feature = "otlp")]
            exporter,
        })
    }
}

fn log_layer() -> Box<dyn Layer<Registry> + Send + Sync> {
    if std::io::stdout().is_terminal() {
        log::layer().with_target(false).boxed()
    } else {
        log::layer().json().flatten_event(true).with_span_list(false).boxed()
    }
}

/// The bounds of every `*_duration_seconds` histogram.
const BUCKETS_SECONDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

fn start_metrics() -> Result<MetricsHandle> {
    let refused = |source: metrics_exporter_prometheus::BuildError| {
        Error::with_source(ErrorKind::Config, format!("metrics can't be set up: {source}"), source)
    };
    let matcher = Matcher::Suffix("_duration_seconds".to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(matcher, &BUCKETS_SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(refused)?;
    // What nobody scrapes would pile up: fold it every few seconds.
    let upkeep = handle.clone();
    std::thread::Builder::new()
        .name("metrics-upkeep".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(5));
                upkeep.run_upkeep();
            }
        })
        .map_err(|source| {
            Error::with_source(ErrorKind::Internal, "the metrics thread can't start", source)
        })?;
    Ok(MetricsHandle(handle))
}

/// Renders the program's metrics.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }
}

impl fmt::Debug for MetricsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsHandle").finish_non_exhaustive()
    }
}

/// Makes `span` a part of the caller's trace, and returns the context that `span` now has: what
/// to log, and to send on as `traceparent`. Without `caller` a new trace begins.
pub fn join_trace(span: &tracing::Span, caller: Option<&TraceContext>) -> TraceContext {
    #[cfg(feature = "otlp")]
    if let Some(context) = otlp::join_trace(span, caller) {
        return context;
    }
    let _ = span;
    caller.map_or_else(TraceContext::root, TraceContext::child)
}
