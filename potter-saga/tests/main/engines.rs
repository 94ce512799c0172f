//! A fresh database of each engine.

use std::path::PathBuf;

#[cfg(feature = "postgres")]
use potter_core::DatabaseOptions;
use potter_core::{Database, new_id};

/// A database that goes away with this value.
pub(crate) struct Fresh {
    pub(crate) database: Database,
    _folder: Option<tempfile::TempDir>,
}

pub(crate) async fn memory() -> Fresh {
    Fresh { database: Database::memory(), _folder: None }
}

pub(crate) async fn sqlite() -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("sagas.db");
    let database = Database::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    Fresh { database, _folder: Some(folder) }
}

#[cfg(feature = "postgres")]
pub(crate) async fn postgres() -> Fresh {
    let database = Database::connect(&postgres_url().await).await.unwrap();
    Fresh { database, _folder: None }
}

/// Two handles on one database, the first with so many connections.
#[cfg(feature = "postgres")]
pub(crate) async fn postgres_twice(connections: u32) -> (Fresh, Fresh) {
    let url = postgres_url().await;
    let few = DatabaseOptions::new()
        .max_connections(connections)
        .acquire_timeout(std::time::Duration::from_millis(500));
    let few = Fresh { database: few.connect(&url).await.unwrap(), _folder: None };
    (few, Fresh { database: Database::connect(&url).await.unwrap(), _folder: None })
}

/// Of a new database.
#[cfg(feature = "postgres")]
async fn postgres_url() -> String {
    let url = std::env::var("POTTER_TEST_POSTGRES_URL")
        .expect("POTTER_TEST_POSTGRES_URL is not set; run: eval \"$(scripts/services up)\"");
    let server = Database::connect(&url).await.unwrap();
    let name = format!("potter_test_{}", new_id().simple());
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(server.postgres().unwrap()).await.unwrap();
    server.close().await;
    let (base, _) = url.rsplit_once('/').unwrap();
    format!("{base}/{name}")
}

/// Writes the same test for each engine.
macro_rules! on_every_engine {
    ($($test:ident;)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                super::$test(crate::engines::memory().await).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                super::$test(crate::engines::sqlite().await).await;
            })*
        }
        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                super::$test(crate::engines::postgres().await).await;
            })*
        }
    };
}
pub(crate) use on_every_engine;
