//! Streams, and all events.

use std::sync::Arc;

use super::{append, read, read_all, read_versions, stream};
use crate::store::{EventStore, ExpectedVersion, ReadAllOptions, ReadOptions};

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
        let mut tx = store.database().unwrap().begin().await.unwrap();
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
        append(&store, &stream, ExpectedVersion::Any, 500).await.unwrap();
        append(&store, &other, ExpectedVersion::Any, 1).await.unwrap();
    }
    let forwards: Vec<u64> = (1..=1500).collect();
    let backwards: Vec<u64> = (1..=1500).rev().collect();
    assert_eq!(read_versions(&store, &stream, ReadOptions::forwards()).await, forwards);
    assert_eq!(read_versions(&store, &stream, ReadOptions::backwards()).await, backwards);
    let limited = read_versions(&store, &stream, ReadOptions::forwards().limit(501)).await;
    assert_eq!(limited, forwards[..501]);
    let limited = read_versions(&store, &stream, ReadOptions::backwards().limit(1001)).await;
    assert_eq!(limited, backwards[..1001]);
    let mut tx = store.database().unwrap().begin().await.unwrap();
    let page = store.read_stream_in(&mut tx, &stream, ReadOptions::forwards()).await.unwrap();
    assert_eq!(page.len() as u64, ReadOptions::PAGE);
}

pub(super) async fn all_in_order_and_on_from_anywhere(store: Store) {
    let start = store.safe_position().await.unwrap();
    let streams = [stream(), stream(), stream()];
    for round in 0..400 {
        let stream = &streams[round % 3];
        append(&store, stream, ExpectedVersion::Any, 3).await.unwrap();
    }
    let all = read_all(&store, start, ReadAllOptions::new()).await;
    assert_eq!(all.len(), 1200);
    assert!(all.is_sorted_by(|a, b| a.global_position < b.global_position));
    for stream in &streams {
        let versions: Vec<_> = all
            .iter()
            .filter(|event| event.stream_id == *stream)
            .map(|event| event.version)
            .collect();
        assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>());
    }
    assert_eq!(store.head_position().await.unwrap(), all[1199].global_position);
    assert_eq!(store.safe_position().await.unwrap(), all[1199].global_position);
    for from in [0, 1, 499, 500, 501, 998, 1198] {
        let rest = read_all(&store, all[from].global_position, ReadAllOptions::new()).await;
        assert_eq!(rest, all[from + 1..], "from {from}");
    }
    for limit in [0, 1, 500, 501, 1199, 1200, 5000] {
        let some = read_all(&store, start, ReadAllOptions::new().limit(limit)).await;
        assert_eq!(some, all[..usize::try_from(limit).unwrap().min(1200)], "limit {limit}");
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
