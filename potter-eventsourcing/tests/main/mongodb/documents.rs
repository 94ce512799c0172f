//! What is stored: documents that can be queried, and the queries of the store.

use futures::TryStreamExt;
use mongodb::bson::{Document, doc};
use potter_core::{Json, Metadata};
use potter_eventsourcing::{
    ErrorKind, EventFilter, EventStore, ExpectedVersion, MongoOptions, NewEvent, ReadAllOptions,
    ReadOptions, RecordedEvent, SegmentSet, StreamId,
};

use crate::support::MongoDatabase;

fn json(text: &str) -> Json {
    Json::parse(text.to_owned()).unwrap()
}

async fn count(store: &potter_eventsourcing::MongoEventStore, filter: Document) -> u64 {
    let events = store.driver().collection::<Document>("potter_events");
    events.count_documents(filter).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_can_be_queried() {
    let test = MongoDatabase::new().await;
    let store = test.store().await;
    let stream = StreamId::new("order", 1).unwrap();
    let payloads = [
        r#"{"cents": 500, "to": {"city": "Köln"}, "lines": [{"sku": "a"}, {"sku": "b"}]}"#,
        // What BSON can't hold, or not as it is, is no reason to refuse an event.
        r#"{"n": 12345678901234567890123456789, "z": -0.0, "$where": 1, "a.b": 2, "": 3}"#,
        r#"{"n": 1e400, "\u0000": "\ud800"}"#,
        r#"[[1, [2]], {"x": [[]]}]"#,
        "null",
    ];
    let batch: Vec<_> = payloads
        .iter()
        .map(|text| NewEvent::from_json("order.placed", json(text)))
        .map(|event| event.with_metadata(Metadata::new().with_tenant("acme")))
        .collect();
    store.append(&stream, ExpectedVersion::NoStream, batch).await.unwrap();
    for filter in [
        doc! { "events.data.cents": { "$gt": 400 } },
        doc! { "events.data.to.city": "Köln" },
        doc! { "events.data.lines.sku": "b" },
        doc! { "events.tenant": "acme", "stream_type": "order" },
        doc! { "events.meta.tenant": "acme" },
    ] {
        assert_eq!(count(&store, filter.clone()).await, 1, "{filter}");
    }
    assert_eq!(count(&store, doc! { "events.data.cents": { "$gt": 500 } }).await, 0);
    let read: Vec<_> =
        store.read_stream(&stream, ReadOptions::forwards()).try_collect().await.unwrap();
    let read: Vec<_> = read.iter().map(|event: &RecordedEvent| event.payload.as_str()).collect();
    assert_eq!(read, payloads, "the text is what counts");

    let options = MongoOptions::new().queryable_payloads(false);
    let plain = test.store_with(&test.server, options).await;
    let event = NewEvent::new("order.paid", &serde_json::json!({ "card": 1 })).unwrap();
    plain.append(&stream, ExpectedVersion::Any, vec![event]).await.unwrap();
    assert_eq!(count(&store, doc! { "events.type": "order.paid" }).await, 1);
    assert_eq!(count(&store, doc! { "events.data.card": 1 }).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_has_its_limit() {
    let test = MongoDatabase::new().await;
    let store = test.store().await;
    let stream = StreamId::new("film", 1).unwrap();
    let large = || NewEvent::new("frame", &"x".repeat((1 << 20) - 2)).unwrap();
    // With copies it would be 20 MiB.
    let ten = (0..10).map(|_| large()).collect();
    store.append(&stream, ExpectedVersion::NoStream, ten).await.unwrap();
    let sixteen = (0..16).map(|_| large()).collect();
    let error = store.append(&stream, ExpectedVersion::Any, sixteen).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    assert!(error.to_string().contains("one document"), "{error}");
    let read: Vec<RecordedEvent> =
        store.read_stream(&stream, ReadOptions::forwards()).try_collect().await.unwrap();
    assert_eq!(read.len(), 10);
    assert!(read.iter().all(|event| event.payload.as_str().len() == 1 << 20));
}

/// Every query beside a fold over the log.
#[tokio::test(flavor = "multi_thread")]
async fn queries_agree_with_the_log() {
    let test = MongoDatabase::new().await;
    let store = test.store().await;
    for n in 0..60_usize {
        let stream = StreamId::new(["a.x", "a.y", "b"][n % 3], n / 6).unwrap();
        let batch = (0..1 + n % 4).map(|k| {
            let event = NewEvent::new(["opened", "closed"][(n + k) % 2], &k).unwrap();
            event.with_metadata(Metadata::new().with_tenant(["acme", "other"][n % 2]))
        });
        store.append(&stream, ExpectedVersion::Any, batch.collect()).await.unwrap();
    }
    let all: Vec<RecordedEvent> =
        store.read_all(0, ReadAllOptions::new()).try_collect().await.unwrap();
    let everything = EventFilter::all;
    for filter in [
        everything(),
        everything().event_types(["opened"]),
        everything().event_types(["opened"]).tenant("acme"),
        everything().context("a"),
        everything().stream_types(["a.x", "b"]).tenant("other"),
        everything().segments(SegmentSet::new(4, [1, 2]).unwrap()),
        everything().segments(SegmentSet::new(1024, (0..300).map(|n| n * 3)).unwrap()),
        everything().segments(SegmentSet::new(4, []).unwrap()),
    ] {
        for (after, until) in [(0, 1000), (7, 120), (2, 3), (60, 60)] {
            let within = |event: &&RecordedEvent| {
                event.global_position > after && event.global_position <= until
            };
            let wanted = all.iter().filter(within).filter(|event| filter.matches(event)).count();
            let counted = store.count(after, until, &filter).await.unwrap();
            assert_eq!(counted, wanted as u64, "{filter:?} in {after}..={until}");
        }
    }
    for event in all.iter().step_by(17) {
        assert_eq!(store.event(event.event_id).await.unwrap().as_ref(), Some(event));
        let before = all.iter().take_while(|other| other.recorded_at <= event.recorded_at).count();
        assert_eq!(store.position_at(event.recorded_at).await.unwrap(), before as u64);
    }
    assert_eq!(store.event(potter_core::new_id()).await.unwrap(), None);
    assert_eq!(store.head_position().await.unwrap(), all.len() as u64);
    assert_eq!(store.safe_position().await.unwrap(), all.len() as u64);
    for after in [0, 1, 50] {
        let page = store.read_page(after, &everything(), 10).await.unwrap();
        assert_eq!((page.events.len(), page.through), (10, after + 10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_streams_are_refused_clearly() {
    use potter_eventsourcing::{AppendCondition, StreamAppend};

    let test = MongoDatabase::new().await;
    let store = test.store().await;
    let parts = |count: u64| {
        let part = |n| {
            let stream = StreamId::new("part", n).unwrap();
            let event = NewEvent::new("happened", &n).unwrap();
            StreamAppend::new(stream, ExpectedVersion::Any, vec![event])
        };
        (0..count).map(part).collect::<Vec<_>>()
    };
    let error = store.append_streams(parts(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("one stream"), "{error}");
    assert_eq!(store.head_position().await.unwrap(), 0);
    let one = store.append_if(parts(1), AppendCondition::none()).await.unwrap();
    assert_eq!(one[0].last_version, 1);
}
