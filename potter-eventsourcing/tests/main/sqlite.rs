//! SQLite: one writer at a time, and nobody is told "busy".

use std::sync::Arc;

use futures::TryStreamExt;
use potter_core::Database;
use potter_eventsourcing::{
    EventStore, ExpectedVersion, NewEvent, ReadAllOptions, RecordedEvent, StreamId, event_store,
};

use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_32_writers_no_sqlite_busy() {
    let sqlite = support::sqlite().await;
    let writers: Vec<_> = (0..32)
        .map(|writer| {
            let store = Arc::clone(&sqlite.store);
            tokio::spawn(async move {
                let own = StreamId::new("writer", writer).unwrap();
                let shared = StreamId::new("shared", 1).unwrap();
                for version in 0..25 {
                    let event = || vec![NewEvent::new("written", &version).unwrap()];
                    let exact = ExpectedVersion::Exact(version);
                    if writer % 2 == 0 {
                        store.append(&own, exact, event()).await.unwrap();
                        store.append(&shared, ExpectedVersion::Any, event()).await.unwrap();
                    } else {
                        let mut tx = store.database().unwrap().begin().await.unwrap();
                        let any = ExpectedVersion::Any;
                        store.append_in(&mut tx, &own, exact, event()).await.unwrap();
                        store.append_in(&mut tx, &shared, any, event()).await.unwrap();
                        tx.commit().await.unwrap();
                    }
                }
            })
        })
        .collect();
    let mut after = 0;
    let mut seen = 0;
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let events: Vec<RecordedEvent> =
            sqlite.store.read_all(after, ReadAllOptions::new()).try_collect().await.unwrap();
        seen += events.len();
        after = events.last().map_or(after, |event| event.global_position);
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let rest: Vec<RecordedEvent> =
        sqlite.store.read_all(after, ReadAllOptions::new()).try_collect().await.unwrap();
    assert_eq!(seen + rest.len(), 32 * 25 * 2);
    let shared = StreamId::new("shared", 1).unwrap();
    assert_eq!(sqlite.store.stream_version(&shared).await.unwrap(), 32 * 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("events.db").display());
    let stream = StreamId::new("order", 1).unwrap();
    for version in 0..3 {
        let database = Database::connect(&url).await.unwrap();
        let store = event_store(&database).unwrap();
        store.migrate().await.unwrap();
        let event = NewEvent::new("order.touched", &version).unwrap();
        let exact = ExpectedVersion::Exact(version);
        let appended = store.append(&stream, exact, vec![event]).await.unwrap();
        assert_eq!(appended.last_position, version + 1);
        database.close().await;
    }
}
