//! From a URL to a pool, with errors that tell the reasons apart.

use std::time::Duration;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::Inner;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::warm::Warm;
use super::{Database, TablePrefix};
use crate::error::{Error, ErrorKind, Result};

/// More readers than this do not read an SQLite file faster.
#[cfg(feature = "sqlite")]
const SQLITE_READERS_MAX: u32 = 8;

/// How to connect. Defaults: 16 connections, 10 s to get one, SQLite waits 10 s for a locked
/// file and syncs at every commit, PostgreSQL ends a transaction that is idle for 30 s.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    connections_max: u32,
    acquire_timeout: Duration,
    synchronous: bool,
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "for PostgreSQL"))]
    idle_in_transaction_timeout: Duration,
    application_name: String,
    table_prefix: String,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            connections_max: 16,
            acquire_timeout: Duration::from_secs(10),
            synchronous: true,
            idle_in_transaction_timeout: Duration::from_secs(30),
            application_name: "potter".to_owned(),
            table_prefix: "potter_".to_owned(),
        }
    }
}

impl DatabaseOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most connections (at least 1). [`Database::reserved`] opens one more, the driver's own
    /// pool that [`Database::postgres`] gives as many more, each when it is used.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.connections_max = connections.max(1);
        self
    }

    /// How long a caller waits for a free connection, and for the first one at start.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// SQLite only: `false` trades the last commits before a power loss (not before a crash of
    /// the process) for speed (`PRAGMA synchronous = NORMAL` in place of `FULL`).
    #[must_use]
    pub fn synchronous(mut self, synchronous: bool) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// PostgreSQL only: a transaction that waits this long for its next statement is rolled back
    /// by the server and its connection closed, so that a paused process does not hold locks for
    /// ever. Zero leaves the server's own setting, as does a URL that sets
    /// `idle_in_transaction_session_timeout` in its `options`. It is sent as a startup option,
    /// which PgBouncer refuses unless its `ignore_startup_parameters` names `options`. It has no
    /// effect then: set it for the role.
    #[must_use]
    pub fn idle_in_transaction_timeout(mut self, timeout: Duration) -> Self {
        self.idle_in_transaction_timeout = timeout;
        self
    }

    /// The name that PostgreSQL shows for the connections.
    #[must_use]
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = name.into();
        self
    }

    /// What the names of the library's tables begin with, in place of `potter_`: several
    /// independent sets of tables in one database. Statements of your own that go through the
    /// handle are changed in the same way, so do not use `potter_` in names of your own.
    #[must_use]
    pub fn table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.table_prefix = prefix.into();
        self
    }

    /// Connects; see [`Database::connect`].
    ///
    /// # Errors
    /// See [`Database::connect`].
    pub async fn connect(&self, url: &str) -> Result<Database> {
        let prefix = TablePrefix::new(&self.table_prefix)?;
        let mut database = self.connect_to(url).await?;
        database.prefix = prefix;
        Ok(database)
    }

    async fn connect_to(&self, url: &str) -> Result<Database> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            "memory" => Ok(Database::memory()),
            #[cfg(feature = "sqlite")]
            "sqlite" => self.sqlite(url).await,
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => self.postgres(url).await,
            #[cfg(not(feature = "sqlite"))]
            "sqlite" => Err(left_out("SQLite", "sqlite")),
            #[cfg(not(feature = "postgres"))]
            "postgres" | "postgresql" => Err(left_out("PostgreSQL", "postgres")),
            _ => Err(Error::new(
                ErrorKind::Config,
                "the database URL must begin with sqlite://, postgres:// or memory: \
                 (for example sqlite://data/app.db or postgres://user:password@host:5432/name)",
            )),
        }
    }

    #[cfg(feature = "sqlite")]
    async fn sqlite(&self, url: &str) -> Result<Database> {
        use std::str::FromStr;

        use sqlx::sqlite::{
            SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
        };

        if url.contains(":memory:") || url.contains("mode=memory") {
            return Err(Error::new(
                ErrorKind::Config,
                "an SQLite database in memory is one per connection; use memory: or a file",
            ));
        }
        let file = url.trim_start_matches("sqlite:").trim_start_matches("//");
        if file.split('?').next().is_none_or(str::is_empty) {
            // SQLite would give each connection a temporary database of its own.
            return Err(Error::new(
                ErrorKind::Config,
                "the database URL names no file (for example sqlite://data/app.db)",
            ));
        }
        let synchronous =
            if self.synchronous { SqliteSynchronous::Full } else { SqliteSynchronous::Normal };
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|source| malformed(&source))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .foreign_keys(true)
            .busy_timeout(self.acquire_timeout);
        let path = options.get_filename().to_path_buf();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|source| cannot_open(&path, source))?;
        }
        let writer = Warm::<sqlx::Sqlite>::new(options.clone(), 1, self.acquire_timeout, false);
        // The first connection makes the file and sets its journal mode.
        let first = writer.take().await.map_err(|source| cannot_open(&path, source))?;
        first.give_back();
        let options = options.pragma("query_only", "1");
        let readers = self.connections_max.min(SQLITE_READERS_MAX);
        let driver = SqlitePoolOptions::new()
            .max_connections(readers)
            .acquire_timeout(self.acquire_timeout)
            .connect_lazy_with(options.clone());
        let readers = Warm::<sqlx::Sqlite>::new(options, readers, self.acquire_timeout, false);
        let inner = Inner::Sqlite(super::Sqlite { writer, readers, driver });
        Ok(Database { inner, prefix: TablePrefix::default() })
    }

    #[cfg(feature = "postgres")]
    async fn postgres(&self, url: &str) -> Result<Database> {
        use std::str::FromStr;

        use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
        use sqlx::{ConnectOptions, Connection};

        let options = PgConnectOptions::from_str(url)
            .map_err(|source| malformed(&source))?
            .application_name(&self.application_name);
        let options = self.with_idle_timeout(options);
        let place = format!("{}:{}", options.get_host(), options.get_port());
        // A pool retries a refused connection until its time is up and then says only "timed
        // out". One connection by hand tells why.
        let first = tokio::time::timeout(self.acquire_timeout, options.connect()).await;
        match first {
            Ok(Ok(connection)) => {
                let _ = connection.close().await;
            }
            Ok(Err(source)) => return Err(refused(&place, &options, source)),
            Err(elapsed) => {
                let message =
                    format!("PostgreSQL at {place} did not answer in {:?}", self.acquire_timeout);
                return Err(Error::with_source(ErrorKind::Unavailable, message, elapsed));
            }
        }
        let driver = PgPoolOptions::new()
            .max_connections(self.connections_max)
            .acquire_timeout(self.acquire_timeout)
            .connect_lazy_with(options.clone());
        let warm =
            |limit| Warm::<sqlx::Postgres>::new(options.clone(), limit, self.acquire_timeout, true);
        let (connections, reserved) = (warm(self.connections_max), warm(1));
        let inner = Inner::Postgres(super::Postgres { connections, reserved, driver });
        Ok(Database { inner, prefix: TablePrefix::default() })
    }

    #[cfg(feature = "postgres")]
    fn with_idle_timeout(
        &self,
        options: sqlx::postgres::PgConnectOptions,
    ) -> sqlx::postgres::PgConnectOptions {
        const SETTING: &str = "idle_in_transaction_session_timeout";
        let timeout = self.idle_in_transaction_timeout;
        let set = options.get_options().is_some_and(|options| options.contains(SETTING));
        if timeout.is_zero() || set {
            return options;
        }
        // The server's unit is a millisecond, its type an int.
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
        options.options([(SETTING, millis)])
    }
}

