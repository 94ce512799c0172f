//! A log in parts, on PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::TryStreamExt;
use potter_core::{Database, values};
use potter_eventsourcing::{
    Error, ErrorKind, EventFilter, EventQuery, EventStore, ExpectedVersion, NewEvent,
    PartitionedLog, ReadAllOptions, ReadOptions, RecordedEvent, StreamId, testing,
};

use crate::support;

const ANY: ExpectedVersion = ExpectedVersion::Any;

fn stream(n: u64) -> StreamId {
    StreamId::new("part", n).unwrap()
}

fn events(count: usize) -> Vec<NewEvent> {
    let one = || NewEvent::new("part.grown", &1).unwrap().with_tags(["part:1"]);
    (0..count).map(|_| one()).collect()
}

async fn all(store: &Arc<dyn EventStore>, after: u64) -> Result<Vec<RecordedEvent>, Error> {
    store.read_all(after, ReadAllOptions::new()).try_collect().await
}

async fn one(store: &Arc<dyn EventStore>, n: u64) -> Result<Vec<RecordedEvent>, Error> {
    store.read_stream(&stream(n), ReadOptions::forwards()).try_collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes_in_parts() {
    let postgres = support::postgres().await;
    let log = PartitionedLog::new(&postgres.database).unwrap();
    log.convert(700).await.unwrap();
    log.create_ahead(3).await.unwrap();
    testing::conformance(async || Arc::clone(&postgres.store)).await;
    testing::boundaries(async || Arc::clone(&postgres.store)).await;
    // The suite went beyond the last part: what is there moves into parts of its own.
    let rest = "SELECT count(*) AS n FROM potter_events_rest";
    let count = async |statement: &'static str| {
        postgres.database.read(statement, &[]).await.unwrap()[0].i64("n").unwrap()
    };
    assert!(count(rest).await > 0);
    let before = all(&postgres.store, 0).await.unwrap();
    assert!(!log.create_ahead(2).await.unwrap().is_empty());
    assert_eq!(count(rest).await, 0);
    assert_eq!(all(&postgres.store, 0).await.unwrap(), before);
    let head = postgres.store.head_position().await.unwrap();
    assert!(log.parts().await.unwrap().last().unwrap().until >= head + 700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_events_is_converted_and_its_old_parts_archived() {
    let postgres = support::postgres().await;
    let store = &postgres.store;
    let repeated = events(3);
    store.append(&stream(1), ANY, repeated.clone()).await.unwrap();
    store.append(&stream(2), ANY, events(2)).await.unwrap();
    let before = all(store, 0).await.unwrap();
    let log = PartitionedLog::new(&postgres.database).unwrap();
    assert_eq!(log.archive().await.unwrap_err().kind(), ErrorKind::Config);
    log.convert(10).await.unwrap();
    log.convert(10).await.unwrap();
    assert_eq!(log.convert(11).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    log.create_ahead(2).await.unwrap();
    assert_eq!(all(store, 0).await.unwrap(), before);
    assert_eq!(store.safe_position().await.unwrap(), before[4].global_position);
    let again = store.append(&stream(1), ANY, repeated.clone()).await.unwrap();
    assert!(again.duplicate);

    // Nothing that is still written to, nor the newest.
    assert_eq!(log.archive().await.unwrap_err().kind(), ErrorKind::Conflict);
    for n in 0..8 {
        store.append(&stream(3 + n % 2), ANY, events(2)).await.unwrap();
    }
    let whole = all(store, 0).await.unwrap();
    assert!(
        whole.iter().zip(whole.iter().skip(1)).all(|(a, b)| a.global_position < b.global_position)
    );
    // Nor what a projection has not read.
    let segment = "INSERT INTO potter_projection_segments (projection, segment, position)
                   VALUES ('slow', 0, $1)";
    postgres.database.execute(segment, values![9]).await.unwrap();
    let error = log.archive().await.unwrap_err();
    assert!(error.to_string().contains("slow") && error.is_conflict(), "{error}");
    let read = "UPDATE potter_projection_segments SET position = 10";
    postgres.database.execute(read, &[]).await.unwrap();

    let part = log.archive().await.unwrap();
    assert_eq!(
        (part.name.as_str(), part.from, part.until, part.archived),
        ("potter_events_first", 0, 10, true)
    );
    let fresh = postgres.another().await;
    // Readers: an error where something is missing, as before where nothing is.
    let missing = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("archived"), "{error}");
    };
    missing(all(store, 0).await.map(|_| ()));
    missing(all(store, 9).await.map(|_| ()));
    missing(store.read_page(3, &EventFilter::all(), 5).await.map(|_| ()));
    let filter = EventFilter::all().event_types(["x"]);
    missing(store.read_page(3, &filter, 5).await.map(|_| ()));
    missing(store.read_matching(&EventQuery::tags(["part:1"]), 0).await.map(|_| ()));
    missing(one(store, 1).await.map(|_| ()).and(one(store, 3).await.map(|_| ())));
    let backwards = ReadOptions::backwards();
    missing(store.read_stream(&stream(3), backwards).try_collect::<Vec<_>>().await.map(|_| ()));
    // All of this one is archived: it is not a stream that never was.
    missing(one(&fresh, 2).await.map(|_| ()));
    missing(fresh.read_stream(&stream(2), backwards).try_collect::<Vec<_>>().await.map(|_| ()));
    let mut tx = postgres.database.begin().await.unwrap();
    let inside = store.read_stream_in(&mut tx, &stream(2), ReadOptions::forwards()).await;
    missing(inside.map(|_| ()));
    drop(tx);
    assert!(one(store, 99).await.unwrap().is_empty());
    let behind = ReadOptions::forwards().from_version(3);
    assert!(
        store.read_stream(&stream(2), behind).try_collect::<Vec<_>>().await.unwrap().is_empty()
    );
    let late = ReadOptions::backwards().limit(2);
    assert_eq!(store.read_stream(&stream(3), late).try_collect::<Vec<_>>().await.unwrap().len(), 2);
    let kept: Vec<_> = whole.iter().filter(|event| event.global_position > 10).cloned().collect();
    assert_eq!(all(store, 10).await.unwrap(), kept);
    missing(all(&fresh, 0).await.map(|_| ()));
    assert_eq!(all(&fresh, 10).await.unwrap(), kept);
    let found = store.read_matching(&EventQuery::tags(["part:1"]), 10).await.unwrap();
    assert_eq!(found.events, kept);

    // Unique over all parts, archived ones too: ids and versions.
    let used = vec![repeated[0].clone()];
    for to in [stream(1), stream(9)] {
        let refused = store.append(&to, ANY, used.clone()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::DuplicateEventId);
    }
    assert_eq!(store.stream_version(&stream(9)).await.unwrap(), 0);
    assert_eq!(
        store.append(&stream(1), ExpectedVersion::Exact(3), events(1)).await.unwrap().last_version,
        4
    );
    let refused = store.append(&stream(2), ExpectedVersion::NoStream, events(1)).await.unwrap_err();
    assert!(refused.is_conflict());
    // Even for who goes past the store.
    let forged = "INSERT INTO potter_events
         (stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
         VALUES ('part-1', $1, $2, 't', 1, '1', '{}', 0)";
    for (version, id) in [(2, potter_core::new_id()), (90, repeated[1].event_id)] {
        let refused = postgres.database.execute(forged, values![version, id]).await.unwrap_err();
        assert_eq!(refused.kind(), potter_core::ErrorKind::Conflict);
    }

    // The table was dumped and comes back.
    let part = log.restore().await.unwrap();
    assert!(!part.archived);
    let read = all(store, 0).await.unwrap();
    assert_eq!(read[..whole.len()], whole[..]);
    assert_eq!(one(store, 1).await.unwrap().len(), 4);
    assert_eq!(log.restore().await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Writers and readers go on while the log is converted, and nothing is lost or doubled.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_converted_under_load() {
    let postgres = support::postgres().await;
    let running = Arc::new(AtomicBool::new(true));
    let writers: Vec<_> = (0..6)
        .map(|n| {
            let (store, running) = (Arc::clone(&postgres.store), Arc::clone(&running));
            tokio::spawn(async move {
                let mut appended = 0;
                while running.load(Ordering::SeqCst) {
                    // A conversion is in the way at most once.
                    let batch = events(1 + appended % 3);
                    let count = batch.len();
                    store.append(&stream(n), ANY, batch).await.unwrap();
                    appended += count;
                }
                appended
            })
        })
        .collect();
    let writing = Arc::new(AtomicBool::new(true));
    let reader = {
        let (store, writing) = (postgres.another().await, Arc::clone(&writing));
        tokio::spawn(async move {
            let mut seen: Vec<u64> = Vec::new();
            loop {
                let more = writing.load(Ordering::SeqCst);
                let after = seen.last().copied().unwrap_or(0);
                let read = all(&store, after).await.unwrap();
                seen.extend(read.iter().map(|event| event.global_position));
                if !more {
                    return seen;
                }
            }
        })
    };
    wait_for(&postgres.database, 50).await;
    let log = PartitionedLog::new(&postgres.database).unwrap();
    log.convert(200).await.unwrap();
    let last = postgres.store.head_position().await.unwrap();
    for _ in 0..4 {
        log.create_ahead(2).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    wait_for(&postgres.database, last + 200).await;
    running.store(false, Ordering::SeqCst);
    let mut appended = 0;
    for writer in writers {
        appended += writer.await.unwrap();
    }
    writing.store(false, Ordering::SeqCst);
    let seen = reader.await.unwrap();
    assert!(seen.is_sorted_by(|a, b| a < b));
    let whole = all(&postgres.store, 0).await.unwrap();
    assert_eq!(whole.len(), appended);
    assert_eq!(seen.len(), appended, "the reader lost none");
}

/// Until there is an event at this position, or above.
async fn wait_for(database: &Database, position: u64) {
    let head = "SELECT coalesce(max(global_position), 0) AS n FROM potter_events";
    while database.read(head, &[]).await.unwrap()[0].i64("n").unwrap().unsigned_abs() < position {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
