//! Where a round runs: a fresh database.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use potter_core::{Database, DatabaseOptions, new_id};

use crate::proxy;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// A fresh database with the tables of all crates. Both sides use the same tables.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) database: Database,
    pub(crate) url: String,
    /// For counting, not through the proxy.
    pub(crate) direct_url: String,
    pub(crate) round_trips: Arc<AtomicU64>,
    pub(crate) folder: Option<Arc<tempfile::TempDir>>,
    proxy: Option<Arc<proxy::Proxy>>,
}

pub(crate) const CONNECTIONS: u32 = 40;

fn server() -> String {
    std::env::var("POTTER_TEST_POSTGRES_URL")
        .expect("POTTER_TEST_POSTGRES_URL is not set: run scripts/bench, or eval \"$(scripts/services up)\"")
}

async fn on_server(statement: String) {
    let mut connection =
        <sqlx::PgConnection as sqlx::Connection>::connect(&server()).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
}

impl Target {
    pub(crate) async fn fresh(engine: Engine, counted: bool) -> Self {
        let round_trips = Arc::new(AtomicU64::new(0));
        let (direct_url, folder) = match engine {
            Engine::Sqlite => {
                // Next to the build, on a disk: a folder in memory would have no fsync.
                std::fs::create_dir_all("target/bench").unwrap();
                let folder = tempfile::tempdir_in("target/bench").unwrap();
                (
                    format!("sqlite://{}", folder.path().join("bench.db").display()),
                    Some(Arc::new(folder)),
                )
            }
            Engine::Postgres => {
                let name = format!("potter_bench_{}", new_id().simple());
                on_server(format!("CREATE DATABASE {name}")).await;
                let (base, _) =
                    server().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
                (format!("{base}/{name}"), None)
            }
        };
        let (url, proxy) = if counted && engine == Engine::Postgres {
            let (url, proxy) = proxy::start(&direct_url, Arc::clone(&round_trips)).await;
            (url, Some(Arc::new(proxy)))
        } else {
            (direct_url.clone(), None)
        };
        let options = DatabaseOptions::new().max_connections(CONNECTIONS);
        let database = options.connect(&url).await.unwrap();
        potter_core::migrate(&database).await.unwrap();
        potter_eventsourcing::event_store(&database).unwrap().migrate().await.unwrap();
        potter_saga::saga_store(&database).migrate().await.unwrap();
        let table = "CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL)";
        database.execute(table, &[]).await.unwrap();
        database
            .execute(
                "INSERT INTO accounts WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)
                 SELECT i, 0 FROM n",
                &[],
            )
            .await
            .unwrap();
        Self { database, url, direct_url, round_trips, folder, proxy }
    }

    pub(crate) fn engine(&self) -> Engine {
        if self.folder.is_some() { Engine::Sqlite } else { Engine::Postgres }
    }

    pub(crate) async fn remove(self) {
        self.database.close().await;
        drop(self.proxy);
        if self.folder.is_none() {
            let (_, name) = self.direct_url.rsplit_once('/').unwrap();
            on_server(format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }
}
