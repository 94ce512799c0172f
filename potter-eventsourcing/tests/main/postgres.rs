//! What only PostgreSQL can get wrong: transactions that commit in another order than their
//! positions.

mod conditions;
mod group;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use potter_core::{Tx, new_id};
use potter_eventsourcing::{
    ErrorKind, EventStore, ExpectedVersion, NewEvent, ReadAllOptions, RecordedEvent, StoreOptions,
    StreamId, event_store_with,
};
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::support;

fn stream() -> StreamId {
    StreamId::new("test", new_id()).unwrap()
}

fn event() -> NewEvent {
    NewEvent::new("test.happened", &1).unwrap()
}

async fn append(store: &Arc<dyn EventStore>) -> u64 {
    let appended = store.append(&stream(), ExpectedVersion::Any, vec![event()]).await;
    appended.unwrap().last_position
}

async fn append_in(store: &Arc<dyn EventStore>) -> (Tx, u64) {
    let mut tx = store.database().unwrap().begin().await.unwrap();
    let (stream, any) = (stream(), ExpectedVersion::Any);
    let appended = store.append_in(&mut tx, &stream, any, vec![event()]).await.unwrap();
    (tx, appended.last_position)
}

async fn read_all(store: &Arc<dyn EventStore>, after: u64) -> Vec<u64> {
    let events: Vec<RecordedEvent> =
        store.read_all(after, ReadAllOptions::new()).try_collect().await.unwrap();
    events.iter().map(|event| event.global_position).collect()
}

/// A reader that keeps only the position of the last event it was given.
struct Reader<'a> {
    store: &'a Arc<dyn EventStore>,
    seen: Vec<u64>,
}

