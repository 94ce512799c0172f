//! Appends in the caller's transaction.

use std::sync::Arc;

use super::{append, assert_kind, event, events, read, read_all, read_versions, stream};
use crate::error::ErrorKind;
use crate::event::Appended;
use crate::store::{EventStore, ExpectedVersion, ReadAllOptions, ReadOptions};

type Store = Arc<dyn EventStore>;

/// What a store without transactions of the caller's does with one.
pub(super) async fn are_refused(store: Store) {
    let stream = stream();
    let mut tx = potter_core::Database::memory().begin().await.unwrap();
    let appended = store.append_in(&mut tx, &stream, ExpectedVersion::Any, events(1)).await;
    assert_kind(appended, ErrorKind::Unsupported);
    let read = store.read_stream_in(&mut tx, &stream, ReadOptions::forwards()).await;
    assert_kind(read, ErrorKind::Unsupported);
    assert_eq!(store.stream_version(&stream).await.unwrap(), 0);
}

pub(super) async fn rolled_back_leaves_nothing(store: Store) {
    let (stream, batch) = (stream(), events(2));
    let start = store.safe_position().await.unwrap();
    for dropped in [true, false] {
        let mut tx = store.database().unwrap().begin().await.unwrap();
        let batch = batch.clone();
        store.append_in(&mut tx, &stream, ExpectedVersion::NoStream, batch).await.unwrap();
        if dropped {
            drop(tx);
        } else {
            tx.rollback().await.unwrap();
        }
    }
    assert_eq!(store.stream_version(&stream).await.unwrap(), 0);
    assert!(read(&store, &stream, ReadOptions::forwards()).await.is_empty());
    assert!(read_all(&store, start, ReadAllOptions::new()).await.is_empty());
    let appended = store.append(&stream, ExpectedVersion::NoStream, batch).await.unwrap();
    assert!(!appended.duplicate, "the ids are free again");
    assert_eq!(read_all(&store, start, ReadAllOptions::new()).await.len(), 2);
}

pub(super) async fn committed_is_there(store: Store) {
    let (one, other) = (stream(), stream());
    let start = store.safe_position().await.unwrap();
    let mut tx = store.database().unwrap().begin().await.unwrap();
    for (stream, first) in [(&one, 1), (&other, 1), (&one, 3)] {
        let expected = ExpectedVersion::Exact(first - 1);
        let appended = store.append_in(&mut tx, stream, expected, events(2)).await.unwrap();
        assert_eq!(appended.first_version, first);
    }
    tx.commit().await.unwrap();
    assert_eq!(read_versions(&store, &one, ReadOptions::forwards()).await, [1, 2, 3, 4]);
    assert_eq!(read_versions(&store, &other, ReadOptions::forwards()).await, [1, 2]);
    assert_eq!(read_all(&store, start, ReadAllOptions::new()).await.len(), 6);
}

pub(super) async fn own_appends_are_seen(store: Store) {
    let stream = stream();
    append(&store, &stream, ExpectedVersion::NoStream, 1).await.unwrap();
    let mut tx = store.database().unwrap().begin().await.unwrap();
    store.append_in(&mut tx, &stream, ExpectedVersion::Exact(1), events(1)).await.unwrap();
    let page = store.read_stream_in(&mut tx, &stream, ReadOptions::forwards()).await.unwrap();
    assert_eq!(page.iter().map(|event| event.version).collect::<Vec<_>>(), [1, 2]);
    tx.commit().await.unwrap();
}

pub(super) async fn a_conflict_leaves_the_transaction_usable(store: Store) {
    let (stream, other, used) = (stream(), stream(), event(1));
    store.append(&stream, ExpectedVersion::NoStream, vec![used.clone()]).await.unwrap();
    let mut tx = store.database().unwrap().begin().await.unwrap();
    store.append_in(&mut tx, &other, ExpectedVersion::NoStream, events(1)).await.unwrap();
    for expected in [ExpectedVersion::NoStream, ExpectedVersion::Exact(7)] {
        let result = store.append_in(&mut tx, &stream, expected, events(2)).await;
        assert_kind(result, ErrorKind::Conflict);
    }
    let result = store.append_in(&mut tx, &other, ExpectedVersion::Any, vec![used]).await;
    assert_kind(result, ErrorKind::DuplicateEventId);
    let result = store.append_in(&mut tx, &other, ExpectedVersion::Any, vec![]).await;
    assert_kind(result, ErrorKind::InvalidInput);
    store.append_in(&mut tx, &stream, ExpectedVersion::Exact(1), events(2)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.stream_version(&stream).await.unwrap(), 3);
    assert_eq!(read_versions(&store, &other, ReadOptions::forwards()).await, [1]);
}

pub(super) async fn a_repetition_in_a_transaction(store: Store) {
    let (stream, batch) = (stream(), events(2));
    let mut tx = store.database().unwrap().begin().await.unwrap();
    let expected = ExpectedVersion::NoStream;
    let first = store.append_in(&mut tx, &stream, expected, batch.clone()).await.unwrap();
    let again = store.append_in(&mut tx, &stream, expected, batch.clone()).await.unwrap();
    assert_eq!(again, Appended { duplicate: true, ..first });
    tx.commit().await.unwrap();
    let again = store.append(&stream, expected, batch).await.unwrap();
    assert_eq!(again, Appended { duplicate: true, ..first });
    assert_eq!(store.stream_version(&stream).await.unwrap(), 2);
}

pub(super) async fn a_stream_is_reused_after_a_rollback(store: Store) {
    let stream = stream();
    append(&store, &stream, ExpectedVersion::NoStream, 2).await.unwrap();
    let mut tx = store.database().unwrap().begin().await.unwrap();
    store.append_in(&mut tx, &stream, ExpectedVersion::Exact(2), events(3)).await.unwrap();
    drop(tx);
    let appended = append(&store, &stream, ExpectedVersion::Exact(2), 1).await.unwrap();
    assert_eq!((appended.first_version, appended.last_version), (3, 3));
    assert_eq!(read_versions(&store, &stream, ReadOptions::forwards()).await, [1, 2, 3]);
}
