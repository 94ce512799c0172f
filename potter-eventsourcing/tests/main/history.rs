//! Time travel, upcasting and replay, on every engine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use futures::TryStreamExt;
use potter_core::testing::TestDatabase;
use potter_core::{Metadata, values};
use potter_eventsourcing::{
    At, Change, ErrorKind, EventFilter, EventStore, ExpectedVersion, Frequency, NewEvent,
    ReadOptions, Replay, Repository, Snapshots, StreamId, UnknownEvents, Upcast, Upcasters, WhatIf,
    event_store, snapshot_store,
};
use serde_json::json;

use crate::counter::{By, Counter, CounterEvent, Do};

async fn counters(test: &TestDatabase) -> Repository<Counter> {
    let events = event_store(test.database()).unwrap();
    events.migrate().await.unwrap();
    Repository::new(events)
}

async fn history(counters: &Repository<Counter>, commands: impl IntoIterator<Item = Do>) {
    for command in commands {
        counters.execute("a", &command, Metadata::new()).await.unwrap();
    }
}

async fn aggregates_as_they_were(test: TestDatabase) {
    let counters = counters(&test).await;
    let snapshots = Snapshots::new(snapshot_store(test.database()), Frequency(2));
    let with_snapshots = counters.clone().with_snapshots(snapshots.clone());
    history(&with_snapshots, [Do::Add(1), Do::Add(2), Do::Reset, Do::Add(5)]).await;
    snapshots.flush().await;
    for counters in [&counters, &with_snapshots] {
        for (version, value) in [(0, 0), (1, 1), (2, 3), (3, 0), (4, 5)] {
            let loaded = counters.load_at("a", At::Version(version)).await.unwrap();
            assert_eq!((loaded.state.value, loaded.version), (value, version));
        }
        let beyond = counters.load_at("a", At::Version(5)).await.unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::NotFound);
        assert!(beyond.to_string().contains("is at version 4"), "{beyond}");
        let nobody = counters.load_at("b", At::Version(1)).await.unwrap_err();
        assert!(nobody.to_string().contains("there is no stream counter-b"), "{nobody}");
    }
    let changed = with_snapshots.compare("a", At::Version(2), At::Version(3)).await.unwrap();
    let fields: Vec<_> = changed.iter().map(|one| (one.field.as_str(), one.change)).collect();
    assert_eq!(fields, [("resets", Change::Modified), ("value", Change::Modified)]);
    let timeline = with_snapshots.timeline("a", 2, 2).await.unwrap();
    let seen: Vec<_> = timeline
        .iter()
        .map(|entry| (entry.event.version, entry.state.as_str(), entry.changes.len()))
        .collect();
    assert_eq!(seen, [(2, r#"{"resets":0,"value":3}"#, 1), (3, r#"{"resets":1,"value":0}"#, 2)]);
    assert_eq!(counters.timeline("b", 1, 9).await.unwrap_err().kind(), ErrorKind::NotFound);
    test.close().await;
}

async fn what_might_have_been(test: TestDatabase) {
    let counters = counters(&test).await;
    history(&counters, [Do::Add(1), Do::Add(2), Do::Reset, Do::Add(5)]).await;
    let added = |by| CounterEvent::Added(By { by });
    for (what_if, value) in [
        (WhatIf::new(), 5),
        (WhatIf::new().without(3), 8),
        (WhatIf::new().replace(4, added(50)), 50),
        (WhatIf::new().after(0, added(7)).after(3, added(100)), 105),
        (WhatIf::new().then(added(1)).then(CounterEvent::Reset), 0),
    ] {
        assert_eq!(counters.what_if("a", &what_if).await.unwrap().value, value, "{what_if:?}");
    }
    let beyond = counters.what_if("a", &WhatIf::new().without(5)).await.unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::NotFound);
    assert_eq!(counters.load("a").await.unwrap().version, 4, "nothing was written");
    test.close().await;
}

/// Sets the time at which the events of a stream were recorded.
async fn recorded_at(test: &TestDatabase, times: &[chrono::DateTime<chrono::Utc>]) {
    let statement = "UPDATE potter_events SET recorded_at = $2 WHERE version = $1";
    for (version, time) in (1_i64..).zip(times) {
        test.database().execute(statement, values![version, *time]).await.unwrap();
    }
}

async fn restore_at_timestamp_with_backward_clock(test: TestDatabase) {
    let counters = counters(&test).await;
    history(&counters, [Do::Add(1), Do::Add(2), Do::Add(4), Do::Add(8)]).await;
    let noon = "2026-01-01T12:00:00Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let minutes = |n| noon + TimeDelta::minutes(n);
    // The clock was set back before the third event.
    recorded_at(&test, &[minutes(0), minutes(10), minutes(5), minutes(20)]).await;
    let at = async |n| counters.load_at("a", At::Time(minutes(n))).await.unwrap().version;
    let versions = [at(0).await, at(5).await, at(9).await, at(10).await, at(20).await];
    assert_eq!(versions, [1, 1, 1, 3, 4], "later is never earlier");
    let store = counters.store();
    let position = async |n| store.position_at(minutes(n)).await.unwrap();
    let positions = [position(-1).await, position(0).await, position(9).await, position(10).await];
    assert_eq!(positions, [0, 1, 1, 3]);
    assert_eq!(store.position_at(minutes(99)).await.unwrap(), 4);
    let before = counters.load_at("a", At::Time(minutes(-1))).await.unwrap_err();
    assert_eq!(before.kind(), ErrorKind::NotFound);
    assert!(before.to_string().contains("is before the first event"), "{before}");
    test.close().await;
}

fn old(event_type: &str, schema_version: u32, payload: &serde_json::Value) -> NewEvent {
    NewEvent::new(event_type, payload).unwrap().with_schema_version(schema_version)
}

async fn upcast_v1_to_v4_equals_stepwise(test: TestDatabase) {
    let counters = counters(&test).await;
    let stream = counters.stream_id("a").unwrap();
    let events = vec![
        old("counter.plus", 1, &json!(5)),
        old("counter.added", 1, &json!({"amount": 6})),
        old("counter.added_twice", 1, &json!([7, 8])),
        old("counter.noise", 1, &json!(null)),
        old("counter.added", 2, &json!({"by": 100})),
    ];
    counters.store().append(&stream, ExpectedVersion::NoStream, events).await.unwrap();
    let error = counters.load("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownEvent);
    assert!(error.to_string().contains("counter.plus"), "{error}");
    let upcasters = Upcasters::new()
        .step("counter.plus", 1, |payload| Ok(json!({"amount": payload})))
        .rename(("counter.plus", 2), ("counter.added", 1))
        .step("counter.added", 1, |payload| Ok(json!({"by": payload["amount"]})))
        .split("counter.added_twice", 1, |payload| {
            let each = payload.as_array().ok_or("no list")?.clone();
            Ok(each.into_iter().map(|by| Upcast::new("counter.plus", 1, by)).collect())
        });
    let upcast = counters.clone().upcasters(upcasters.clone());
    let error = upcast.load("a").await.unwrap_err();
    assert!(error.to_string().contains("counter.noise"), "{error}");
    let loaded = upcast.unknown_events(UnknownEvents::Skip).load("a").await.unwrap();
    assert_eq!((loaded.state.value, loaded.version), (126, 5));
    // The chain is the steps, one by one.
    let all = counters.store().read_stream(&stream, ReadOptions::forwards());
    let all: Vec<_> = all.try_collect().await.unwrap();
    let direct = upcasters.apply(&all[0]).unwrap();
    assert_eq!((direct[0].event_type.as_str(), direct[0].schema_version), ("counter.added", 2));
    assert_eq!(direct[0].payload.as_str(), r#"{"by":5}"#);
    assert_eq!(upcasters.apply(&all[4]).unwrap(), all[4..], "today's stay bit for bit");
    let circle = Upcasters::new()
        .rename(("counter.plus", 1), ("counter.minus", 1))
        .rename(("counter.minus", 1), ("counter.plus", 1));
    assert_eq!(circle.apply(&all[0]).unwrap_err().kind(), ErrorKind::Corrupt);
    test.close().await;
}

async fn many(test: &TestDatabase) -> Arc<dyn EventStore> {
    let store = event_store(test.database()).unwrap();
    store.migrate().await.unwrap();
    for round in 0..20_u64 {
        for n in 0..10 {
            let event_type = ["a.happened", "b.happened"][usize::try_from(n % 2).unwrap()];
            let stream = StreamId::new("replayed", n).unwrap();
            let events = vec![NewEvent::new(event_type, &round).unwrap()];
            store.append(&stream, ExpectedVersion::Any, events).await.unwrap();
        }
    }
    store
}

async fn a_replay_gives_each_event_once_in_its_streams_order(test: TestDatabase) {
    let store = many(&test).await;
    for (parallel, batch) in [(1, 7), (4, 3), (64, 1000)] {
        let last = Mutex::new(HashMap::<StreamId, u64>::new());
        let (seen, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let replay = Replay::new(Arc::clone(&store)).parallel(parallel).batch_size(batch);
        let done = replay
            .run(
                |events| {
                    assert!(events.len() <= batch as usize);
                    for event in &events {
                        let mut last = last.lock().unwrap();
                        let before = last.insert(event.stream_id.clone(), event.version);
                        assert_eq!(before.unwrap_or(0) + 1, event.version);
                    }
                    seen.fetch_add(events.len(), Ordering::SeqCst);
                    std::future::ready(Ok(()))
                },
                |progress| {
                    assert!(progress.done <= progress.total && progress.percent() <= 100.0);
                    told.fetch_add(1, Ordering::SeqCst);
                },
            )
            .await
            .unwrap();
        assert_eq!((seen.load(Ordering::SeqCst), done.done, done.total), (200, 200, 200));
        assert!(told.load(Ordering::SeqCst) > 0 && done.position >= 200);
    }
    test.close().await;
}

async fn a_replay_of_a_part(test: TestDatabase) {
    let store = many(&test).await;
    let count = async |replay: Replay| {
        let done = replay.run(|_| std::future::ready(Ok(())), |_| {}).await.unwrap();
        assert_eq!(done.done, done.total);
        done.done
    };
    let replay = || Replay::new(Arc::clone(&store));
    assert_eq!(count(replay().filter(EventFilter::all().event_types(["a.happened"]))).await, 100);
    assert_eq!(count(replay().after_position(150)).await, 50);
    assert_eq!(count(replay().after_position(50).until_position(60)).await, 10);
    let now = test.database().now().await.unwrap();
    assert_eq!(count(replay().from_time(now + TimeDelta::hours(1))).await, 0);
    assert_eq!(count(replay().from_time(now - TimeDelta::hours(1))).await, 200);
    let failing = replay().batch_size(10).run(
        |events| {
            let bad = events.iter().any(|event| event.global_position == 35);
            std::future::ready(if bad { Err("no".into()) } else { Ok(()) })
        },
        |_| {},
    );
    let error = tokio::time::timeout(Duration::from_secs(60), failing).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler, "{error}");
    test.close().await;
}

potter_core::on_every_engine!(
    aggregates_as_they_were,
    what_might_have_been,
    upcast_v1_to_v4_equals_stepwise,
    a_replay_gives_each_event_once_in_its_streams_order,
    a_replay_of_a_part,
);

mod clocks {
    use potter_core::testing::TestDatabase;

    #[tokio::test(flavor = "multi_thread")]
    async fn restore_at_timestamp_with_backward_clock() {
        for test in [TestDatabase::sqlite().await, TestDatabase::postgres().await] {
            super::restore_at_timestamp_with_backward_clock(test).await;
        }
    }
}
