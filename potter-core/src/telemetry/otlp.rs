//! Spans exported by OTLP over plain HTTP, from the exporter's own thread.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Subscriber;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::registry::LookupSpan;

use super::env::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::trace_context::TraceContext;

const TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read of a collector's answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Gathers spans and sends them in batches.
pub(super) struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Exporter {
    /// Looks that the collector is there, then starts the exporter's thread.
    pub(super) fn connect(service: &str, endpoint: &Endpoint) -> Result<Self> {
        connect(&endpoint.host).map_err(|source| {
            let Endpoint { variable, host, .. } = endpoint;
            let message = format!("{variable}: no collector answers at {host}: {source}");
            Error::with_source(ErrorKind::Unavailable, message, source)
        })?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(PlainClient)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(TIMEOUT)
            .with_endpoint(&endpoint.url)
            .build()
            .map_err(|source| {
                let message = format!("{}: {source}", endpoint.variable);
                Error::with_source(ErrorKind::Config, message, source)
            })?;
        let resource = Resource::builder().with_service_name(service.to_owned()).build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("potter");
        Ok(Self { provider, tracer })
    }

    pub(super) fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer().with_tracer(self.tracer.clone())
    }

    pub(super) fn flush(&self) {
        if let Err(error) = self.provider.force_flush() {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(TIMEOUT) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// `None` when no exporter is running, or the span is filtered out.
pub(super) fn join_trace(
    span: &tracing::Span,
    caller: Option<&TraceContext>,
) -> Option<TraceContext> {
    if let Some(caller) = caller {
        let (trace, parent) = caller.parts();
        let flags = if caller.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let remote = SpanContext::new(
            TraceId::from(trace),
            SpanId::from(parent),
            flags,
            true,
            TraceState::default(),
        );
        span.set_parent(Context::new().with_remote_span_context(remote)).ok()?;
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    TraceContext::from_parts(
        u128::from_be_bytes(own.trace_id().to_bytes()),
        u64::from_be_bytes(own.span_id().to_bytes()),
        own.is_sampled(),
    )
}

fn connect(host: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// One request a connection, blocking: the batch exporter has a thread of its own, and needs no
/// more than this.
#[derive(Debug)]
struct PlainClient;

#[async_trait]
impl HttpClient for PlainClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let answer = post(&host, &request);
        match &answer {
            Ok(answer) if !answer.status().is_success() => {
                tracing::warn!(host, status = answer.status().as_u16(), "spans were refused");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(host, %error, "spans could not be sent"),
        }
        answer
    }
}

fn post(host: &str, request: &Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut stream = connect(host)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut head = format!("{} {path} HTTP/1.1\r\nhost: {host}\r\n", request.method());
    for (name, value) in request.headers() {
        // Values come from this program's own environment; one that is no text is left out.
        if let Ok(value) = value.to_str() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    let length = request.body().len();
    head.push_str(&format!("content-length: {length}\r\nconnection: close\r\n\r\n"));
    stream.write_all(head.as_bytes())?;
    stream.write_all(request.body())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    // Only the status counts: the body holds, at most, a note on what was dropped.
    let status = status_of(&answer).ok_or("the collector's answer is not HTTP")?;
    Ok(Response::builder().status(status).body(Bytes::new())?)
}

fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn endpoint(host: String) -> Endpoint {
        let url = format!("http://{host}/v1/traces");
        Endpoint { variable: "OTEL_EXPORTER_OTLP_ENDPOINT", host, url }
    }

    #[test]
    fn an_unreachable_collector_is_an_error_that_names_variable_and_host() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let Err(error) = Exporter::connect("test", &endpoint(free.clone())) else {
            panic!("nobody listens there");
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        assert!(text.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && text.contains(&free), "{text}");
    }

    #[test]
    fn a_span_reaches_the_collector_with_the_callers_trace() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let collector = std::thread::spawn(move || {
            // The first connection is the look at start, without a request.
            let _look = listener.accept().unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = Vec::new();
            let mut buffer = [0; 4096];
            while !String::from_utf8_lossy(&got).contains("the-span") {
                let n = stream.read(&mut buffer).unwrap();
                assert!(n > 0, "the request ended without the span");
                got.extend_from_slice(&buffer[..n]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            got
        });
        let exporter = Exporter::connect("the-service", &endpoint(host)).unwrap();
        let caller = TraceContext::root();
        let subscriber = tracing_subscriber::registry().with(exporter.layer());
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("the-span");
            let own = join_trace(&span, Some(&caller)).unwrap();
            assert_eq!(own.trace_id(), caller.trace_id());
            assert_ne!(own.span_id(), caller.span_id());
        });
        drop(exporter);
        let got = collector.join().unwrap();
        let text = String::from_utf8_lossy(&got);
        assert!(text.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{text}");
        assert!(
            text.contains("content-type: application/x-protobuf") && text.contains("the-service")
        );
        let trace = caller.parts().0.to_be_bytes();
        assert!(got.windows(16).any(|bytes| bytes == trace), "the trace id goes with it");
    }
}
