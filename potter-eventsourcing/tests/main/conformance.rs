//! Every store keeps the same promises.

use std::sync::Arc;

use potter_core::Database;
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
