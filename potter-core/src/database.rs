//! One handle for "the database", whatever it is: SQLite, PostgreSQL or memory.
//!
//! The engine follows from the URL, so a program that starts on an embedded file moves to a
//! server without a change in code. Statements that go through [`Database`] and [`Tx`] are
//! written with `$1` parameters, which both SQL engines take; where the texts must differ,
//! [`Sql`] carries both. The driver's own connection is there for everything else
//! ([`Tx::postgres`], [`Tx::sqlite`]).

mod connect;
mod engine;
mod memory;
mod migrate;
mod names;
mod sql;
mod tx;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod warm;

use std::sync::Arc;

use chrono::{DateTime, Utc};

pub use connect::DatabaseOptions;
pub use engine::Engine;
pub use memory::{MemoryDatabase, MemoryTable, MemoryTx};
pub use migrate::{Migration, MigrationState, MigrationStatus, Migrations};
pub use names::Identifier;
pub(crate) use names::TablePrefix;
pub use sql::{Column, Row, Sql, SqlValue};
pub use tx::Tx;

use crate::clock::{SharedClock, SystemClock};
use crate::error::Result;

/// A database: a pool of connections (SQL engines) or a shared state (memory). Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    inner: Inner,
    prefix: TablePrefix,
}

#[derive(Clone, Debug)]
enum Inner {
    Memory(MemoryDatabase),
    #[cfg(feature = "sqlite")]
    Sqlite(Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(Postgres),
}

/// SQLite takes one writer at a time. Giving writers one connection of their own makes them
/// queue for it, in order, instead of polling a locked file.
#[cfg(feature = "sqlite")]
#[derive(Clone, Debug)]
struct Sqlite {
    writer: warm::Warm<sqlx::Sqlite>,
    readers: warm::Warm<sqlx::Sqlite>,
    /// For users who go past us; it opens nothing until then.
    driver: sqlx::SqlitePool,
}

#[cfg(feature = "postgres")]
#[derive(Clone, Debug)]
struct Postgres {
    connections: warm::Warm<sqlx::Postgres>,
    /// One, for [`Database::reserved`].
    reserved: warm::Warm<sqlx::Postgres>,
    /// For users who go past us; it opens nothing until then.
    driver: sqlx::PgPool,
}

impl Database {
    /// Connects to `url` with the default options: `sqlite://path/to/file.db`,
    /// `postgres://user:password@host:port/name`, or `memory:`.
    ///
    /// # Errors
    /// `Config` for a URL that is malformed, of an unknown scheme, of an engine that this build
    /// left out, or that names a database which does not exist; `Unavailable` when the server
    /// can't be reached (the host is named); `Unauthorized` when it refuses the credentials. The
    /// password is in none of them.
    pub async fn connect(url: &str) -> Result<Self> {
        DatabaseOptions::new().connect(url).await
    }

    /// An empty database in this process's memory, on the system's clock.
    pub fn memory() -> Self {
        Self::memory_with_clock(Arc::new(SystemClock))
    }

    /// An empty database in this process's memory whose clock is `clock`: leases and timers can
    /// be moved by hand.
    pub fn memory_with_clock(clock: SharedClock) -> Self {
        Self { inner: Inner::Memory(MemoryDatabase::new(clock)), prefix: TablePrefix::default() }
    }

    /// Which engine it is.
    pub fn engine(&self) -> Engine {
        match &self.inner {
            Inner::Memory(_) => Engine::Memory,
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(_) => Engine::Sqlite,
            #[cfg(feature = "postgres")]
            Inner::Postgres(_) => Engine::Postgres,
        }
    }

    /// The PostgreSQL pool, to use the driver directly.
    #[cfg(feature = "postgres")]
    pub fn postgres(&self) -> Option<&sqlx::PgPool> {
        match &self.inner {
            Inner::Postgres(postgres) => Some(&postgres.driver),
            _ => None,
        }
    }