#[cfg(any(not(feature = "sqlite"), not(feature = "postgres")))]
fn left_out(engine: &str, feature: &str) -> Error {
    let message =
        format!("this build has no {engine}: enable the feature \"{feature}\" of potter-core");
    Error::new(ErrorKind::Config, message)
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn malformed(source: &sqlx::Error) -> Error {
    // The driver's message may repeat the URL, and with it a password: only our words go out.
    let _ = source;
    Error::new(
        ErrorKind::Config,
        "the database URL is malformed (expected sqlite://path/to/file.db or \
         postgres://user:password@host:5432/name; special characters in a password are \
         percent-encoded)",
    )
}

#[cfg(feature = "sqlite")]
fn cannot_open(
    path: &std::path::Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let source = source.into();
    let message = format!("the SQLite file {} can't be opened: {source}", path.display());
    Error::with_source(ErrorKind::Config, message, source)
}

#[cfg(feature = "postgres")]
fn refused(place: &str, options: &sqlx::postgres::PgConnectOptions, source: sqlx::Error) -> Error {
    let code =
        source.as_database_error().and_then(|error| error.code()).map(|code| code.to_string());
    let user = options.get_username();
    let (kind, message) = match code.as_deref() {
        Some("28P01" | "28000") => (
            ErrorKind::Unauthorized,
            format!(
                "PostgreSQL at {place} refused the user \"{user}\": check user and password in the URL"
            ),
        ),
        Some("42501") => (
            ErrorKind::Unauthorized,
            format!(
                "PostgreSQL at {place} does not let the user \"{user}\" into this database: grant CONNECT"
            ),
        ),
        Some("08P01") => (
            ErrorKind::Config,
            format!(
                "the server at {place} refuses a setting of the connection (behind PgBouncer, \
                 allow \"options\" in ignore_startup_parameters or set \
                 idle_in_transaction_timeout to zero): {source}"
            ),
        ),
        Some("3D000") => (
            ErrorKind::Config,
            format!(
                "PostgreSQL at {place} has no database \"{}\": create it (createdb) or correct the URL",
                options.get_database().unwrap_or(user)
            ),
        ),
        Some(code) => (
            ErrorKind::Unavailable,
            format!("PostgreSQL at {place} refused the connection (SQLSTATE {code})"),
        ),
        None => match &source {
            sqlx::Error::Tls(_) => {
                (ErrorKind::Config, format!("TLS with PostgreSQL at {place} failed: {source}"))
            }
            _ => (
                ErrorKind::Unavailable,
                format!(
                    "PostgreSQL at {place} can't be reached: is it running, is the port right?"
                ),
            ),
        },
    };
    Error::with_source(kind, message, source)
}
