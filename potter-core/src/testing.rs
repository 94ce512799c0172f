//! For tests: a fresh database of each engine, and a bus that remembers.
//!
//! ```
//! use potter_core::testing::TestDatabase;
//!
//! async fn answers(database: &potter_core::Database) {
//!     database.ping().await.expect("it answers");
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! for test in [TestDatabase::memory(), TestDatabase::sqlite().await] {
//!     answers(test.database()).await;
//!     test.close().await;
//! }
//! # }
//! ```
#![expect(clippy::expect_used, clippy::panic, reason = "a test without its database fails")]

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::clock::ManualClock;
use crate::database::Database;
use crate::outbox::{MessageBus, OutboxMessage};

/// Writes one test an engine for each named function `async fn(TestDatabase)`, in the modules
/// `memory`, `sqlite` and `postgres`. The function ends with `close()`.
///
/// ```
/// use potter_core::testing::TestDatabase;
///
/// async fn answers(test: TestDatabase) {
///     test.database().ping().await.unwrap();
///     test.close().await;
/// }
///
/// potter_core::on_every_engine!(answers);
/// ```
#[cfg(all(feature = "sqlite", feature = "postgres"))]
#[macro_export]
macro_rules! on_every_engine {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::testing::TestDatabase::memory()).await;
            })*
        }
        $crate::on_every_sql_engine!($($test),*);
    };
}

/// As [`on_every_engine!`], without the memory database: for tests that use SQL.
#[cfg(all(feature = "sqlite", feature = "postgres"))]
#[macro_export]
macro_rules! on_every_sql_engine {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::testing::TestDatabase::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::testing::TestDatabase::postgres().await).await;
            })*
        }
    };
}

/// An empty database that goes away with this value. No schema is applied.
///
/// [`close`](Self::close) it at the end of the test. A test that panics before drops it, which
/// removes it too.
#[derive(Debug)]
pub struct TestDatabase {
    database: Database,
    url: String,
    clock: ManualClock,
    place: Option<Place>,
}

#[derive(Debug)]
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    expect(dead_code, reason = "memory leaves nothing behind")
)]
enum Place {
    #[cfg(feature = "sqlite")]
    Folder(std::path::PathBuf),
    #[cfg(feature = "postgres")]
    Server { admin: Box<sqlx::postgres::PgConnectOptions>, name: String },
}

impl TestDatabase {
    /// In memory, on a clock that only [`clock`](Self::clock) moves; it starts at the
    /// system's time.
    pub fn memory() -> Self {
        let clock = ManualClock::new(chrono::Utc::now());
        let database = Database::memory_with_clock(Arc::new(clock.clone()));
        Self { database, url: "memory:".to_owned(), clock, place: None }
    }

    /// An SQLite file in a folder of its own, in the system's folder for temporary files.
    #[cfg(feature = "sqlite")]
    pub async fn sqlite() -> Self {
        let folder = std::env::temp_dir().join(unique());
        let url = format!("sqlite://{}", folder.join("test.db").display());
        let database = Database::connect(&url).await.expect("a new SQLite file");
        Self { database, url, clock: ManualClock::default(), place: Some(Place::Folder(folder)) }
    }

    /// A database of its own on the PostgreSQL server that `POTTER_TEST_POSTGRES_URL` names. Its
    /// user must be allowed to create databases.
    ///
    /// # Panics
    /// Without that variable, and when the server can't be used: a test is never skipped.
    #[cfg(feature = "postgres")]
    pub async fn postgres() -> Self {
        use sqlx::ConnectOptions;

        let admin = postgres_admin();
        let name = unique();
        run_sql(&admin, format!("CREATE DATABASE {name}")).await.expect("CREATE DATABASE");
        let url = admin.clone().database(&name).to_url_lossy().to_string();
        let place = Some(Place::Server { admin: Box::new(admin), name });
        let database = Database::connect(&url).await.expect("the new database");
        Self { database, url, clock: ManualClock::default(), place }
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Its URL: to connect again, as another process would. (`memory:` is a new database.)
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The clock of the memory database. The others have their own.
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Lets `time` pass on the database's clock: moves that of the memory database, waits with
    /// the others.
    pub async fn pass(&self, time: std::time::Duration) {
        if self.database.engine() == crate::Engine::Memory {
            self.clock.advance(time);
        } else {
            tokio::time::sleep(time).await;
        }
    }

    /// Closes the connections and removes the database.
    pub async fn close(mut self) {
        self.database.close().await;
        if let Some(place) = self.place.take() {
            place.remove().await;
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        // No runtime to wait on here: one of its own, in a thread of its own.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                runtime.block_on(place.remove());
            }
        });
        let _ = removed.join();
    }
}

impl Place {
    #[cfg_attr(not(feature = "postgres"), expect(clippy::unused_async, reason = "PostgreSQL"))]
    async fn remove(self) {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Folder(folder) => {
                let _ = std::fs::remove_dir_all(folder);
            }
            #[cfg(feature = "postgres")]
            Self::Server { admin, name } => {
                let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                if let Err(error) = run_sql(&admin, sql).await {
                    tracing::warn!(%error, name, "a test database stays behind");
                }
            }
        }
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn unique() -> String {
    format!("potter_test_{}", crate::new_id().simple())
}

#[cfg(feature = "postgres")]
fn postgres_admin() -> sqlx::postgres::PgConnectOptions {
    let Ok(url) = std::env::var("POTTER_TEST_POSTGRES_URL") else {
        panic!(
            "POTTER_TEST_POSTGRES_URL is not set, and this test needs PostgreSQL. A private \
             server for tests: eval \"$(scripts/services up)\""
        );
    };
    url.parse().expect("POTTER_TEST_POSTGRES_URL is a URL of PostgreSQL")
}

#[cfg(feature = "postgres")]
async fn run_sql(
    options: &sqlx::postgres::PgConnectOptions,
    sql: String,
) -> Result<(), sqlx::Error> {
    use sqlx::{ConnectOptions, Connection};

    let mut connection = options.connect().await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}

type Refuses = Box<dyn Fn(&OutboxMessage) -> Option<String> + Send + Sync>;

/// A bus that remembers what was delivered, and refuses what it is told to.
#[derive(Default)]
pub struct RecordingBus {
    delivered: Mutex<Vec<OutboxMessage>>,
    refuses: Mutex<Option<Refuses>>,
}

impl RecordingBus {
    /// A bus that takes everything.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on, refuses a message when `refuses` gives a reason.
    pub fn refuse(
        &self,
        refuses: impl Fn(&OutboxMessage) -> Option<String> + Send + Sync + 'static,
    ) {
        *self.refuses.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(refuses));
    }

    /// From now on, takes everything.
    pub fn accept(&self) {
        *self.refuses.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What was delivered, in order, repetitions included.
    pub fn delivered(&self) -> Vec<OutboxMessage> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl MessageBus for RecordingBus {
    async fn publish(
        &self,
        message: &OutboxMessage,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let refuses = self.refuses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = refuses.as_ref().and_then(|refuses| refuses(message)) {
            return Err(reason.into());
        }
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner).push(message.clone());
        Ok(())
    }
}