    /// The SQLite pool for reads, to use the driver directly.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&self) -> Option<&sqlx::SqlitePool> {
        match &self.inner {
            Inner::Sqlite(sqlite) => Some(&sqlite.driver),
            _ => None,
        }
    }

    /// Begins a transaction that may write. On SQLite and in memory it waits for the one before
    /// it to end: do slow work (calls to other services) before, not inside.
    ///
    /// # Errors
    /// `Unavailable` when no connection is to be had within the pool's time limit.
    pub async fn begin(&self) -> Result<Tx> {
        let tx = match &self.inner {
            Inner::Memory(memory) => Tx::from(memory.begin().await),
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(sqlite) => tx::begin_sqlite(&sqlite.writer).await?,
            #[cfg(feature = "postgres")]
            Inner::Postgres(postgres) => tx::begin_postgres(&postgres.connections).await?,
        };
        Ok(self.adopt(tx))
    }

    /// The same database through one connection of its own, which the users of this handle can't
    /// take: for heartbeats and other short statements that must get through while all
    /// connections wait inside of transactions. It has one user at a time, so nothing on it may
    /// wait for a lock, and no transaction may stay open on it.
    ///
    /// PostgreSQL: one connection above [`DatabaseOptions::max_connections`], opened when it is
    /// first used. SQLite and memory have one writer, whoever asks: the same handle again.
    #[must_use]
    pub fn reserved(&self) -> Self {
        #[cfg_attr(not(feature = "postgres"), allow(unused_mut, reason = "for PostgreSQL"))]
        let mut database = self.clone();
        #[cfg(feature = "postgres")]
        if let Inner::Postgres(postgres) = &mut database.inner {
            postgres.connections = postgres.reserved.clone();
        }
        database
    }

    /// Makes a transaction that was begun with the driver write to this database's tables, if
    /// their names have a prefix of their own ([`DatabaseOptions::table_prefix`]).
    #[must_use]
    pub fn adopt(&self, tx: Tx) -> Tx {
        tx.with_prefix(self.prefix.clone())
    }

    /// The name of a table of the library (`potter_events`), or of a channel, as it is here: with
    /// the prefix of [`DatabaseOptions::table_prefix`].
    pub fn name_of(&self, potter_name: &'static str) -> String {
        self.prefix.apply(potter_name.into()).into_owned()
    }

    /// Runs one statement that changes rows in a transaction of its own; answers how many.
    ///
    /// # Errors
    /// `Unknown` when the connection broke after sending: it may have taken effect.
    pub async fn execute(
        &self,
        statement: impl Into<Sql> + Send,
        values: &[SqlValue],
    ) -> Result<u64> {
        let statement: Sql = statement.into();
        #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
        let _ = (statement, values);
        match &self.inner {
            Inner::Memory(_) => Err(sql::memory_takes_no_sql()),
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(sqlite) => {
                let mut connection = sqlite.writer.take().await.map_err(sql::db_error)?;
                let done = sql::bind_sqlite(self.prefix.apply(statement.sqlite), values)
                    .execute(&mut *connection)
                    .await;
                let done = connection.settle(done).map_err(sql::autocommit_error)?;
                Ok(done.rows_affected())
            }
            #[cfg(feature = "postgres")]
            Inner::Postgres(postgres) => {
                let mut connection = postgres.connections.take().await.map_err(sql::db_error)?;
                let done = sql::bind_postgres(self.prefix.apply(statement.postgres), values)
                    .execute(&mut *connection)
                    .await;
                let done = connection.settle(done).map_err(sql::autocommit_error)?;
                Ok(done.rows_affected())
            }
        }
    }

