//! A transaction that the caller owns.
//!
//! # Invariant
//! `commit` answers `Ok` only if everything written through this handle is durable. Two things
//! could break it. PostgreSQL answers COMMIT of a failed transaction with ROLLBACK and no error:
//! so after a failed statement, one whose answer was not waited for, and after the raw connection
//! was lent out, commit first runs a statement that such a transaction refuses. And a connection can break between COMMIT and its
//! answer: that is `Unknown`, never failure.

use crate::database::TablePrefix;
use crate::database::engine::Engine;
use crate::database::memory::MemoryTx;
use crate::database::sql::{self, Row, Sql, SqlValue};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::database::warm::{InTransaction, Warm};
use crate::error::{Error, ErrorKind, Result};

/// A transaction. Dropping it rolls it back.
#[derive(Debug)]
pub struct Tx {
    inner: Inner,
    prefix: TablePrefix,
    on_commit: OnCommit,
    /// The last thing that went through may have failed it, or was given up before its answer.
    suspect: bool,
}

/// What is called after the commit.
#[derive(Default)]
struct OnCommit(Vec<Box<dyn FnOnce() + Send + Sync>>);

impl std::fmt::Debug for OnCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.len())
    }
}

#[derive(Debug)]
enum Inner {
    Memory(MemoryTx),
    #[cfg(feature = "sqlite")]
    Sqlite(SqlTx<sqlx::Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(SqlTx<sqlx::Postgres>),
}

/// Begun here, or with the driver.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[derive(Debug)]
enum SqlTx<D: sqlx::Database> {
    Own(InTransaction<D>),
    Driver(sqlx::Transaction<'static, D>),
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl<D: sqlx::Database> SqlTx<D> {
    fn connection(&mut self) -> &mut D::Connection {
        match self {
            Self::Own(tx) => tx.connection(),
            Self::Driver(tx) => &mut *tx,
        }
    }

    async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Own(tx) => tx.commit().await,
            Self::Driver(tx) => tx.commit().await,
        }
    }

    async fn rollback(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Own(tx) => tx.rollback().await,
            Self::Driver(tx) => tx.rollback().await,
        }
    }
}

impl From<MemoryTx> for Tx {
    fn from(tx: MemoryTx) -> Self {
        Self::new(Inner::Memory(tx), false)
    }
}

/// Takes over a transaction that was begun with the driver. It should be one that may write
/// (`BEGIN IMMEDIATE`).
#[cfg(feature = "sqlite")]
impl From<sqlx::Transaction<'static, sqlx::Sqlite>> for Tx {
    fn from(tx: sqlx::Transaction<'static, sqlx::Sqlite>) -> Self {
        Self::new(Inner::Sqlite(SqlTx::Driver(tx)), false)
    }
}

/// Takes over a transaction that was begun with the driver, at READ COMMITTED or above.
#[cfg(feature = "postgres")]
impl From<sqlx::Transaction<'static, sqlx::Postgres>> for Tx {
    fn from(tx: sqlx::Transaction<'static, sqlx::Postgres>) -> Self {
        Self::new(Inner::Postgres(SqlTx::Driver(tx)), true)
    }
}

#[cfg(feature = "sqlite")]
pub(super) async fn begin_sqlite(connections: &Warm<sqlx::Sqlite>) -> Result<Tx> {
    let tx = connections.begin(Some("BEGIN IMMEDIATE")).await.map_err(sql::db_error)?;
    Ok(Tx::new(Inner::Sqlite(SqlTx::Own(tx)), false))
}

#[cfg(feature = "postgres")]
pub(super) async fn begin_postgres(connections: &Warm<sqlx::Postgres>) -> Result<Tx> {
    let tx = connections.begin(None).await.map_err(sql::db_error)?;
    Ok(Tx::new(Inner::Postgres(SqlTx::Own(tx)), false))
}

impl Tx {
    fn new(inner: Inner, suspect: bool) -> Self {
        Self { inner, prefix: TablePrefix::default(), on_commit: OnCommit::default(), suspect }
    }

    pub(super) fn with_prefix(mut self, prefix: TablePrefix) -> Self {
        self.prefix = prefix;
        self
    }

    /// Calls `action` when the transaction has been committed, or when it is unknown whether it
    /// was; never after a rollback. For hints (wake somebody up), not for work: a process that
    /// dies after its commit calls nothing.
    pub fn on_commit(&mut self, action: impl FnOnce() + Send + Sync + 'static) {
        self.on_commit.0.push(Box::new(action));
    }

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
                Some(tx.connection())
            }
            _ => None,
        }
    }

    /// The driver's connection, when it is SQLite. Do not end the transaction through it.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&mut self) -> Option<&mut sqlx::SqliteConnection> {
        match &mut self.inner {
            Inner::Sqlite(tx) => Some(tx.connection()),
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
        let statement: Sql = statement.into();
        #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
        let _ = (statement, values);
        // It stays so when this future is dropped before the answer.
        self.suspect = true;
        let done: Result<u64> = match &mut self.inner {
            Inner::Memory(_) => Err(sql::memory_takes_no_sql()),
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(tx) => sql::bind_sqlite(self.prefix.apply(statement.sqlite), values)
                .execute(tx.connection())
                .await
                .map(|done| done.rows_affected())
                .map_err(sql::db_error),
            #[cfg(feature = "postgres")]
            Inner::Postgres(tx) => {
                sql::bind_postgres(self.prefix.apply(statement.postgres), values)
                    .execute(tx.connection())
                    .await
                    .map(|done| done.rows_affected())
                    .map_err(sql::db_error)
            }
        };
        self.suspect = done.is_err();
        done
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
        let statement: Sql = statement.into();
        #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
        let _ = (statement, values);
        // It stays so when this future is dropped before the answer.
        self.suspect = true;
        let rows: Result<Vec<Row>> = match &mut self.inner {
            Inner::Memory(_) => Err(sql::memory_takes_no_sql()),
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(tx) => sql::bind_sqlite(self.prefix.apply(statement.sqlite), values)
                .fetch_all(tx.connection())
                .await
                .map(|rows| rows.into_iter().map(Row::from).collect())
                .map_err(sql::db_error),
            #[cfg(feature = "postgres")]
            Inner::Postgres(tx) => {
                sql::bind_postgres(self.prefix.apply(statement.postgres), values)
                    .fetch_all(tx.connection())
                    .await
                    .map(|rows| rows.into_iter().map(Row::from).collect())
                    .map_err(sql::db_error)
            }
        };
        self.suspect = rows.is_err();
        rows
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
        let committed: Result<()> = match self.inner {
            Inner::Memory(tx) => {
                tx.commit();
                Ok(())
            }
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(tx) => tx.commit().await.map_err(sql::autocommit_error),
            #[cfg(feature = "postgres")]
            Inner::Postgres(tx) => tx.commit().await.map_err(sql::autocommit_error),
        };
        if committed.as_ref().map_or_else(|error| error.kind() == ErrorKind::Unknown, |()| true) {
            self.on_commit.0.into_iter().for_each(|action| action());
        }
        committed
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// `Unavailable` when the connection broke; the database then rolls back by itself.
    pub async fn rollback(self) -> Result<()> {
        match self.inner {
            Inner::Memory(tx) => {
                drop(tx);
                Ok(())
            }
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(tx) => tx.rollback().await.map_err(sql::db_error),
            #[cfg(feature = "postgres")]
            Inner::Postgres(tx) => tx.rollback().await.map_err(sql::db_error),
        }
    }
}
