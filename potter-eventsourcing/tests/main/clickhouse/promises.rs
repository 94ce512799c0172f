//! What the mirror promises, when everything breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use potter_core::Backoff;
use potter_core::testing::TestDatabase;
use potter_eventsourcing::{
    ClickHouse, ClickHouseMirror, ErrorKind, EventFilter, EventStore, MirrorHandle, MirrorStatus,
    event_store,
};

use super::proxy::Proxy;
use super::{Tables, server};
use crate::analytics::{all_events, answers_are_those_of_a_fold, fill};

async fn store(test: &TestDatabase) -> Arc<dyn EventStore> {
    let store = event_store(test.database()).unwrap();
    store.migrate().await.unwrap();
    store
}

async fn until(handle: &MirrorHandle, what: &str, holds: impl Fn(&MirrorStatus) -> bool) {
    let began = Instant::now();
    while !holds(&handle.status()) {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {:?}", handle.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn quick(store: &Arc<dyn EventStore>, clickhouse: ClickHouse) -> ClickHouseMirror {
    ClickHouseMirror::new(Arc::clone(store), clickhouse)
        .linger(Duration::from_millis(5))
        .retry(Backoff::fixed(Duration::from_millis(20)).unlimited())
}

/// The same block again: dropped by its token. Another block of the same events: one row each for
/// whoever reads the view, before a merge and after it.
async fn clickhouse_resend_batch_no_duplicates_after_merge_and_before(test: TestDatabase) {
    let (store, tables, proxy) = (store(&test).await, Tables::new().await, Proxy::start().await);
    fill(&*store, 40).await;
    let events = all_events(&*store).await;
    let by_proxy = tables.through(&proxy.url).await;
    let mirror = quick(&store, by_proxy).batch_size(50);
    // The insert takes effect, and its answer is lost; again and again.
    let mut failed = 0;
    for _ in 0..6 {
        proxy.swallow(true);
        failed += u32::from(mirror.catch_up().await.is_err());
    }
    proxy.swallow(false);
    assert!(failed > 0 && proxy.swallowed() > 0, "{failed} failed");
    let status = mirror.catch_up().await.unwrap();
    assert_eq!(status.position, Some(events.last().unwrap().global_position));
    assert_eq!(tables.rows_raw().await, 120, "no block came twice");
    tables.is_the_log(&events).await;
    // Others who send the same events in other blocks: the server does not know them again.
    for (name, batch) in [("second", 7), ("third", 1000)] {
        let other = quick(&store, tables.direct.clone()).name(name).unwrap().batch_size(batch);
        other.catch_up().await.unwrap();
        tables.is_the_log(&events).await;
    }
    assert!(tables.rows_raw().await > 120, "there are doubles below the view");
    tables.is_the_log(&events).await;
    tables.merge().await;
    assert_eq!(tables.rows_raw().await, 120);
    tables.is_the_log(&events).await;
    tables.drop().await;
    test.close().await;
}

/// Mirrors are killed at every moment while the log grows, and begun again: the bounds tell them
/// what to send again, and nothing is lost or seen twice.
async fn killed_at_any_moment_nothing_is_lost_or_doubled(test: TestDatabase) {
    let (store, tables, proxy) = (store(&test).await, Tables::new().await, Proxy::start().await);
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        async move {
            while !done.load(Ordering::SeqCst) {
                fill(&*store, 2).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let (mut resent, mut seed) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    // More lives, and longer ones, where a busy machine lets few of them get anywhere.
    for life in 0_u32.. {
        if life >= 25 && resent > 0 {
            break;
        }
        assert!(life < 500, "no block was sent again");
        let way = tables.through(&proxy.url).await;
        let mirror = quick(&store, way).batch_size(5 + life % 7);
        let handle = mirror.handle();
        let task = tokio::spawn(mirror.run(std::future::pending()));
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        tokio::time::sleep(Duration::from_millis(seed % (60 + 4 * u64::from(life)))).await;
        // Every third loses answers first.
        proxy.swallow(life % 3 == 0);
        tokio::time::sleep(Duration::from_millis(seed % 17)).await;
        task.abort();
        let _ = task.await;
        proxy.swallow(false);
        resent += handle.status().resent;
        // A view in between has no event twice and no hole.
        let view = tables.view().await;
        let events = all_events(&*store).await;
        let positions: Vec<_> = view.iter().map(|one| one.global_position).collect();
        let expected: Vec<_> =
            events.iter().take(view.len()).map(|event| event.global_position).collect();
        assert_eq!(positions, expected, "life {life}");
    }
    done.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    let mirror = quick(&store, tables.direct.clone());
    mirror.catch_up().await.unwrap();
    let events = all_events(&*store).await;
    tables.is_the_log(&events).await;
    answers_are_those_of_a_fold(&tables.direct.analytics(), &events).await;
    tables.merge().await;
    assert_eq!(tables.rows_raw().await, events.len() as u64);
    tables.drop().await;
    test.close().await;
}

async fn a_server_that_is_away_is_waited_for(test: TestDatabase) {
    let (store, tables, proxy) = (store(&test).await, Tables::new().await, Proxy::start().await);
    fill(&*store, 5).await;
    let way = tables.through(&proxy.url).await;
    proxy.refuse(true);
    let mirror = quick(&store, way);
    let handle = mirror.handle();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(mirror.run(async move {
        let _ = stopped.await;
    }));
    until(&handle, "it fails", |status| status.failures >= 3).await;
    let status = handle.status();
    assert!(status.failing_since.is_some() && status.position.is_none(), "{status:?}");
    let failure = status.failure.unwrap();
    assert!(failure.contains(proxy.url.split('/').nth(2).unwrap()), "{failure}");
    proxy.refuse(false);
    until(&handle, "it goes on", |status| status.mirrored == 15).await;
    until(&handle, "it says so", |status| status.failure.is_none()).await;
    // Live, and away in between.
    fill(&*store, 5).await;
    until(&handle, "it follows", |status| status.mirrored == 30).await;
    proxy.refuse(true);
    fill(&*store, 5).await;
    until(&handle, "it fails again", |status| status.failures >= 2).await;
    proxy.refuse(false);
    let head = store.head_position().await.unwrap();
    until(&handle, "it catches up", |status| status.position == Some(head)).await;
    stop.send(()).unwrap();
    running.await.unwrap();
    tables.is_the_log(&all_events(&*store).await).await;
    tables.drop().await;
    test.close().await;
}

async fn a_part_of_the_log_is_mirrored_and_mirrored_anew(test: TestDatabase) {
    let (store, tables) = (store(&test).await, Tables::new().await);
    fill(&*store, 20).await;
    let filter = EventFilter::all().stream_types(["account"]);
    let mirror = quick(&store, tables.direct.clone()).filter(filter.clone()).batch_size(6);
    let of_accounts: Vec<_> =
        all_events(&*store).await.into_iter().filter(|event| filter.matches(event)).collect();
    for _ in 0..3 {
        let status = mirror.catch_up().await.unwrap();
        assert_eq!(status.position, Some(store.head_position().await.unwrap()));
        tables.is_the_log(&of_accounts).await;
        // The same blocks again, under the same tokens, into the empty table.
        mirror.reset().await.unwrap();
        assert_eq!(tables.view().await, []);
    }
    // Another log: said, and not mixed in.
    mirror.catch_up().await.unwrap();
    let other = TestDatabase::memory();
    let shorter = self::store(&other).await;
    fill(&*shorter, 1).await;
    let error = quick(&shorter, tables.direct.clone()).catch_up().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("another log"), "{error}");
    tables.is_the_log(&of_accounts).await;
    other.close().await;
    tables.drop().await;
    test.close().await;
}

#[tokio::test]
async fn what_can_not_be_used_is_named() {
    let (base, _) = {
        let server = server();
        let at = server.rfind('/').unwrap();
        (server[..at].to_owned(), ())
    };
    let error = ClickHouse::connect(&format!("{base}/nowhere")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
    let down = ClickHouse::connect("http://user:secret@127.0.0.1:1/default").await.unwrap_err();
    assert_eq!(down.kind(), ErrorKind::Unavailable);
    assert!(down.to_string().contains("127.0.0.1:1"), "{down}");
    assert!(!format!("{down:?}").contains("secret"), "{down:?}");
    let native = ClickHouse::connect("tcp://127.0.0.1:9000/default").await.unwrap_err();
    assert!(native.to_string().contains("http://"), "{native}");
    // Before the tables are made.
    let test = TestDatabase::memory();
    let store = store(&test).await;
    fill(&*store, 1).await;
    let clickhouse = ClickHouse::connect(&server()).await.unwrap().table("none_here").unwrap();
    let error = ClickHouseMirror::new(store, clickhouse).catch_up().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("migrate"), "{error}");
}

potter_core::on_every_engine!(
    clickhouse_resend_batch_no_duplicates_after_merge_and_before,
    killed_at_any_moment_nothing_is_lost_or_doubled,
    a_server_that_is_away_is_waited_for,
    a_part_of_the_log_is_mirrored_and_mirrored_anew,
);
