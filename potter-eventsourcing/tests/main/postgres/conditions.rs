//! Conditions over tags, between transactions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use potter_eventsourcing::{
    AppendCondition, ErrorKind, EventQuery, EventStore, ExpectedVersion, StreamAppend,
};
use sqlx::Executor;

use super::{append_in, event, stream};
use crate::support;

/// Two transactions decide from the same state. The second waits at the tag until the first has
/// ended, and is refused then; without the locks it would look too early and overbook.
#[tokio::test(flavor = "multi_thread")]
async fn a_condition_is_looked_at_after_the_locks() {
    for locks in [true, false] {
        let postgres = support::postgres().await;
        let store = &postgres.store;
        if !locks {
            let none = "CREATE OR REPLACE FUNCTION potter_lock_appends(
                 p_locks text, p_tags text[], p_sole text[], p_alone boolean)
                 RETURNS void LANGUAGE sql AS 'SELECT'";
            postgres.connection().await.execute(none).await.unwrap();
        }
        let query = EventQuery::tags(["course:1"]);
        let found = store.read_matching(&query, 0).await.unwrap();
        let join = || {
            vec![StreamAppend::new(
                stream(),
                ExpectedVersion::Any,
                vec![event().with_tags(["course:1", "student:1"])],
            )]
        };
        let mut first = postgres.database.begin().await.unwrap();
        store.append_if_in(&mut first, join(), found.condition()).await.unwrap();
        let second = {
            let (store, condition, join) = (Arc::clone(store), found.condition(), join());
            tokio::spawn(async move { store.append_if(join, condition).await })
        };
        let began = Instant::now();
        while !second.is_finished() && began.elapsed() < Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(second.is_finished(), !locks);
        // Others are not held up.
        let other = EventQuery::tags(["course:2"]);
        let condition = AppendCondition::no_event(other.clone());
        store.append_if(join_other(), condition).await.unwrap();
        first.commit().await.unwrap();
        let second = second.await.unwrap();
        let joined = store.read_matching(&query, 0).await.unwrap().events.len();
        if locks {
            assert!(second.unwrap_err().is_conflict());
            assert_eq!(joined, 1);
        } else {
            second.unwrap();
            assert_eq!(joined, 2, "the copy without locks is caught");
        }
    }
}

fn join_other() -> Vec<StreamAppend> {
    let event = event().with_tags(["course:2"]);
    vec![StreamAppend::new(stream(), ExpectedVersion::Any, vec![event])]
}

/// A plain append of a tagged event is kept from slipping in between look and commit, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_append_waits_for_a_condition_on_its_tags() {
    let postgres = support::postgres().await;
    let store = &postgres.store;
    let condition = AppendCondition::no_event(EventQuery::tags(["course:2"]));
    let mut first = postgres.database.begin().await.unwrap();
    store.append_if_in(&mut first, join_other(), condition).await.unwrap();
    let plain = {
        let store = Arc::clone(store);
        let event = event().with_tags(["course:2"]);
        tokio::spawn(
            async move { store.append(&stream(), ExpectedVersion::Any, vec![event]).await },
        )
    };
    let began = Instant::now();
    while !plain.is_finished() && began.elapsed() < Duration::from_millis(300) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!plain.is_finished());
    first.commit().await.unwrap();
    plain.await.unwrap().unwrap();
}

/// The decision sees what is committed behind an open transaction, so it can be made at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_append_does_not_stall_conditions() {
    let postgres = support::postgres().await;
    let store = &postgres.store;
    let (open, _) = append_in(store).await;
    for taken in 0..5 {
        let found = store.read_matching(&EventQuery::tags(["course:2"]), 0).await.unwrap();
        assert_eq!((found.events.len(), found.position), (taken, 0));
        store.append_if(join_other(), found.condition()).await.unwrap();
        store.append_if(join_other(), found.condition()).await.unwrap_err();
    }
    open.commit().await.unwrap();
    let found = store.read_matching(&EventQuery::tags(["course:2"]), 0).await.unwrap();
    assert_eq!(found.events.len(), 5);
    assert!(found.position > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_needs_read_committed() {
    let postgres = support::postgres().await;
    let mut tx = postgres.database.begin().await.unwrap();
    tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", &[]).await.unwrap();
    let condition = AppendCondition::no_event(EventQuery::tags(["course:2"]));
    let refused = postgres.store.append_if_in(&mut tx, join_other(), condition).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    postgres.store.append_if_in(&mut tx, join_other(), AppendCondition::none()).await.unwrap();
    tx.commit().await.unwrap();
}
