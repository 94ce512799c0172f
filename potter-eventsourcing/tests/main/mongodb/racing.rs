//! Several processes append at once; requests come late, answers never.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use potter_eventsourcing::{
    ErrorKind, EventStore, ExpectedVersion, MongoOptions, NewEvent, ReadAllOptions, RecordedEvent,
    StreamId,
};

use super::proxy::Proxy;
use crate::support::MongoDatabase;

fn stream(n: u64) -> StreamId {
    StreamId::new("race", n).unwrap()
}

fn events(count: u64) -> Vec<NewEvent> {
    (0..count).map(|n| NewEvent::new("race.ran", &n).unwrap()).collect()
}

async fn all(store: &dyn EventStore, after: u64) -> Vec<RecordedEvent> {
    store.read_all(after, ReadAllOptions::new()).try_collect().await.unwrap()
}

/// No position is left out: whoever read up to one has seen all below it.
fn is_dense(events: &[RecordedEvent]) -> bool {
    events.iter().zip(1..).all(|(event, position)| event.global_position == position)
}

#[tokio::test(flavor = "multi_thread")]
async fn mongo_gap_late_commit() {
    let test = MongoDatabase::new().await;
    let proxy = Proxy::start(&test.server).await;
    let slow = test.store_with(&proxy.url, MongoOptions::new()).await;
    let (quick, reader) = (test.client().await, test.client().await);
    quick.append(&stream(0), ExpectedVersion::Any, events(2)).await.unwrap();

    // The slow one has decided on position 3 and its insert is on the way.
    proxy.hold_next_insert();
    let late =
        tokio::spawn(
            async move { slow.append(&stream(1), ExpectedVersion::NoStream, events(2)).await },
        );
    proxy.holds().await;
    let first = quick.append(&stream(2), ExpectedVersion::NoStream, events(3)).await.unwrap();
    assert_eq!(first.last_position, 5);
    let mut read = all(&*reader, 0).await;
    assert_eq!(read.len(), 5, "a reader goes on while it is on the way");

    // It comes late: its place is taken, and it goes to the end.
    proxy.release();
    let appended = late.await.unwrap().unwrap();
    assert_eq!((appended.first_version, appended.last_position), (1, 7));
    assert!(!appended.duplicate);
    let after = read.last().unwrap().global_position;
    read.extend(all(&*reader, after).await);
    assert!(is_dense(&read) && read.len() == 7, "{read:?}");
    assert_eq!(read, all(&*quick, 0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn mongo_write_conflict_retried() {
    for (other, expected) in [(2, None), (1, Some(ErrorKind::Conflict))] {
        let test = MongoDatabase::new().await;
        let proxy = Proxy::start(&test.server).await;
        let slow = test.store_with(&proxy.url, MongoOptions::new()).await;
        let quick = test.client().await;
        proxy.hold_next_insert();
        let late = tokio::spawn(async move {
            slow.append(&stream(1), ExpectedVersion::Exact(0), events(1)).await
        });
        proxy.holds().await;
        quick.append(&stream(other), ExpectedVersion::NoStream, events(1)).await.unwrap();
        proxy.release();
        match (late.await.unwrap(), expected) {
            // Somebody else's stream: it is nobody's conflict.
            (Ok(appended), None) => assert_eq!(appended.last_position, 2),
            // The same stream: the decision was made on what is not true any more.
            (Err(error), Some(kind)) => assert_eq!(error.kind(), kind, "{error}"),
            (answer, _) => panic!("with stream {other}: {answer:?}"),
        }
        assert!(is_dense(&all(&*quick, 0).await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_settled() {
    let test = MongoDatabase::new().await;
    let proxy = Proxy::start(&test.server).await;
    let options = || MongoOptions::new().timeout(Duration::from_secs(5));
    let store = test.store_with(&proxy.url, options()).await;
    store.append(&stream(1), ExpectedVersion::NoStream, events(1)).await.unwrap();
    proxy.lose_next_answer();
    let batch = events(2);
    let appended =
        store.append(&stream(1), ExpectedVersion::Exact(1), batch.clone()).await.unwrap();
    assert!(proxy.lost() > 0, "the answer was lost");
    assert_eq!((appended.first_version, appended.last_version), (2, 3));
    assert!(appended.duplicate, "it was found by its event ids");
    let again = store.append(&stream(1), ExpectedVersion::Exact(1), batch).await.unwrap();
    assert_eq!(again, appended);
    assert!(is_dense(&all(&store, 0).await));
    assert_eq!(store.stream_version(&stream(1)).await.unwrap(), 3);
}

/// The request itself comes after its repetition was answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_request_does_nothing() {
    let test = MongoDatabase::new().await;
    let proxy = Proxy::start(&test.server).await;
    let options = MongoOptions::new().timeout(Duration::from_secs(5));
    let store = test.store_with(&proxy.url, options).await;
    proxy.hold_next_insert();
    // After five seconds it is sent again, on another connection.
    let appended = store.append(&stream(1), ExpectedVersion::Any, events(2)).await.unwrap();
    assert_eq!((appended.last_version, appended.duplicate), (2, false));
    proxy.release();
    let more = store.append(&stream(1), ExpectedVersion::Exact(2), events(1)).await.unwrap();
    assert_eq!(more.last_position, 3);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let read = all(&store, 0).await;
    assert!(is_dense(&read) && read.len() == 3, "{read:?}");
}

/// 16 writers over 4 processes; every reader, at every moment, sees a log without a gap.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_writers() {
    const WRITERS: u64 = 16;
    const APPENDS: u64 = 6;
    let test = MongoDatabase::new().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(test.client().await);
    }
    let ended = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for _ in 0..2 {
        let (client, ended) = (test.client().await, Arc::clone(&ended));
        readers.push(tokio::spawn(async move {
            let mut read = Vec::new();
            loop {
                let last = ended.load(Ordering::SeqCst);
                let after = read.last().map_or(0, |event: &RecordedEvent| event.global_position);
                read.extend(all(&*client, after).await);
                assert!(is_dense(&read));
                if last {
                    return read;
                }
            }
        }));
    }
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&clients[usize::try_from(writer % 4).unwrap()]);
        writers.push(tokio::spawn(async move {
            for n in 0..APPENDS {
                let shared = ExpectedVersion::Any;
                store.append(&stream(1000), shared, events(1 + n % 3)).await.unwrap();
                let own = ExpectedVersion::Exact(n);
                store.append(&stream(writer), own, events(1)).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    ended.store(true, Ordering::SeqCst);
    let shared = WRITERS * (0..APPENDS).map(|n| 1 + n % 3).sum::<u64>();
    for reader in readers {
        let read = reader.await.unwrap();
        assert_eq!(read.len() as u64, shared + WRITERS * APPENDS);
        for of in (0..WRITERS).map(stream).chain([stream(1000)]) {
            let versions = read.iter().filter(|event| event.stream_id == of);
            assert!(versions.zip(1..).all(|(event, version)| event.version == version), "{of}");
        }
    }
}

/// The same command twice, from two processes at once.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_events_from_two_processes() {
    let test = MongoDatabase::new().await;
    let clients = [test.client().await, test.client().await];
    for round in 0..10 {
        let batch = events(2);
        let both = clients.iter().map(|client| {
            let batch = batch.clone();
            async move { client.append(&stream(round), ExpectedVersion::NoStream, batch).await }
        });
        let answers = futures::future::try_join_all(both).await.unwrap();
        assert_eq!(answers.iter().filter(|answer| answer.duplicate).count(), 1, "{answers:?}");
        assert_eq!(answers[0].last_position, answers[1].last_position);
    }
    assert_eq!(all(&*clients[0], 0).await.len(), 20);
}
