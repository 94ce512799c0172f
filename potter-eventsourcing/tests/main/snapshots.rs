//! Snapshots, on every engine.

use std::sync::Arc;
use std::time::Duration;

use potter_core::testing::TestDatabase;
use potter_core::{Json, Metadata, new_id};
use potter_eventsourcing::{
    EventStore, Frequency, Hybrid, NewSnapshot, Repository, SnapshotStore, Snapshots, event_store,
    snapshot_store,
};

use crate::counter::{Counter, Do};

struct Kit {
    counters: Repository<Counter>,
    plain: Repository<Counter>,
    snapshots: Snapshots,
    store: Arc<dyn SnapshotStore>,
}

async fn kit(test: &TestDatabase, every: u64) -> Kit {
    let events = event_store(test.database()).unwrap();
    events.migrate().await.unwrap();
    let store = snapshot_store(test.database());
    let snapshots = Snapshots::new(Arc::clone(&store), Frequency(every));
    let counters = Repository::new(Arc::clone(&events)).with_snapshots(snapshots.clone());
    Kit { counters, plain: Repository::new(events), snapshots, store }
}

impl Kit {
    async fn add(&self, by: i64) -> u64 {
        let done = self.counters.execute("a", &Do::Add(by), Metadata::new()).await.unwrap();
        self.snapshots.flush().await;
        done.version
    }

    async fn versions(&self) -> Vec<u64> {
        let stream = self.counters.stream_id("a").unwrap();
        let list = self.store.list(Some(&stream), 0, 100).await.unwrap();
        list.iter().map(|snapshot| snapshot.version).collect()
    }

    /// Puts one there that says something else than the events: whoever uses it is found out.
    async fn plant(&self, version: u64, event_id: Option<uuid::Uuid>, schema: u32, state: &str) {
        let stream = self.counters.stream_id("a").unwrap();
        let event_id = match event_id {
            Some(id) => id,
            None => self.store.latest(&stream, 2, version).await.unwrap().unwrap().event_id,
        };
        let state = Json::parse(state.to_owned()).unwrap();
        let snapshot = NewSnapshot::new(stream, version, event_id, schema, state);
        self.store.save(snapshot, 10).await.unwrap();
    }

    async fn value(&self) -> (i64, u64) {
        let loaded = self.counters.load("a").await.unwrap();
        (loaded.state.value, loaded.version)
    }
}

