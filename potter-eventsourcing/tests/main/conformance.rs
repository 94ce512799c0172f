//! Every store keeps the same promises.

use std::sync::Arc;

use potter_core::testing::TestDatabase;
use potter_core::{Database, DatabaseOptions};
use potter_eventsourcing::{event_store, testing};

use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    testing::conformance(async || event_store(&Database::memory()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let sqlite = support::sqlite().await;
    testing::conformance(async || Arc::clone(&sqlite.store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    let postgres = support::postgres().await;
    testing::conformance(async || Arc::clone(&postgres.store)).await;
}

/// A database of its own for each check. `MONGO_URL` adds a server of yours.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    for server in support::mongo_servers() {
        let databases = std::sync::Mutex::new(Vec::new());
        testing::conformance(async || {
            let database = support::MongoDatabase::on(&server).await;
            let store = database.client().await;
            databases.lock().unwrap().push(database);
            store
        })
        .await;
    }
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
        assert!(store.head_position().await.unwrap() > 0);
        assert_eq!(plain.head_position().await.unwrap(), 0, "the other one is empty");
        let tables = "SELECT count(*) AS n FROM shop_events";
        assert!(test.database().read(tables, &[]).await.unwrap()[0].i64("n").unwrap() > 0);
        prefixed.close().await;
        test.close().await;
    }
}
