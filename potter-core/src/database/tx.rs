//! A transaction that the caller owns.
//!
//! # Invariant
//! `commit` answers `Ok` only if everything written through this handle is durable. Two things
//! could break it. PostgreSQL answers COMMIT of a failed transaction with ROLLBACK and no error:
//! so after a failed statement, one whose answer was not waited for, and after the raw connection
//! was lent out, commit first runs a statement that such a transaction refuses. And a connection can break between COMMIT and its
//! answer: that is `Unknown`, never failure.

use crate::database::engine::Engine;
use crate::database::memory::MemoryTx;
use crate::database::sql::{self, Row, Sql, SqlValue};
use crate::error::{Error, ErrorKind, Result};

/// A transaction. Dropping it rolls it back.
#[derive(Debug)]
pub struct Tx {
    inner: Inner,
    /// The last thing that went through may have failed it, or was given up before its answer.
    suspect: bool,
}

#[derive(Debug)]
enum Inner {
    Memory(MemoryTx),
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl From<MemoryTx> for Tx {
    fn from(tx: MemoryTx) -> Self {
        Self { inner: Inner::Memory(tx), suspect: false }
    }
}

/// Takes over a transaction that was begun with the driver. It should be one that may write
/// (`BEGIN IMMEDIATE`).
#[cfg(feature = "sqlite")]
impl From<sqlx::Transaction<'static, sqlx::Sqlite>> for Tx {
    fn from(tx: sqlx::Transaction<'static, sqlx::Sqlite>) -> Self {
        Self { inner: Inner::Sqlite(tx), suspect: false }
    }
}

/// Takes over a transaction that was begun with the driver, at READ COMMITTED or above.
#[cfg(feature = "postgres")]
impl From<sqlx::Transaction<'static, sqlx::Postgres>> for Tx {
    fn from(tx: sqlx::Transaction<'static, sqlx::Postgres>) -> Self {
        Self { inner: Inner::Postgres(tx), suspect: true }
    }
}

#[cfg(feature = "sqlite")]
pub(super) async fn begin_sqlite(pool: &sqlx::SqlitePool) -> Result<Tx> {
    pool.begin_with("BEGIN IMMEDIATE").await.map(Tx::from).map_err(sql::db_error)
}

/// Connections are not tested before use (that would be a round trip a transaction): one that
/// died while idle shows at BEGIN, where trying another is safe.
#[cfg(feature = "postgres")]
pub(super) async fn begin_postgres(pool: &sqlx::PgPool) -> Result<Tx> {
    const STALE_CONNECTIONS_MAX: u32 = 32;
    let mut tried = 0;
    loop {
        match pool.begin().await {
            Ok(tx) => return Ok(Tx { inner: Inner::Postgres(tx), suspect: false }),
            Err(sqlx::Error::Io(_)) if tried < STALE_CONNECTIONS_MAX => tried += 1,
            Err(source) => {
                let stale = source.as_database_error().and_then(|error| error.code());
                if stale.is_some_and(|code| code.starts_with("57P0"))
                    && tried < STALE_CONNECTIONS_MAX
                {
                    tried += 1;
                    continue;
                }
                return Err(sql::db_error(source));
            }
        }
    }
}

impl Tx {
    /// Which engine it is on.
    pub fn engine(&self) -> Engine {
        match &self.inner {
            Inner::Memory(_) => Engine::Memory,
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(_) => Engine::Sqlite,
            #[cfg(feature = "postgres")]
            Inner::Postgres(_) => Engine::Postgres,
        }
    }

    /// The tables in memory, when it is the memory database.
    pub fn memory(&mut self) -> Option<&mut MemoryTx> {
        match &mut self.inner {
            Inner::Memory(tx) => Some(tx),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            _ => None,
        }
    }

    /// The driver's connection, when it is PostgreSQL. Do not end the transaction through it.
    #[cfg(feature = "postgres")]
    pub fn postgres(&mut self) -> Option<&mut sqlx::PgConnection> {
        match &mut self.inner {
            Inner::Postgres(tx) => {
                self.suspect = true;
                Some(&mut **tx)
            }
            _ => None,
        }
    }