impl Reader<'_> {
    async fn go_on(&mut self) -> &[u64] {
        let after = self.seen.last().copied().unwrap_or(0);
        self.seen.extend(read_all(self.store, after).await);
        &self.seen
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_commit_of_lower_position_is_delivered() {
    let postgres = support::postgres().await;
    let store = &postgres.store;
    let mut reader = Reader { store, seen: Vec::new() };
    let first = append(store).await;
    assert_eq!(reader.go_on().await, [first]);

    // Three transactions with positions in this order; the lowest commits last.
    let (low, at_low) = append_in(store).await;
    let (middle, at_middle) = append_in(store).await;
    let late = append(store).await;
    assert!(first < at_low && at_low < at_middle && at_middle < late);
    assert_eq!(reader.go_on().await, [first], "nothing behind an open position");
    assert_eq!(store.safe_position().await.unwrap(), first);
    assert_eq!(store.head_position().await.unwrap(), late);

    middle.commit().await.unwrap();
    let (open, at_open) = append_in(store).await;
    for _ in 0..3 {
        assert_eq!(reader.go_on().await, [first]);
    }
    // A process that starts now knows no more than this one.
    let fresh = postgres.another().await;
    assert_eq!(read_all(&fresh, 0).await, [first]);

    low.commit().await.unwrap();
    assert_eq!(reader.go_on().await, [first, at_low, at_middle, late]);
    assert_eq!(read_all(&fresh, first).await, [at_low, at_middle, late]);
    open.commit().await.unwrap();
    assert_eq!(reader.go_on().await, [first, at_low, at_middle, late, at_open]);
}

#[tokio::test(flavor = "multi_thread")]
async fn first_event_ever_is_delivered() {
    let postgres = support::postgres().await;
    let store = &postgres.store;
    assert_eq!(store.safe_position().await.unwrap(), 0);
    let (tx, position) = append_in(store).await;
    assert_eq!(position, 1);
    let mut reader = Reader { store, seen: Vec::new() };
    let second = append(store).await;
    assert!(reader.go_on().await.is_empty(), "position 1 is given but not committed");
    tx.commit().await.unwrap();
    assert_eq!(reader.go_on().await, [position, second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rolled_back_append_leaves_no_gap_to_wait_at() {
    let postgres = support::postgres().await;
    let store = &postgres.store;
    let (rolled_back, _) = append_in(store).await;
    let after = append(store).await;
    assert!(read_all(store, 0).await.is_empty());
    rolled_back.rollback().await.unwrap();
    assert_eq!(read_all(store, 0).await, [after], "at the first look");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_writer_in_other_database_does_not_hold_the_safe_position() {
    let (postgres, elsewhere) = (support::postgres().await, support::postgres().await);
    // An append and a plain writer in another database, and a plain writer and an old snapshot
    // in this one.
    let (other_append, _) = append_in(&elsewhere.store).await;
    let mut other_writer = elsewhere.connection().await;
    other_writer.execute("BEGIN; CREATE TABLE a (b int)").await.unwrap();
    let mut writer = postgres.connection().await;
    writer.execute("BEGIN; CREATE TABLE a (b int)").await.unwrap();
    let mut snapshot = postgres.connection().await;
    snapshot
        .execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM potter_events")
        .await
        .unwrap();
    // The gap of an append that rolled back is no reason to wait, either.
    drop(append_in(&postgres.store).await);
    let position = append(&postgres.store).await;
    let mut seen = Vec::new();
    let began = Instant::now();
    while seen.is_empty() && began.elapsed() < Duration::from_secs(10) {
        seen = read_all(&postgres.store, 0).await;
    }
    assert_eq!(seen, [position]);
    assert_eq!(postgres.store.safe_position().await.unwrap(), position);
    other_append.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_transaction_is_waited_for() {
    let postgres = support::postgres().await;
    let store = &postgres.store;
    let mut connection = postgres.connection().await;
    let append_one = |stream: &str, id: uuid::Uuid| {
        AssertSqlSafe(format!(
            "SELECT last_position FROM potter_append('{{{stream}}}', '{{-1}}', '{{1}}', '{{0}}', \
             '{{{id}}}', '{{t}}', '{{1}}', '{{1}}', '{{\"{{}}\"}}')"
        ))
    };
    connection.execute("BEGIN").await.unwrap();
    let row = connection.fetch_one(append_one("test-a", new_id())).await.unwrap();
    let low: i64 = row.get(0);
    let late = append(store).await;
    assert!(low.unsigned_abs() < late);
    let mut reader = Reader { store, seen: Vec::new() };
    assert!(reader.go_on().await.is_empty(), "it is open");
    let name = format!("potter_{}", postgres.name);
    connection.execute(AssertSqlSafe(format!("PREPARE TRANSACTION '{name}'"))).await.unwrap();
    for _ in 0..3 {
        assert!(reader.go_on().await.is_empty(), "it is prepared");
    }
    let fresh = postgres.another().await;
    assert!(read_all(&fresh, 0).await.is_empty());
    drop(connection);
    let mut connection = postgres.connection().await;
    connection.execute(AssertSqlSafe(format!("COMMIT PREPARED '{name}'"))).await.unwrap();
    assert_eq!(reader.go_on().await, [low.unsigned_abs(), late]);
    assert_eq!(read_all(&fresh, 0).await, [low.unsigned_abs(), late]);
}

/// 16 writers, some of whose transactions roll back or stay open for a while, and readers that
/// tail. What was committed is what was read, in order, once.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_lost_under_concurrent_append() {
    no_event_lost(support::postgres().await).await;
}

/// The same without advisory locks.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_lost_by_rows() {
    no_event_lost(support::postgres_with(StoreOptions::new().advisory_locks(false)).await).await;
}

async fn no_event_lost(postgres: support::PostgresDatabase) {
    let running = Arc::new(AtomicBool::new(true));
    let committed = Arc::new(AtomicU64::new(0));
    let tail = |store: Arc<dyn EventStore>| {
        let (running, committed) = (Arc::clone(&running), Arc::clone(&committed));
        tokio::spawn(async move {
            let mut reader = Reader { store: &store, seen: Vec::new() };
            while running.load(Ordering::SeqCst) {
                reader.go_on().await;
            }
            // The writers have ended; what they dropped is rolled back a moment later, and until then
            // it may hold up what is behind it. What was passed would never come.
            let begun = Instant::now();
            let all = committed.load(Ordering::SeqCst);
            while (reader.seen.len() as u64) < all && begun.elapsed() < Duration::from_secs(30) {
                reader.go_on().await;
            }
            reader.go_on().await;
            reader.seen
        })
    };
    let tails = [tail(Arc::clone(&postgres.store)), tail(postgres.another().await)];
    let until = Instant::now() + Duration::from_secs(4);
    let writers: Vec<_> = (0..16_u64)
        .map(|writer| {
            let (store, committed) = (Arc::clone(&postgres.store), Arc::clone(&committed));
            tokio::spawn(async move {
                let mut round = writer;
                while Instant::now() < until {
                    round += 1;
                    if round.is_multiple_of(3) {
                        append(&store).await;
                    } else {
                        let (tx, _) = append_in(&store).await;
                        if round.is_multiple_of(5) {
                            tokio::time::sleep(Duration::from_millis(round % 7)).await;
                        }
                        if round.is_multiple_of(31) {
                            drop(tx);
                            continue;
                        }
                        tx.commit().await.unwrap();
                    }
                    committed.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    running.store(false, Ordering::SeqCst);
    for tail in tails {
        let seen = tail.await.unwrap();
        assert!(seen.is_sorted_by(|a, b| a < b));
        assert_eq!(seen.len() as u64, committed.load(Ordering::SeqCst), "none is lost");
    }
    assert!(committed.load(Ordering::SeqCst) > 100);
}

/// One member of a group runs into an event id that another transaction is writing: the database
/// refuses the whole group, and still only the guilty one fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_guilty_member_does_not_fail_its_group() {
    let postgres = support::postgres().await;
    let options = StoreOptions::new().committers_max(1);
    let store = event_store_with(&postgres.database, &options).unwrap();
    let used = event();
    let mut tx = store.database().unwrap().begin().await.unwrap();
    let any = ExpectedVersion::Any;
    store.append_in(&mut tx, &stream(), any, vec![used.clone()]).await.unwrap();
    let appends: Vec<_> = (0..20)
        .map(|n| {
            let (store, used) = (Arc::clone(&store), used.clone());
            tokio::spawn(async move {
                let event = if n == 10 { used } else { event() };
                store.append(&stream(), any, vec![event]).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    tx.commit().await.unwrap();
    for (append, n) in appends.into_iter().zip(0..) {
        let result = append.await.unwrap();
        if n == 10 {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::DuplicateEventId);
        } else {
            assert_eq!(result.unwrap().last_version, 1);
        }
    }
}

/// The answer is lost with the connection; the store sends the same event ids again.
#[tokio::test(flavor = "multi_thread")]
async fn append_survives_killed_connections() {
    let postgres = support::postgres().await;
    let store = Arc::clone(&postgres.store);
    let mut killer = postgres.connection().await;
    let running = Arc::new(AtomicBool::new(true));
    let appends: Vec<_> = (0..8)
        .map(|_| {
            let (store, running) = (Arc::clone(&store), Arc::clone(&running));
            tokio::spawn(async move {
                let mut ids = Vec::new();
                while running.load(Ordering::SeqCst) {
                    let event = event();
                    ids.push(event.event_id);
                    store.append(&stream(), ExpectedVersion::NoStream, vec![event]).await.unwrap();
                }
                ids
            })
        })
        .collect();
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        killer
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await
            .unwrap();
    }
    running.store(false, Ordering::SeqCst);
    let mut appended = HashSet::new();
    for append in appends {
        appended.extend(append.await.unwrap());
    }
    let fresh = postgres.another().await;
    let stored: Vec<RecordedEvent> =
        fresh.read_all(0, ReadAllOptions::new()).try_collect().await.unwrap();
    assert_eq!(stored.len(), appended.len());
    assert!(stored.iter().all(|event| event.version == 1 && appended.contains(&event.event_id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn migration_is_idempotent_and_concurrent() {
    let postgres = support::empty_postgres().await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let store = postgres.another().await;
        tasks.push(tokio::spawn(async move { store.migrate().await }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    postgres.store.migrate().await.unwrap();
    assert_eq!(append(&postgres.store).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn migration_rejects_cached_sequence() {
    let postgres = support::postgres().await;
    let mut connection = postgres.connection().await;
    let cached = "ALTER SEQUENCE potter_events_global_position_seq CACHE 32";
    connection.execute(cached).await.unwrap();
    assert_eq!(postgres.store.migrate().await.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Two transactions that take two streams in opposite orders: one gets a conflict, not a hang.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_a_conflict() {
    let postgres = support::postgres().await;
    let (a, b) = (stream(), stream());
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let tasks: Vec<_> = [(a.clone(), b.clone()), (b, a)]
        .into_iter()
        .map(|(first, second)| {
            let (store, both) = (Arc::clone(&postgres.store), Arc::clone(&both));
            tokio::spawn(async move {
                let mut tx = store.database().unwrap().begin().await.unwrap();
                let any = ExpectedVersion::Any;
                store.append_in(&mut tx, &first, any, vec![event()]).await.unwrap();
                both.wait().await;
                store.append_in(&mut tx, &second, any, vec![event()]).await?;
                tx.commit().await.unwrap();
                Ok::<_, potter_eventsourcing::Error>(())
            })
        })
        .collect();
    let mut conflicts = 0;
    for task in tasks {
        if let Err(error) = task.await.unwrap() {
            assert!(error.is_conflict() && error.is_retryable(), "{error}");
            conflicts += 1;
        }
    }
    assert_eq!(conflicts, 1);
}