    /// Runs one statement that changes rows and returns some (`… RETURNING …`), in a transaction
    /// of its own.
    ///
    /// # Errors
    /// `Unknown` when the connection broke after sending: it may have taken effect.
    pub async fn write(
        &self,
        statement: impl Into<Sql> + Send,
        values: &[SqlValue],
    ) -> Result<Vec<Row>> {
        let statement: Sql = statement.into();
        #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
        let _ = (statement, values);
        match &self.inner {
            Inner::Memory(_) => Err(sql::memory_takes_no_sql()),
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(sqlite) => {
                let mut connection = sqlite.writer.take().await.map_err(sql::db_error)?;
                let rows = sql::bind_sqlite(self.prefix.apply(statement.sqlite), values)
                    .fetch_all(&mut *connection)
                    .await;
                let rows = connection.settle(rows).map_err(sql::autocommit_error)?;
                Ok(rows.into_iter().map(Row::from).collect())
            }
            #[cfg(feature = "postgres")]
            Inner::Postgres(postgres) => {
                let mut connection = postgres.connections.take().await.map_err(sql::db_error)?;
                let rows = sql::bind_postgres(self.prefix.apply(statement.postgres), values)
                    .fetch_all(&mut *connection)
                    .await;
                let rows = connection.settle(rows).map_err(sql::autocommit_error)?;
                Ok(rows.into_iter().map(Row::from).collect())
            }
        }
    }

    /// Runs one statement that only reads. The caller bounds the result (`LIMIT`).
    ///
    /// # Errors
    /// `Unavailable` when the connection broke or none was free in time.
    pub async fn read(
        &self,
        statement: impl Into<Sql> + Send,
        values: &[SqlValue],
    ) -> Result<Vec<Row>> {
        let statement: Sql = statement.into();
        #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
        let _ = (statement, values);
        match &self.inner {
            Inner::Memory(_) => Err(sql::memory_takes_no_sql()),
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(sqlite) => {
                let mut connection = sqlite.readers.take().await.map_err(sql::db_error)?;
                let rows = sql::bind_sqlite(self.prefix.apply(statement.sqlite), values)
                    .fetch_all(&mut *connection)
                    .await;
                let rows = connection.settle(rows).map_err(sql::db_error)?;
                Ok(rows.into_iter().map(Row::from).collect())
            }
            #[cfg(feature = "postgres")]
            Inner::Postgres(postgres) => {
                let mut connection = postgres.connections.take().await.map_err(sql::db_error)?;
                let rows = sql::bind_postgres(self.prefix.apply(statement.postgres), values)
                    .fetch_all(&mut *connection)
                    .await;
                let rows = connection.settle(rows).map_err(sql::db_error)?;
                Ok(rows.into_iter().map(Row::from).collect())
            }
        }
    }

    /// The time on the database's clock: the one that decides about leases and timers.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn now(&self) -> Result<DateTime<Utc>> {
        #[cfg_attr(
            not(any(feature = "sqlite", feature = "postgres")),
            allow(irrefutable_let_patterns)
        )]
        if let Inner::Memory(memory) = &self.inner {
            return Ok(memory.now());
        }
        let rows = self
            .read(
                Sql::new(
                    "SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS now",
                    "SELECT clock_timestamp() AS now",
                ),
                &[],
            )
            .await?;
        rows.first().ok_or_else(sql::no_row)?.time("now")
    }

    /// Does the database answer? For health checks.
    ///
    /// # Errors
    /// `Unavailable`, with the reason.
    pub async fn ping(&self) -> Result<()> {
        self.now().await.map(|_| ())
    }

    /// Closes the connections. Transactions that are under way may end first, as long as a caller
    /// would wait for a connection. Whoever comes later gets `Closed`.
    pub async fn close(&self) {
        match &self.inner {
            Inner::Memory(_) => {}
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(sqlite) => {
                sqlite.driver.close().await;
                sqlite.readers.close().await;
                sqlite.writer.close().await;
            }
            #[cfg(feature = "postgres")]
            Inner::Postgres(postgres) => {
                postgres.driver.close().await;
                postgres.connections.close().await;
                postgres.reserved.close().await;
            }
        }
    }
}