    /// The driver's connection, when it is SQLite. Do not end the transaction through it.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&mut self) -> Option<&mut sqlx::SqliteConnection> {
        match &mut self.inner {
            Inner::Sqlite(tx) => Some(&mut **tx),
            _ => None,
        }
    }

    /// Runs a statement; answers how many rows it changed.
    ///
    /// # Errors
    /// `Conflict` for a unique violation, deadlock or serialization failure; `InvalidInput` for
    /// a value that a constraint refuses; `Unavailable` when the connection broke.
    pub async fn execute(
        &mut self,
        statement: impl Into<Sql> + Send,
        values: &[SqlValue],
    ) -> Result<u64> {
        let statement = statement.into();
        // It stays so when this future is dropped before the answer.
        self.suspect = true;
        let done = match &mut self.inner {
            Inner::Memory(_) => return Err(sql::memory_takes_no_sql()),
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(tx) => sql::bind_sqlite(statement.sqlite, values)
                .execute(&mut **tx)
                .await
                .map(|done| done.rows_affected()),
            #[cfg(feature = "postgres")]
            Inner::Postgres(tx) => sql::bind_postgres(statement.postgres, values)
                .execute(&mut **tx)
                .await
                .map(|done| done.rows_affected()),
        };
        self.suspect = done.is_err();
        done.map_err(sql::db_error)
    }

    /// Runs a statement and returns its rows. The caller bounds the result (`LIMIT`).
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn fetch_all(
        &mut self,
        statement: impl Into<Sql> + Send,
        values: &[SqlValue],
    ) -> Result<Vec<Row>> {
        let statement = statement.into();
        // It stays so when this future is dropped before the answer.
        self.suspect = true;
        let rows: Result<Vec<Row>, sqlx::Error> = match &mut self.inner {
            Inner::Memory(_) => return Err(sql::memory_takes_no_sql()),
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(tx) => sql::bind_sqlite(statement.sqlite, values)
                .fetch_all(&mut **tx)
                .await
                .map(|rows| rows.into_iter().map(Row::from).collect()),
            #[cfg(feature = "postgres")]
            Inner::Postgres(tx) => sql::bind_postgres(statement.postgres, values)
                .fetch_all(&mut **tx)
                .await
                .map(|rows| rows.into_iter().map(Row::from).collect()),
        };
        self.suspect = rows.is_err();
        rows.map_err(sql::db_error)
    }

    /// Runs a statement and returns its first row, if any.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn fetch_optional(
        &mut self,
        statement: impl Into<Sql> + Send,
        values: &[SqlValue],
    ) -> Result<Option<Row>> {
        Ok(self.fetch_all(statement, values).await?.into_iter().next())
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// `Conflict` when a statement before had failed, so that there is nothing to commit;
    /// `Unknown` when the connection broke before the answer: it may be there or not.
    pub async fn commit(mut self) -> Result<()> {
        if self.suspect && self.engine() == Engine::Postgres {
            self.fetch_all("SELECT 1", &[]).await.map_err(|source| {
                Error::with_source(
                    ErrorKind::Conflict,
                    "the transaction can't be committed: a statement in it had failed",
                    source,
                )
            })?;
        }
        let done: Result<(), sqlx::Error> = match self.inner {
            Inner::Memory(tx) => {
                tx.commit();
                Ok(())
            }
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(tx) => tx.commit().await,
            #[cfg(feature = "postgres")]
            Inner::Postgres(tx) => tx.commit().await,
        };
        done.map_err(sql::autocommit_error)
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// `Unavailable` when the connection broke; the database then rolls back by itself.
    pub async fn rollback(self) -> Result<()> {
        let done: Result<(), sqlx::Error> = match self.inner {
            Inner::Memory(tx) => {
                drop(tx);
                Ok(())
            }
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(tx) => tx.rollback().await,
            #[cfg(feature = "postgres")]
            Inner::Postgres(tx) => tx.rollback().await,
        };
        done.map_err(sql::db_error)
    }
}
