//! The mirror in ClickHouse, on a real engine, through a proxy that breaks what it carries.

mod promises;
mod proxy;

use potter_core::new_id;
use potter_eventsourcing::{ClickHouse, RecordedEvent};
use serde::Deserialize;

/// The server's URL.
fn server() -> String {
    std::env::var("POTTER_TEST_CLICKHOUSE_URL").expect(
        "POTTER_TEST_CLICKHOUSE_URL is not set: start a private server with \
         eval \"$(scripts/services up clickhouse)\"",
    )
}

/// Tables of a test's own.
struct Tables {
    name: String,
    direct: ClickHouse,
}

/// An event, as the view has it.
#[derive(Debug, PartialEq, Deserialize, clickhouse::Row)]
struct Mirrored {
    global_position: u64,
    stream_id: String,
    version: u64,
    event_type: String,
    event_id: String,
    payload: String,
    recorded_us: i64,
}

impl Tables {
    async fn new() -> Self {
        let name = format!("events_{}", new_id().simple());
        let direct = ClickHouse::connect(&server()).await.unwrap().table(&name).unwrap();
        direct.migrate().await.unwrap();
        Self { name, direct }
    }

    /// The same tables, reached by another way.
    async fn through(&self, url: &str) -> ClickHouse {
        ClickHouse::connect(url).await.unwrap().table(&self.name).unwrap()
    }

    async fn number(&self, question: &str) -> u64 {
        self.direct.client().query_raw(question).fetch_one::<u64>().await.unwrap()
    }

    async fn rows_raw(&self) -> u64 {
        self.number(&format!("SELECT count() FROM {}_raw", self.name)).await
    }

    async fn merge(&self) {
        let statement = format!("OPTIMIZE TABLE {}_raw FINAL", self.name);
        self.direct.client().query_raw(&statement).execute().await.unwrap();
    }

    /// What a reader of the view sees, in order.
    async fn view(&self) -> Vec<Mirrored> {
        let question = format!(
            "SELECT global_position, stream_id, version, CAST(event_type, 'String') AS event_type,
                 toString(event_id) AS event_id, payload,
                 toUnixTimestamp64Micro(recorded_at) AS recorded_us
             FROM {} ORDER BY global_position",
            self.name
        );
        self.direct.client().query_raw(&question).fetch_all::<Mirrored>().await.unwrap()
    }

    /// The view is the log: each event once, bit for bit; counted and summed up too.
    async fn is_the_log(&self, events: &[RecordedEvent]) {
        let expected: Vec<_> = events
            .iter()
            .map(|event| Mirrored {
                global_position: event.global_position,
                stream_id: event.stream_id.to_string(),
                version: event.version,
                event_type: event.event_type.clone(),
                event_id: event.event_id.to_string(),
                payload: event.payload.as_str().to_owned(),
                recorded_us: event.recorded_at.timestamp_micros(),
            })
            .collect();
        let view = self.view().await;
        assert_eq!(view.len(), expected.len());
        for (is, should) in view.iter().zip(&expected) {
            assert_eq!(is, should);
        }
        let cents = |event: &RecordedEvent| {
            event.payload.get::<serde_json::Value>().unwrap()["cents"].as_u64().unwrap()
        };
        let sum = format!("SELECT sum(JSONExtractUInt(payload, 'cents')) FROM {}", self.name);
        assert_eq!(self.number(&sum).await, events.iter().map(cents).sum::<u64>());
    }

    async fn drop(self) {
        for what in [
            format!("VIEW {}", self.name),
            format!("TABLE {}_raw", self.name),
            format!("TABLE {}_mirror", self.name),
        ] {
            let statement = format!("DROP {what} SYNC");
            self.direct.client().query_raw(&statement).execute().await.unwrap();
        }
    }
}
