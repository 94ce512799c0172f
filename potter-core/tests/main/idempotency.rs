//! Idempotency keys: the work once, its answer every time.

use std::time::Duration;

use potter_core::testing::TestDatabase;
use potter_core::{Begun, Database, ErrorKind, IdempotencyStore, Json, Outbox, Ticket, new_id};
use tokio::task::JoinSet;

use crate::{LONG, depth, message, migrated, ms};

potter_core::on_every_engine!(
    of_64_equal_requests_one_works_and_all_get_its_answer,
    another_request_with_the_same_key_is_refused,
    work_that_rolled_back_is_done_afresh,
    a_reservation_that_committed_is_in_flight,
    an_expired_attempt_is_taken_over_and_fenced,
    an_attempt_from_before_a_purge_is_fenced,
    a_key_is_completed_once,
    purge_removes_what_expired_in_its_scope,
    an_answer_is_kept_as_long_as_asked,
    keys_have_1_to_255_bytes,
);

fn store() -> IdempotencyStore {
    IdempotencyStore::new("orders")
}

fn json(text: &str) -> Json {
    Json::parse(text.to_owned()).unwrap()
}

/// Begins in a transaction of its own, and commits that.
async fn reserve(database: &Database, store: &IdempotencyStore, hash: &str) -> Ticket {
    let mut tx = database.begin().await.unwrap();
    let Begun::New(ticket) = store.begin(&mut tx, "key", hash).await.unwrap() else {
        panic!("done before");
    };
    tx.commit().await.unwrap();
    ticket
}

async fn begin(database: &Database, key: &str, hash: &str) -> Result<Begun, ErrorKind> {
    let mut tx = database.begin().await.unwrap();
    store().begin(&mut tx, key, hash).await.map_err(|error| error.kind())
}

async fn complete(database: &Database, ticket: Ticket, answer: &str) -> Result<(), ErrorKind> {
    let mut tx = database.begin().await.unwrap();
    store().complete(&mut tx, ticket, json(answer)).await.map_err(|error| error.kind())?;
    tx.commit().await.unwrap();
    Ok(())
}

async fn of_64_equal_requests_one_works_and_all_get_its_answer(test: TestDatabase) {
    async fn request(database: Database) -> (bool, Json) {
        let mut tx = database.begin().await.unwrap();
        match store().begin(&mut tx, "key", "hash").await.unwrap() {
            Begun::Done(answer) => (false, answer),
            Begun::New(ticket) => {
                Outbox.enqueue(&mut tx, &message("a", 1)).await.unwrap();
                tokio::time::sleep(ms(20)).await;
                let answer = Json::of(&new_id()).unwrap();
                store().complete(&mut tx, ticket, answer.clone()).await.unwrap();
                tx.commit().await.unwrap();
                (true, answer)
            }
            _ => unreachable!(),
        }
    }

    let test = migrated(test).await;
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        tasks.spawn(request(test.database().clone()));
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.len(), 64);
    assert_eq!(answers.iter().filter(|(worked, _)| *worked).count(), 1);
    assert!(answers.iter().all(|(_, answer)| *answer == answers[0].1));
    assert_eq!(depth(test.database()).await, (1, 0));
    test.close().await;
}

async fn another_request_with_the_same_key_is_refused(test: TestDatabase) {
    let test = migrated(test).await;
    let database = test.database();
    let one = IdempotencyStore::request_hash(&("sku-1", 3)).unwrap();
    let two = IdempotencyStore::request_hash(&("sku-1", 4)).unwrap();
    assert_ne!(one, two);

    let ticket = reserve(database, &store(), &one).await;
    // In flight or done: it is a mistake of the caller either way.
    assert_eq!(begin(database, "key", &two).await.unwrap_err(), ErrorKind::KeyReused);
    complete(database, ticket, "1").await.unwrap();
    assert_eq!(begin(database, "key", &two).await.unwrap_err(), ErrorKind::KeyReused);
    assert!(matches!(begin(database, "key", &one).await, Ok(Begun::Done(_))));

    // Another scope, another key.
    let mut tx = database.begin().await.unwrap();
    let other = IdempotencyStore::new("refunds").begin(&mut tx, "key", &two).await.unwrap();
    assert!(matches!(other, Begun::New(_)));
    drop(tx);
    test.close().await;
}

async fn work_that_rolled_back_is_done_afresh(test: TestDatabase) {
    let test = migrated(test).await;
    let mut tx = test.database().begin().await.unwrap();
    let Begun::New(ticket) = store().begin(&mut tx, "key", "hash").await.unwrap() else {
        panic!("done before");
    };
    Outbox.enqueue(&mut tx, &message("a", 1)).await.unwrap();
    store().complete(&mut tx, ticket, json("1")).await.unwrap();
    drop(tx);
    // Another request altogether: nothing is left of the first.
    assert!(matches!(begin(test.database(), "key", "other").await, Ok(Begun::New(_))));
    assert_eq!(depth(test.database()).await, (0, 0));
    test.close().await;
}

