//! Every store keeps the same promises.

use std::sync::Arc;

use potter_core::testing::TestDatabase;
use potter_core::{Database, DatabaseOptions};
use potter_eventsourcing::{
    ErrorKind, ExpectedVersion, NewEvent, StoreOptions, StreamId, event_store, event_store_with,
    testing,
};

use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    testing::conformance(async || event_store(&Database::memory()).unwrap()).await;
    testing::boundaries(async || event_store(&Database::memory()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let sqlite = support::sqlite().await;
    testing::conformance(async || Arc::clone(&sqlite.store)).await;
    testing::boundaries(async || Arc::clone(&sqlite.store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    let postgres = support::postgres().await;
    testing::conformance(async || Arc::clone(&postgres.store)).await;
    testing::boundaries(async || Arc::clone(&postgres.store)).await;
}

/// A server without advisory locks and LISTEN.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_without_advisory_locks_and_listen() {
    let postgres = support::empty_postgres().await;
    let options = StoreOptions::new().advisory_locks(false).listen(false);
    let store = event_store_with(&postgres.database, &options).unwrap();
    store.migrate().await.unwrap();
    testing::conformance(async || Arc::clone(&store)).await;
    testing::boundaries(async || Arc::clone(&store)).await;
    // Who goes by other locks would not see the appends of this one.
    let refused = postgres.store.safe_position().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
    let event = vec![NewEvent::new("t", &1).unwrap()];
    let stream = StreamId::new("test", 1).unwrap();
    let refused = postgres.store.append(&stream, ExpectedVersion::Any, event).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
    assert_eq!(postgres.store.migrate().await.unwrap_err().kind(), ErrorKind::Config);
}

/// Two independent stores in one database, by the prefix of their tables.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_table_prefix() {
    for test in [TestDatabase::sqlite().await, TestDatabase::postgres().await] {
        let plain = event_store(test.database()).unwrap();
        plain.migrate().await.unwrap();
        let options = DatabaseOptions::new().table_prefix("shop_");
        let prefixed = options.connect(test.url()).await.unwrap();
        let store = event_store(&prefixed).unwrap();
        store.migrate().await.unwrap();
        testing::conformance(async || Arc::clone(&store)).await;
        testing::boundaries(async || Arc::clone(&store)).await;
        assert!(store.head_position().await.unwrap() > 0);
        assert_eq!(plain.head_position().await.unwrap(), 0, "the other one is empty");
        let tables = "SELECT count(*) AS n FROM shop_events";
        assert!(test.database().read(tables, &[]).await.unwrap()[0].i64("n").unwrap() > 0);
        prefixed.close().await;
        test.close().await;
    }
}
