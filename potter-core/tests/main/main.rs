//! Each part of the crate on memory, SQLite and PostgreSQL.

#![expect(clippy::unwrap_used, reason = "tests")]

mod connect;
mod idempotency;
mod lease;
mod migrations;
mod outbox;
mod relay;
mod signal;
mod transactions;

use std::time::Duration;

use potter_core::testing::TestDatabase;
use potter_core::{Database, Outbox, OutboxMessage, migrate};

/// Long enough that a loaded machine does not reach it.
const LONG: Duration = Duration::from_secs(60);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// With this crate's tables.
async fn migrated(test: TestDatabase) -> TestDatabase {
    migrate(test.database()).await.unwrap();
    test
}

fn message(aggregate: &str, number: usize) -> OutboxMessage {
    OutboxMessage::new("order", aggregate, "order.placed", &number).unwrap()
}

/// Writes one message in a transaction of its own.
async fn enqueue(database: &Database, message: &OutboxMessage) {
    let mut tx = database.begin().await.unwrap();
    Outbox.enqueue(&mut tx, message).await.unwrap();
    tx.commit().await.unwrap();
}

/// Messages that wait, and dead ones.
async fn depth(database: &Database) -> (u64, u64) {
    let mut tx = database.begin().await.unwrap();
    Outbox.depth(&mut tx).await.unwrap()
}