async fn loads_begin_with_the_newest(test: TestDatabase) {
    let kit = kit(&test, 3).await;
    for _ in 0..7 {
        kit.add(1).await;
    }
    assert_eq!(kit.versions().await, [6, 3]);
    assert_eq!(kit.value().await, (7, 7));
    // It really is used: a wrong one is believed, as its event is the right one.
    kit.plant(6, None, 2, r#"{"value":100,"resets":0}"#).await;
    assert_eq!(kit.value().await, (101, 7));
    let differs = kit.counters.verify_snapshot("a").await.unwrap();
    assert_eq!((differs.len(), differs[0].field.as_str()), (1, "value"));
    assert_eq!(kit.plain.load("a").await.unwrap().state.value, 7);
    let mut tx = test.database().begin().await.unwrap();
    assert_eq!(kit.counters.load_in(&mut tx, "a").await.unwrap().state.value, 101);
    drop(tx);
    assert_eq!(kit.counters.take_snapshot("nobody").await.unwrap(), None);
    test.close().await;
}

async fn a_command_of_several_events_does_not_jump_over_it(test: TestDatabase) {
    let kit = kit(&test, 10).await;
    for _ in 0..4 {
        let command = Do::AddEach(vec![1; 7]);
        kit.counters.execute("a", &command, Metadata::new()).await.unwrap();
        kit.snapshots.flush().await;
    }
    assert_eq!(kit.versions().await, [28, 14]);
    assert!(kit.counters.verify_snapshot("a").await.unwrap().is_empty());
    test.close().await;
}

async fn only_the_newest_are_kept(test: TestDatabase) {
    let kit = kit(&test, 1).await;
    for _ in 0..6 {
        kit.add(1).await;
    }
    assert_eq!(kit.versions().await, [6, 5, 4]);
    let stream = kit.counters.stream_id("a").unwrap();
    assert_eq!(kit.store.delete_before(&stream, 6).await.unwrap(), 2);
    let left = kit.store.list(None, 0, 10).await.unwrap();
    assert_eq!(left.len(), 1);
    assert!(kit.store.delete(left[0].id).await.unwrap());
    assert!(!kit.store.delete(left[0].id).await.unwrap());
    assert_eq!(kit.value().await, (6, 6));
    test.close().await;
}

async fn snapshot_old_schema_ignored(test: TestDatabase) {
    let kit = kit(&test, 100).await;
    for _ in 0..3 {
        kit.add(1).await;
    }
    kit.counters.take_snapshot("a").await.unwrap();
    for schema in [1, 3] {
        kit.plant(3, None, schema, r#"{"value":100,"resets":0}"#).await;
    }
    assert_eq!(kit.value().await, (3, 3));
    test.close().await;
}

async fn a_corrupt_snapshot_falls_back_to_events(test: TestDatabase) {
    let kit = kit(&test, 100).await;
    for _ in 0..3 {
        kit.add(1).await;
    }
    kit.counters.take_snapshot("a").await.unwrap();
    kit.plant(3, None, 2, r#"["of another shape"]"#).await;
    assert_eq!(kit.value().await, (3, 3));
    assert_eq!(kit.add(1).await, 4);
    test.close().await;
}

async fn snapshot_newer_than_truncated_stream_ignored(test: TestDatabase) {
    let kit = kit(&test, 100).await;
    for _ in 0..3 {
        kit.add(1).await;
    }
    // Ahead of the stream; and of a stream that had another event there.
    kit.plant(9, Some(new_id()), 2, r#"{"value":100,"resets":0}"#).await;
    assert_eq!(kit.value().await, (3, 3));
    kit.store.delete_before(&kit.counters.stream_id("a").unwrap(), 100).await.unwrap();
    kit.plant(2, Some(new_id()), 2, r#"{"value":100,"resets":0}"#).await;
    assert_eq!(kit.value().await, (3, 3));
    assert_eq!(kit.add(1).await, 4);
    test.close().await;
}

async fn snapshot_not_visible_if_append_rolls_back(test: TestDatabase) {
    let kit = kit(&test, 1).await;
    for commit in [false, true] {
        let mut tx = test.database().begin().await.unwrap();
        let command = Do::Add(5);
        kit.counters.execute_in(&mut tx, "a", &command, Metadata::new()).await.unwrap();
        if commit {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
        }
        kit.snapshots.flush().await;
        assert_eq!(kit.versions().await.len(), usize::from(commit));
    }
    assert_eq!(kit.value().await, (5, 1));
    test.close().await;
}

async fn a_command_with_a_key_is_found_behind_a_snapshot(test: TestDatabase) {
    let kit = kit(&test, 1).await;
    let once = async |key: &str, by| {
        let command = Do::Add(by);
        let done = kit.counters.execute_once("a", key, &command, Metadata::new()).await.unwrap();
        kit.snapshots.flush().await;
        (done.duplicate, done.state.value, done.version)
    };
    assert_eq!(once("first", 1).await, (false, 1, 1));
    assert_eq!(once("second", 10).await, (false, 11, 2));
    assert_eq!(once("third", 100).await, (false, 111, 3));
    assert_eq!(once("first", 1).await, (true, 1, 1), "answered as the first time");
    let mut tx = test.database().begin().await.unwrap();
    let again = kit
        .counters
        .execute_once_in(&mut tx, "a", "second", &Do::Add(10), Metadata::new())
        .await
        .unwrap();
    assert_eq!((again.duplicate, again.state.value), (true, 11));
    drop(tx);
    test.close().await;
}

async fn hybrid_takes_them_by_time(test: TestDatabase) {
    let events = event_store(test.database()).unwrap();
    events.migrate().await.unwrap();
    let store = snapshot_store(test.database());
    let hybrid = Hybrid { events: 1000, interval: Duration::from_millis(150) };
    let snapshots = Snapshots::new(Arc::clone(&store), hybrid);
    let counters = Repository::<Counter>::new(events).with_snapshots(snapshots.clone());
    let add = async || {
        counters.execute("a", &Do::Add(1), Metadata::new()).await.unwrap();
        snapshots.flush().await;
        store.list(None, 0, 10).await.unwrap().len()
    };
    assert_eq!(add().await, 0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(add().await, 1);
    test.close().await;
}

potter_core::on_every_engine!(
    loads_begin_with_the_newest,
    a_command_of_several_events_does_not_jump_over_it,
    only_the_newest_are_kept,
    snapshot_old_schema_ignored,
    a_corrupt_snapshot_falls_back_to_events,
    snapshot_newer_than_truncated_stream_ignored,
    snapshot_not_visible_if_append_rolls_back,
    a_command_with_a_key_is_found_behind_a_snapshot,
    hybrid_takes_them_by_time,
);
