//! Questions about the whole history, compared with a fold over the log.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use potter_core::testing::TestDatabase;
use potter_eventsourcing::{
    Bucket, ErrorKind, EventAnalytics, EventStore, ExpectedVersion, NewEvent, ReadAllOptions,
    RecordedEvent, Slice, StreamId, event_analytics, event_store,
};

/// Some events of several types, in streams of several types.
pub(crate) async fn fill(store: &dyn EventStore, rounds: u32) {
    for round in 0..rounds {
        for (stream_type, id, event_type) in [
            ("order", round % 5, "order.placed"),
            ("order", round % 3, "order.shipped"),
            ("account", round % 2, "account.moved"),
        ] {
            let payload = serde_json::json!({"cents": round * 7, "text": "ü \"quoted\" \\ back"});
            let event = NewEvent::new(event_type, &payload).unwrap();
            let stream = StreamId::new(stream_type, id).unwrap();
            store.append(&stream, ExpectedVersion::Any, vec![event]).await.unwrap();
        }
    }
}

pub(crate) async fn all_events(store: &dyn EventStore) -> Vec<RecordedEvent> {
    store.read_all(0, ReadAllOptions::new()).try_collect().await.unwrap()
}

/// Every question about every slice has the answer that a fold has.
pub(crate) async fn answers_are_those_of_a_fold(
    analytics: &impl EventAnalytics,
    events: &[RecordedEvent],
) {
    let middle = events[events.len() / 2].global_position;
    for slice in [
        Slice::all(),
        Slice::all().after(middle),
        Slice::all().until(middle),
        Slice::all().after(u64::try_from(i64::MAX).unwrap()),
        Slice::all().stream_type("order"),
        Slice::all().event_type("order.placed").until(middle),
        Slice::all().stream_type("it's").event_type("?"),
    ] {
        let inside = |event: &&RecordedEvent| {
            event.global_position > slice.after
                && slice.until.is_none_or(|until| event.global_position <= until)
                && slice.stream_type.as_ref().is_none_or(|one| one == event.stream_type())
                && slice.event_type.as_ref().is_none_or(|one| *one == event.event_type)
        };
        let of_slice: Vec<_> = events.iter().filter(inside).collect();
        check(analytics, &slice, &of_slice).await;
    }
}

fn streams(events: &[&RecordedEvent]) -> u64 {
    events.iter().map(|event| &event.stream_id).collect::<BTreeSet<_>>().len() as u64
}

fn grouped<'a, K: Ord>(
    events: &[&'a RecordedEvent],
    key: impl Fn(&'a RecordedEvent) -> K,
) -> BTreeMap<K, Vec<&'a RecordedEvent>> {
    let mut groups: BTreeMap<K, Vec<&RecordedEvent>> = BTreeMap::new();
    for event in events {
        groups.entry(key(event)).or_default().push(event);
    }
    groups
}

fn last_at(events: &[&RecordedEvent]) -> Option<DateTime<Utc>> {
    events.iter().map(|event| event.recorded_at).max()
}

async fn check(analytics: &impl EventAnalytics, slice: &Slice, events: &[&RecordedEvent]) {
    let totals = analytics.totals(slice).await.unwrap();
    assert_eq!(
        (totals.events, totals.streams),
        (events.len() as u64, streams(events)),
        "{slice:?}"
    );
    assert_eq!(totals.last_position, events.last().map_or(0, |event| event.global_position));
    assert_eq!(totals.first_at, events.iter().map(|event| event.recorded_at).min());
    assert_eq!(totals.last_at, last_at(events));

    let by_type = grouped(events, |event| event.event_type.clone());
    let found = analytics.by_event_type(slice, 100).await.unwrap();
    assert_eq!(found.len(), by_type.len(), "{slice:?}");
    assert!(found.is_sorted_by_key(|one| std::cmp::Reverse(one.events)));
    for one in found {
        let of_type = &by_type[&one.event_type];
        assert_eq!((one.events, one.streams), (of_type.len() as u64, streams(of_type)));
        assert_eq!(Some(one.last_at), last_at(of_type));
    }
    let by_stream_type = grouped(events, |event| event.stream_type().to_owned());
    let found = analytics.by_stream_type(slice, 100).await.unwrap();
    assert_eq!(found.len(), by_stream_type.len());
    for one in found {
        let of_type = &by_stream_type[&one.stream_type];
        assert_eq!((one.events, one.streams), (of_type.len() as u64, streams(of_type)));
        assert_eq!(Some(one.version_max), of_type.iter().map(|event| event.version).max());
        assert!(one.events_per_stream() >= 1.0);
    }
    let by_stream = grouped(events, |event| event.stream_id.clone());
    let found = analytics.busiest_streams(slice, 3).await.unwrap();
    assert_eq!(found.len(), by_stream.len().min(3));
    let mut most: Vec<_> = by_stream.values().map(Vec::len).collect();
    most.sort_unstable_by(|a, b| b.cmp(a));
    for (one, most) in found.iter().zip(most) {
        let of_stream = &by_stream[&one.stream_id];
        assert_eq!((one.events, one.events), (of_stream.len() as u64, most as u64));
        assert_eq!(Some(one.version), of_stream.last().map(|event| event.version));
    }
    for bucket in [Bucket::Minute, Bucket::Week] {
        let width = i64::try_from(bucket.width().as_micros()).unwrap();
        // The first Monday after the beginning of 1970.
        let origin = if bucket == Bucket::Week { 345_600_000_000 } else { 0 };
        let start = |event: &RecordedEvent| {
            (event.recorded_at.timestamp_micros() - origin) / width * width + origin
        };
        let expected: Vec<_> = grouped(events, start)
            .into_iter()
            .map(|(start, of_bucket)| (start, of_bucket.len() as u64, streams(&of_bucket)))
            .collect();
        let found = analytics.over_time(slice, bucket, 100).await.unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.start.timestamp_micros(), one.events, one.streams))
            .collect();
        assert_eq!(found, expected, "{slice:?}");
    }
}

async fn the_log_answers(test: TestDatabase) {
    let store = event_store(test.database()).unwrap();
    store.migrate().await.unwrap();
    fill(&*store, 30).await;
    let analytics = event_analytics(test.database()).unwrap();
    answers_are_those_of_a_fold(&analytics, &all_events(&*store).await).await;
    test.close().await;
}

#[tokio::test]
async fn memory_takes_no_sql() {
    let test = TestDatabase::memory();
    let error = event_analytics(test.database()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

potter_core::on_every_sql_engine!(the_log_answers);
