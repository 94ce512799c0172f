//! A database of a test's own, that goes away with it.

use potter_core::{Database, Row, SqlValue, new_id};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) folder: TempDir,
    runtime: Runtime,
    database: Database,
    /// The server and the database's name on it.
    server: Option<(Database, String)>,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("orders.db").display());
        let runtime = Runtime::new().unwrap();
        let database = runtime.block_on(Database::connect(&url)).unwrap();
        Self { url, folder, runtime, database, server: None }
    }

    pub(crate) fn postgres() -> Self {
        let server_url = std::env::var("POTTER_TEST_POSTGRES_URL")
            .expect("POTTER_TEST_POSTGRES_URL is not set; run: eval \"$(scripts/services up)\"");
        let runtime = Runtime::new().unwrap();
        let name = format!("saga_order_{}", new_id().simple());
        let (base, _) = server_url.rsplit_once('/').unwrap();
        let url = format!("{base}/{name}");
        let (server, database) = runtime.block_on(async {
            let server = Database::connect(&server_url).await.unwrap();
            let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
            sqlx::query(create).execute(server.postgres().unwrap()).await.unwrap();
            (server, Database::connect(&url).await.unwrap())
        });
        let folder = tempfile::tempdir().unwrap();
        Self { url, folder, runtime, database, server: Some((server, name)) }
    }

    pub(crate) fn rows(&self, statement: &'static str, values: &[SqlValue]) -> Vec<Row> {
        self.runtime.block_on(self.database.read(statement, values)).unwrap()
    }

    pub(crate) fn number(&self, statement: &'static str) -> i64 {
        self.rows(statement, &[])[0].i64("n").unwrap()
    }

    pub(crate) fn execute(&self, statement: &'static str) {
        self.runtime.block_on(self.database.execute(statement, &[])).unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((server, name)) = &self.server else { return };
        self.runtime.block_on(async {
            self.database.close().await;
            let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
            let _ = sqlx::query(drop).execute(server.postgres().unwrap()).await;
        });
    }
}