async fn a_reservation_that_committed_is_in_flight(test: TestDatabase) {
    let test = migrated(test).await;
    let ticket = reserve(test.database(), &store(), "hash").await;
    let mut tx = test.database().begin().await.unwrap();
    let error = store().begin(&mut tx, "key", "hash").await.unwrap_err();
    drop(tx);
    assert_eq!(error.kind(), ErrorKind::InFlight);
    assert!(error.is_retryable() && error.to_string().contains("\"key\""), "{error}");
    complete(test.database(), ticket, r#"{"b":1.50,"a":null}"#).await.unwrap();
    let Ok(Begun::Done(answer)) = begin(test.database(), "key", "hash").await else {
        panic!("completed, so done");
    };
    assert_eq!(answer.as_str(), r#"{"b":1.50,"a":null}"#, "as it was written");
    test.close().await;
}

async fn an_expired_attempt_is_taken_over_and_fenced(test: TestDatabase) {
    let test = migrated(test).await;
    let first = reserve(test.database(), &store().in_flight_ttl(ms(20)), "hash").await;
    test.pass(ms(40)).await;
    let second = reserve(test.database(), &store(), "hash").await;
    assert_eq!(complete(test.database(), first.clone(), "1").await, Err(ErrorKind::Fenced));
    assert_eq!(complete(test.database(), second, "2").await, Ok(()));
    assert_eq!(complete(test.database(), first, "1").await, Err(ErrorKind::Fenced));
    let Ok(Begun::Done(answer)) = begin(test.database(), "key", "hash").await else {
        panic!("completed, so done");
    };
    assert_eq!(answer.as_str(), "2");
    test.close().await;
}

/// A token that counted from 1 again would fit, and answer another request with this one's answer.
async fn an_attempt_from_before_a_purge_is_fenced(test: TestDatabase) {
    let test = migrated(test).await;
    let first = reserve(test.database(), &store().in_flight_ttl(ms(20)), "one").await;
    test.pass(ms(40)).await;
    let mut tx = test.database().begin().await.unwrap();
    assert_eq!(store().purge(&mut tx).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let second = reserve(test.database(), &store(), "two").await;
    assert_eq!(complete(test.database(), first, "1").await, Err(ErrorKind::Fenced));
    assert_eq!(complete(test.database(), second, "2").await, Ok(()));
    test.close().await;
}

async fn a_key_is_completed_once(test: TestDatabase) {
    let test = migrated(test).await;
    let ticket = reserve(test.database(), &store(), "hash").await;
    assert_eq!(complete(test.database(), ticket.clone(), "1").await, Ok(()));
    assert_eq!(complete(test.database(), ticket, "2").await, Err(ErrorKind::Fenced));
    test.close().await;
}

async fn purge_removes_what_expired_in_its_scope(test: TestDatabase) {
    let test = migrated(test).await;
    let mut tx = test.database().begin().await.unwrap();
    let other = IdempotencyStore::new("refunds");
    for key in ["a", "b", "c"] {
        for (store, ttl) in [(store(), ms(20)), (other.clone(), ms(20)), (store(), LONG)] {
            let key = format!("{key}-{}", ttl.as_millis());
            let Begun::New(ticket) =
                store.clone().in_flight_ttl(ttl).begin(&mut tx, &key, "hash").await.unwrap()
            else {
                panic!("done before");
            };
            if key.starts_with('a') {
                store.answer_ttl(ttl).complete(&mut tx, ticket, json("1")).await.unwrap();
            }
        }
    }
    tx.commit().await.unwrap();
    test.pass(ms(40)).await;
    let mut tx = test.database().begin().await.unwrap();
    assert_eq!(store().purge(&mut tx).await.unwrap(), 3);
    assert_eq!(store().purge(&mut tx).await.unwrap(), 0);
    assert_eq!(other.purge(&mut tx).await.unwrap(), 3);
    tx.commit().await.unwrap();
    let kept = format!("a-{}", LONG.as_millis());
    assert!(matches!(begin(test.database(), &kept, "hash").await, Ok(Begun::Done(_))));
    test.close().await;
}

async fn an_answer_is_kept_as_long_as_asked(test: TestDatabase) {
    let test = migrated(test).await;
    for (key, ttl) in [("short", ms(20)), ("for ever", Duration::MAX)] {
        let store = store().in_flight_ttl(Duration::MAX).answer_ttl(ttl);
        let mut tx = test.database().begin().await.unwrap();
        let Begun::New(ticket) = store.begin(&mut tx, key, "hash").await.unwrap() else {
            panic!("done before");
        };
        store.complete(&mut tx, ticket, json("1")).await.unwrap();
        tx.commit().await.unwrap();
    }
    test.pass(ms(40)).await;
    assert!(matches!(begin(test.database(), "short", "other").await, Ok(Begun::New(_))));
    assert!(matches!(begin(test.database(), "for ever", "hash").await, Ok(Begun::Done(_))));
    test.close().await;
}

async fn keys_have_1_to_255_bytes(test: TestDatabase) {
    let test = migrated(test).await;
    for key in ["", &"k".repeat(256), &"é".repeat(128), "k\0"] {
        let refused = begin(test.database(), key, "hash").await;
        assert_eq!(refused.unwrap_err(), ErrorKind::InvalidInput, "{key:?}");
    }
    assert!(begin(test.database(), &"k".repeat(255), "hash").await.is_ok());
    test.close().await;
}
