//! Databases for tests.

use std::sync::Arc;

use potter_core::{Database, DatabaseOptions};
use potter_eventsourcing::{EventStore, StoreOptions, event_store, event_store_with};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// An SQLite file that goes away with it.
pub(crate) struct SqliteFile {
    _folder: tempfile::TempDir,
    pub(crate) store: Arc<dyn EventStore>,
}

pub(crate) async fn sqlite() -> SqliteFile {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("events.db").display());
    let database = Database::connect(&url).await.unwrap();
    let store = event_store(&database).unwrap();
    store.migrate().await.unwrap();
    SqliteFile { _folder: folder, store }
}

/// A PostgreSQL database of its own, dropped with it.
pub(crate) struct PostgresDatabase {
    pub(crate) name: String,
    pub(crate) database: Database,
    options: StoreOptions,
    pub(crate) store: Arc<dyn EventStore>,
}

pub(crate) fn server() -> String {
    std::env::var("POTTER_TEST_POSTGRES_URL").expect(
        "POTTER_TEST_POSTGRES_URL is not set: start a private PostgreSQL with \
         eval \"$(scripts/services up postgres)\"",
    )
}

/// The server's URL with another database.
fn url_of(name: &str) -> String {
    let server = server();
    let (base, _) = server.rsplit_once('/').expect("a URL with a database name");
    format!("{base}/{name}")
}

pub(crate) async fn postgres() -> PostgresDatabase {
    postgres_with(StoreOptions::new()).await
}

pub(crate) async fn postgres_with(options: StoreOptions) -> PostgresDatabase {
    let mut empty = empty_postgres().await;
    empty.store = event_store_with(&empty.database, &options).unwrap();
    empty.options = options;
    empty.store.migrate().await.unwrap();
    empty
}

pub(crate) async fn empty_postgres() -> PostgresDatabase {
    let name = format!("potter_test_{}", potter_core::new_id().simple());
    let mut admin = PgConnection::connect(&server()).await.unwrap();
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let options = DatabaseOptions::new().max_connections(24);
    let database = options.connect(&url_of(&name)).await.unwrap();
    let store = event_store(&database).unwrap();
    PostgresDatabase { name, database, options: StoreOptions::new(), store }
}

impl PostgresDatabase {
    /// Another process's handle on the same database.
    pub(crate) async fn another(&self) -> Arc<dyn EventStore> {
        let options = DatabaseOptions::new().max_connections(4);
        let database = options.connect(&url_of(&self.name)).await.unwrap();
        event_store_with(&database, &self.options).unwrap()
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnection::connect(&url_of(&self.name)).await.unwrap()
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let mut admin = PgConnection::connect(&server()).await.unwrap();
                admin.execute(AssertSqlSafe(statement)).await.unwrap();
            });
        });
        if dropped.join().is_err() && !std::thread::panicking() {
            panic!("the test database {} was not dropped", self.name);
        }
    }
}
