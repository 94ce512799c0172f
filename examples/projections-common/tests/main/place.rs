//! A database of a test's own, that goes away with it.

use std::collections::BTreeMap;

use potter_core::{Database, new_id, values};
use potter_eventsourcing::{EventFilter, event_store};
use projections_common::UserEvent;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Users by id: name, address, and how often they were applied.
type Users = BTreeMap<String, (String, String, i64)>;

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
        let url = format!("sqlite://{}", folder.path().join("users.db").display());
        let runtime = Runtime::new().unwrap();
        let database = runtime.block_on(Database::connect(&url)).unwrap();
        Self { url, folder, runtime, database, server: None }
    }

    pub(crate) fn postgres() -> Self {
        let server_url = std::env::var("POTTER_TEST_POSTGRES_URL")
            .expect("POTTER_TEST_POSTGRES_URL is not set; run: eval \"$(scripts/services up)\"");
        let runtime = Runtime::new().unwrap();
        let name = format!("projections_{}", new_id().simple());
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

    /// The users as the log says.
    pub(crate) fn fold(&self) -> Users {
        self.runtime.block_on(async {
            let store = event_store(&self.database).unwrap();
            let (mut users, mut after) = (Users::new(), 0);
            loop {
                let page = store.read_page(after, &EventFilter::all(), 500).await.unwrap();
                for event in &page.events {
                    let UserEvent::Created(user) = event.decode().unwrap();
                    let id = event.stream_id.id().to_owned();
                    users.entry(id).or_insert((user.name, user.email, 0)).2 += 1;
                }
                if page.through >= page.head {
                    return users;
                }
                after = page.through;
            }
        })
    }

    /// The users as the read model has them.
    pub(crate) fn read_model(&self, projection: &str) -> Users {
        const ALL: &str =
            "SELECT user_id, name, email, times FROM example_users WHERE projection = $1";
        let rows = self.runtime.block_on(self.database.read(ALL, values![projection])).unwrap();
        rows.iter()
            .map(|row| {
                let user = (row.text("name").unwrap(), row.text("email").unwrap());
                (row.text("user_id").unwrap(), (user.0, user.1, row.i64("times").unwrap()))
            })
            .collect()
    }

    /// How many workers have applied something.
    pub(crate) fn workers(&self) -> i64 {
        const WORKERS: &str = "SELECT count(DISTINCT worker) AS n FROM example_users";
        let rows = self.runtime.block_on(self.database.read(WORKERS, &[])).unwrap();
        rows[0].i64("n").unwrap()
    }

    /// Nothing lost, nothing doubled.
    #[track_caller]
    pub(crate) fn is_exact(&self, projection: &str, users: usize) {
        let fold = self.fold();
        assert_eq!(fold.len(), users);
        assert_eq!(self.read_model(projection), fold);
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
