//! What both sides share: the floor's connections and the events that are written.

use std::sync::Arc;

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::target::Target;

/// About 150 bytes, as a small event has.
pub(crate) const PAYLOAD: &str = r#"{"account":"acc-000000017","amount":1250,"currency":"EUR","reference":"invoice 2026-000183","note":"the second instalment of three"}"#;
pub(crate) const EVENT_TYPE: &str = "account.deposited";

pub(crate) fn event_id() -> Uuid {
    potter_core::new_id()
}

/// One SQLite connection for all writers, as durable as Potter's.
pub(crate) async fn sqlite(target: &Target) -> Arc<Mutex<sqlx::SqliteConnection>> {
    let options: SqliteConnectOptions = target.url.parse().unwrap();
    let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    Arc::new(Mutex::new(sqlx::SqliteConnection::connect_with(&options).await.unwrap()))
}

/// A PostgreSQL connection for each writer.
pub(crate) async fn postgres(target: &Target, connections: u32) -> Vec<sqlx::PgConnection> {
    let mut all = Vec::new();
    for _ in 0..connections {
        all.push(sqlx::PgConnection::connect(&target.url).await.unwrap());
    }
    all
}

/// Runs `tasks` and waits for all.
pub(crate) async fn together<F>(tasks: impl IntoIterator<Item = F>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let all: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    for task in all {
        task.await.unwrap();
    }
}
