use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;

use crate::bus::*;
use crate::{Backoff, Metadata};

struct Ping;

impl Command for Ping {
    const NAME: &'static str = "ping";
    type Output = ();
    type Error = String;
}

struct Read;

impl Query for Read {
    const NAME: &'static str = "read";
    type Output = ();
    type Error = String;
}

struct Ponged;

impl Event for Ponged {
    const NAME: &'static str = "ponged";
}

async fn use_all() {
    let commands = CommandBus::builder().middleware(Metrics).build();
    commands.register_fn(|_: Ping, _| async { panic!("no") }).unwrap();
    commands.send(Ping, Metadata::new()).await.unwrap_err();

    let queries = QueryBus::builder().middleware(Metrics).build();
    queries
        .register_fn(|_: Read, metadata: Metadata| async move {
            metadata.tenant.map(drop).ok_or_else(|| "no tenant".to_owned())
        })
        .unwrap();
    queries.ask(Read, Metadata::new().with_tenant("acme")).await.unwrap();
    queries.ask(Read, Metadata::new()).await.unwrap_err();

    let events = EventBus::builder().backoff(Backoff::never()).build();
    events.subscribe_fn("fine", |_: Arc<Ponged>, _| async { Ok(()) }).unwrap();
    events.subscribe_fn("odd", |_: Arc<Ponged>, _| async { Err("no".into()) }).unwrap();
    events.publish(Ponged, Metadata::new()).await.unwrap();
    events.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[test]
fn what_happens_is_counted_by_name_and_outcome() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(use_all());
    });
    let text = handle.render();
    for line in [
        r#"commands_total{name="ping",outcome="error"} 1"#,
        r#"queries_total{name="read",outcome="ok"} 1"#,
        r#"queries_total{name="read",outcome="refused"} 1"#,
        r#"queries_duration_seconds_count{name="read"} 2"#,
        r#"events_total{name="ponged",subscriber="fine",outcome="ok"} 1"#,
        r#"events_total{name="ponged",subscriber="odd",outcome="error"} 1"#,
        r#"events_dead_letters_total{name="ponged"} 1"#,
        r#"errors_total{source="command",name="ping"} 1"#,
        r#"errors_total{source="query",name="read"} 1"#,
        r#"errors_total{source="event",name="ponged"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
