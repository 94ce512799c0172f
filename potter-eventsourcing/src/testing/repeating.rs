//! The same event ids again.

use std::sync::Arc;

use futures::future::join_all;

use super::{append, assert_kind, event, events, json, read_versions, stream};
use crate::error::ErrorKind;
use crate::event::Appended;
use crate::store::{EventStore, ExpectedVersion, ReadOptions};

type Store = Arc<dyn EventStore>;

pub(super) async fn same_events_twice_are_answered_as_the_first_time(store: Store) {
    let stream = stream();
    append(&store, &stream, ExpectedVersion::NoStream, 2).await.unwrap();
    for (count, base) in [(1, 2), (3, 4)] {
        let batch = events(count);
        let expected = ExpectedVersion::Exact(base);
        let first = store.append(&stream, expected, batch.clone()).await.unwrap();
        assert!(!first.duplicate);
        append(&store, &stream, ExpectedVersion::Any, 1).await.unwrap();
        let version = store.stream_version(&stream).await.unwrap();
        for expected in [
            expected,
            ExpectedVersion::Any,
            ExpectedVersion::NoStream,
            ExpectedVersion::StreamExists,
            ExpectedVersion::Exact(version),
            ExpectedVersion::Exact(version + 7),
        ] {
            // Metadata is not compared: a retry may carry another trace.
            let batch = batch
                .iter()
                .cloned()
                .map(|event| event.with_metadata(potter_core::Metadata::correlated()));
            let again = store.append(&stream, expected, batch.collect()).await.unwrap();
            assert_eq!(again, Appended { duplicate: true, ..first }, "{expected:?}");
        }
        assert_eq!(store.stream_version(&stream).await.unwrap(), version);
    }
    let versions = read_versions(&store, &stream, ReadOptions::forwards()).await;
    assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>());
    let next = versions.len() as u64;
    append(&store, &stream, ExpectedVersion::Exact(next), 1).await.unwrap();
}

pub(super) async fn same_events_at_once_are_stored_once(store: Store) {
    for expected in [ExpectedVersion::Any, ExpectedVersion::NoStream] {
        let (stream, batch) = (stream(), events(3));
        let tasks = (0..10).map(|_| {
            let (store, stream, batch) = (Arc::clone(&store), stream.clone(), batch.clone());
            tokio::spawn(async move { store.append(&stream, expected, batch).await })
        });
        let mut fresh = 0;
        for done in join_all(tasks).await {
            let appended = done.unwrap().unwrap();
            assert_eq!((appended.first_version, appended.last_version), (1, 3));
            fresh += u32::from(!appended.duplicate);
        }
        assert_eq!(fresh, 1);
        assert_eq!(read_versions(&store, &stream, ReadOptions::forwards()).await, [1, 2, 3]);
    }
}

pub(super) async fn same_id_with_other_content_is_refused(store: Store) {
    let (stream, original) = (stream(), event(1));
    store.append(&stream, ExpectedVersion::Any, vec![original.clone()]).await.unwrap();
    let mut payload = original.clone();
    payload.payload = json("2");
    let mut spaced = original.clone();
    spaced.payload = json("{\"a\": 1}");
    let mut event_type = original.clone();
    event_type.event_type = "other".to_owned();
    let schema = original.clone().with_schema_version(2);
    for changed in [payload, spaced, event_type, schema] {
        for expected in [ExpectedVersion::Any, ExpectedVersion::Exact(1)] {
            let result = store.append(&stream, expected, vec![changed.clone()]).await;
            let error = assert_kind(result, ErrorKind::DuplicateEventId);
            assert!(!error.is_retryable());
        }
    }
    assert_eq!(store.stream_version(&stream).await.unwrap(), 1);
    append(&store, &stream, ExpectedVersion::Exact(1), 1).await.unwrap();
}

pub(super) async fn same_id_in_another_stream_is_refused(store: Store) {
    let (one, other, original) = (stream(), stream(), event(1));
    store.append(&one, ExpectedVersion::Any, vec![original.clone()]).await.unwrap();
    for expected in [ExpectedVersion::Any, ExpectedVersion::NoStream] {
        let result = store.append(&other, expected, vec![original.clone()]).await;
        assert_kind(result, ErrorKind::DuplicateEventId);
    }
    assert_eq!(store.stream_version(&other).await.unwrap(), 0);
    append(&store, &other, ExpectedVersion::NoStream, 1).await.unwrap();
    assert_eq!(read_versions(&store, &other, ReadOptions::forwards()).await, [1]);
}

pub(super) async fn a_part_of_an_append_is_not_a_repetition(store: Store) {
    let (stream, batch) = (stream(), events(3));
    store.append(&stream, ExpectedVersion::Any, batch.clone()).await.unwrap();
    let more = [&batch[..], &events(1)].concat();
    let swapped = vec![batch[1].clone(), batch[0].clone()];
    let holes = vec![batch[0].clone(), batch[2].clone()];
    for wrong in [more, swapped, holes] {
        let result = store.append(&stream, ExpectedVersion::Any, wrong).await;
        assert_kind(result, ErrorKind::DuplicateEventId);
    }
    // A run of them, in order, is there already.
    let tail = store.append(&stream, ExpectedVersion::Any, batch[1..].to_vec()).await.unwrap();
    assert_eq!((tail.first_version, tail.last_version, tail.duplicate), (2, 3, true));
    assert_eq!(read_versions(&store, &stream, ReadOptions::forwards()).await, [1, 2, 3]);
}
