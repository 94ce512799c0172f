//! Streams, and all events.

use std::sync::Arc;
use std::time::Duration;

use super::{append, read, read_all, read_versions, stream};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::store::{
    EventFilter, EventStore, ExpectedVersion, ReadAllOptions, ReadOptions, SegmentSet,
};
use crate::stream_id::StreamId;

type Store = Arc<dyn EventStore>;

pub(super) async fn a_stream_forwards_and_backwards(store: Store) {
    let stream = stream();
    append(&store, &stream, ExpectedVersion::NoStream, 5).await.unwrap();
    let forwards = ReadOptions::forwards;
    let backwards = ReadOptions::backwards;
    let cases: [(ReadOptions, &[u64]); 12] = [
        (forwards(), &[1, 2, 3, 4, 5]),
        (forwards().from_version(0), &[1, 2, 3, 4, 5]),
        (forwards().from_version(4), &[4, 5]),
        (forwards().from_version(6), &[]),
        (forwards().limit(2), &[1, 2]),
        (forwards().from_version(2).limit(3), &[2, 3, 4]),
        (forwards().limit(0), &[]),
        (backwards(), &[5, 4, 3, 2, 1]),
        (backwards().from_version(3), &[3, 2, 1]),
        (backwards().from_version(9), &[5, 4, 3, 2, 1]),
        (backwards().from_version(0), &[]),
        (backwards().limit(1), &[5]),
    ];
    for (options, versions) in cases {
        assert_eq!(read_versions(&store, &stream, options).await, versions, "{options:?}");
        let Some(database) = store.database() else { continue };
        let mut tx = database.begin().await.unwrap();
        let page = store.read_stream_in(&mut tx, &stream, options).await.unwrap();
        assert_eq!(page.iter().map(|event| event.version).collect::<Vec<_>>(), versions);
    }
}

pub(super) async fn a_stream_that_does_not_exist_is_empty(store: Store) {
    let stream = stream();
    assert!(read(&store, &stream, ReadOptions::forwards()).await.is_empty());
    assert!(read(&store, &stream, ReadOptions::backwards()).await.is_empty());
    assert_eq!(store.stream_version(&stream).await.unwrap(), 0);
}

pub(super) async fn streams_longer_than_a_page(store: Store) {
    let (stream, other) = (stream(), stream());
    for _ in 0..3 {
        append(&store, &stream, ExpectedVersion::Any, 1000).await.unwrap();
        append(&store, &other, ExpectedVersion::Any, 1).await.unwrap();
    }
    let forwards: Vec<u64> = (1..=3000).collect();
    let backwards: Vec<u64> = (1..=3000).rev().collect();
    assert_eq!(read_versions(&store, &stream, ReadOptions::forwards()).await, forwards);
    assert_eq!(read_versions(&store, &stream, ReadOptions::backwards()).await, backwards);
    let limited = read_versions(&store, &stream, ReadOptions::forwards().limit(1001)).await;
    assert_eq!(limited, forwards[..1001]);
    let limited = read_versions(&store, &stream, ReadOptions::backwards().limit(2001)).await;
    assert_eq!(limited, backwards[..2001]);
    let Some(database) = store.database() else { return };
    let mut tx = database.begin().await.unwrap();
    let page = store.read_stream_in(&mut tx, &stream, ReadOptions::forwards()).await.unwrap();
    assert_eq!(page.len() as u64, ReadOptions::PAGE);
}

pub(super) async fn all_in_order_and_on_from_anywhere(store: Store) {
    let start = store.safe_position().await.unwrap();
    let streams = [stream(), stream(), stream()];
    for round in 0..400 {
        let stream = &streams[round % 3];
        append(&store, stream, ExpectedVersion::Any, 6).await.unwrap();
    }
    let all = read_all(&store, start, ReadAllOptions::new()).await;
    assert_eq!(all.len(), 2400);
    assert!(all.is_sorted_by(|a, b| a.global_position < b.global_position));
    for stream in &streams {
        let versions: Vec<_> = all
            .iter()
            .filter(|event| event.stream_id == *stream)
            .map(|event| event.version)
            .collect();
        assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>());
    }
    assert_eq!(store.head_position().await.unwrap(), all[2399].global_position);
    assert_eq!(store.safe_position().await.unwrap(), all[2399].global_position);
    for from in [0, 1, 999, 1000, 1001, 1399, 2398] {
        let rest = read_all(&store, all[from].global_position, ReadAllOptions::new()).await;
        assert_eq!(rest, all[from + 1..], "from {from}");
    }
    for limit in [0, 1, 1000, 1001, 2000, 2399, 2400, 5000] {
        let some = read_all(&store, start, ReadAllOptions::new().limit(limit)).await;
        assert_eq!(some, all[..usize::try_from(limit).unwrap().min(2400)], "limit {limit}");
    }
}

pub(super) async fn all_ends_and_goes_on(store: Store) {
    let mut after = store.safe_position().await.unwrap();
    assert!(read_all(&store, after, ReadAllOptions::new()).await.is_empty());
    assert!(read_all(&store, u64::MAX, ReadAllOptions::new()).await.is_empty());
    for _ in 0..3 {
        let appended = append(&store, &stream(), ExpectedVersion::Any, 2).await.unwrap();
        let new = read_all(&store, after, ReadAllOptions::new()).await;
        assert_eq!(new.len(), 2);
        after = new[1].global_position;
        assert_eq!(after, appended.last_position);
        assert!(read_all(&store, after, ReadAllOptions::new()).await.is_empty());
    }
}

