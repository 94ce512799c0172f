//! A fresh database for each round.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

pub(crate) struct Fresh {
    pub(crate) url: String,
    name: String,
    runtime: tokio::runtime::Runtime,
}

fn server() -> String {
    std::env::var("POTTER_TEST_POSTGRES_URL")
        .expect("POTTER_TEST_POSTGRES_URL is not set: run scripts/bench-peers")
}

impl Fresh {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let name = format!("potter_peers_{}", potter_core::new_id().simple());
        let server = server();
        let (base, _) = server.rsplit_once('/').unwrap();
        let fresh = Self { url: format!("{base}/{name}"), name, runtime };
        fresh.on(&server, &format!("CREATE DATABASE {}", fresh.name));
        fresh
    }

    fn on(&self, url: &str, statement: &str) {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(url).await.unwrap();
            let statement = AssertSqlSafe(statement.to_owned());
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        });
    }

    pub(crate) fn execute(&self, statement: &str) {
        self.on(&self.url, statement);
    }

    pub(crate) fn number(&self, query: &str) -> u64 {
        let number: i64 = self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
                .fetch_one(&mut connection)
                .await
                .unwrap()
        });
        u64::try_from(number).unwrap()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.on(&server(), &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}