/// Everything that `filter` wants above `after`, by pages.
async fn by_pages(
    store: &dyn EventStore,
    mut after: u64,
    filter: &EventFilter,
    limit: u64,
) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    loop {
        let page = store.read_page(after, filter, limit).await.unwrap();
        assert!(page.events.len() as u64 <= limit, "{} of {limit}", page.events.len());
        assert!(page.through >= after && page.head >= page.through);
        let within =
            |event: &RecordedEvent| (after + 1..=page.through).contains(&event.global_position);
        assert!(page.events.iter().all(within), "events are above `after`, up to `through`");
        after = page.through;
        events.extend(page.events);
        if after == page.head {
            return events;
        }
    }
}

pub(super) async fn pages_of_any_size_miss_nothing(store: Arc<dyn EventStore>) {
    let before = store.head_position().await.unwrap();
    for _ in 0..30 {
        append(&*store, &stream(), ExpectedVersion::NoStream, 40).await.unwrap();
    }
    let all = read_all(&*store, before, ReadAllOptions::new()).await;
    assert_eq!(all.len(), 1200);
    for limit in [7, 499, 500, 501, 1000, 1199, 1200, 1201, 100_000] {
        let paged = by_pages(&*store, before, &EventFilter::all(), limit).await;
        assert_eq!(paged, all, "pages of {limit}");
        let filter = EventFilter::all().stream_types(["conformance"]);
        assert_eq!(by_pages(&*store, before, &filter, limit).await, all, "filtered, {limit}");
    }
}

pub(super) async fn pages_of_segments_make_up_the_log(store: Arc<dyn EventStore>) {
    let before = store.head_position().await.unwrap();
    for _ in 0..120 {
        append(&*store, &stream(), ExpectedVersion::NoStream, 3).await.unwrap();
    }
    let all = read_all(&*store, before, ReadAllOptions::new()).await;
    for (count, parts) in [(1, 1), (4, 4), (64, 3), (64, 64), (256, 5)] {
        let mut seen = Vec::new();
        for part in 0..parts {
            let members = (0..count).filter(|segment| segment % parts == part);
            let set = SegmentSet::new(count, members).unwrap();
            let filter = EventFilter::all().segments(set.clone());
            let events = by_pages(&*store, before, &filter, 10).await;
            assert!(events.is_sorted_by_key(|event| event.global_position));
            assert!(events.iter().all(|event| set.contains(event.stream_id.segment())));
            seen.extend(events);
        }
        seen.sort_by_key(|event| event.global_position);
        assert_eq!(seen, all, "{parts} parts of {count} segments");
    }
    let none = EventFilter::all().segments(SegmentSet::new(4, []).unwrap());
    assert!(by_pages(&*store, before, &none, 10).await.is_empty());
}

pub(super) async fn pages_are_filtered(store: Arc<dyn EventStore>) {
    let before = store.head_position().await.unwrap();
    let types = ["billing.invoice", "billing.refund", "billingother", "shop.order"];
    for n in 0..40_usize {
        let stream = StreamId::new(types[n % 4], potter_core::new_id()).unwrap();
        let event_type = ["opened", "closed", "it's \"quoted\""][n % 3];
        let tenant = ["acme", "other"][n % 2];
        let new = NewEvent::new(event_type, &n).unwrap();
        let new = new.with_metadata(potter_core::Metadata::new().with_tenant(tenant));
        store.append(&stream, ExpectedVersion::NoStream, vec![new]).await.unwrap();
    }
    let all = read_all(&*store, before, ReadAllOptions::new()).await;
    let everything = EventFilter::all;
    for filter in [
        everything().event_types(["opened"]),
        everything().event_types(["it's \"quoted\"", "closed"]),
        everything().event_types(Vec::<String>::new()),
        everything().stream_types(["billing.invoice", "shop.order"]),
        everything().context("billing"),
        everything().context("bill"),
        everything().context("billing-x"),
        everything().tenant("acme"),
        everything().tenant("nobody"),
        everything().context("billing").tenant("acme").event_types(["opened"]),
        everything().tenant("acme").segments(SegmentSet::new(2, [1]).unwrap()),
    ] {
        let wanted: Vec<_> = all.iter().filter(|event| filter.matches(event)).cloned().collect();
        assert_eq!(by_pages(&*store, before, &filter, 3).await, wanted, "{filter:?}");
    }
}

pub(super) async fn changes_are_hinted_at(store: Arc<dyn EventStore>) {
    let Some(mut changes) = store.changes() else { return };
    changes.clear();
    let long = Duration::from_secs(3600);
    let hinted = tokio::time::timeout(Duration::from_secs(30), changes.wait(long));
    let (appended, hinted) = futures::future::join(append_one_soon(&*store), hinted).await;
    assert!(hinted.is_ok(), "no hint came");
    let page = store.read_page(appended.last_position - 1, &EventFilter::all(), 10).await.unwrap();
    assert_eq!(page.events.len(), 1, "the hint comes when the event can be read");
}

async fn append_one_soon(store: &dyn EventStore) -> Appended {
    tokio::time::sleep(Duration::from_millis(20)).await;
    append(store, &stream(), ExpectedVersion::NoStream, 1).await.unwrap()
}
