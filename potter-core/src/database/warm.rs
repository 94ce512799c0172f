//! Connections that are handed from one use to the next without a word to the server.
//!
//! The driver's pool pings a connection whenever it comes back, so that a rollback which was
//! queued by a dropped transaction takes place: a round trip for every statement and every
//! transaction. Here the last owner says whether the connection is clean. One that comes back
//! from a finished statement or transaction goes straight to the next user; any other is rolled
//! back by a task of its own, or closed.
//!
//! # Invariant
//! A connection in `idle` has no open transaction and no answer outstanding. Only
//! [`Warm::give_back`] puts one there; a future that is dropped half way never gets to it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{Connection, Database};
use sqlx_core::transaction::TransactionManager;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longer idle than this, a connection is tested before it is used.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);
/// Older than this, it is replaced: servers and load balancers change behind a name.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);

type ConnectOptions<D> = <<D as Database>::Connection as Connection>::Options;

/// A bounded set of connections; callers wait for one in the order in which they came.
pub(super) struct Warm<D: Database> {
    inner: Arc<Inner<D>>,
}

struct Inner<D: Database> {
    options: ConnectOptions<D>,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Idle<D>>>,
    limit: u32,
    acquire_timeout: Duration,
    ages: bool,
}

struct Idle<D: Database> {
    connection: D::Connection,
    since: Instant,
    opened: Instant,
}

/// A connection in use. Dropped without [`give_back`](Self::give_back), it is closed.
pub(super) struct InUse<D: Database> {
    connection: Option<D::Connection>,
    opened: Instant,
    home: Arc<Inner<D>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<D: Database> Clone for Warm<D> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<D: Database> fmt::Debug for Warm<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Warm({} free)", self.inner.permits.available_permits())
    }
}

impl<D: Database> fmt::Debug for InUse<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InUse")
    }
}

impl<D: Database> Warm<D> {
    /// At most `limit` connections. `ages`: replace old ones (those to a file do not age).
    pub(super) fn new(
        options: ConnectOptions<D>,
        limit: u32,
        acquire_timeout: Duration,
        ages: bool,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                options,
                permits: Arc::new(Semaphore::new(limit as usize)),
                idle: Mutex::default(),
                limit,
                acquire_timeout,
                ages,
            }),
        }
    }

    /// A connection, as soon as there is one; those that died while idle are passed over.
    pub(super) async fn take(&self) -> Result<InUse<D>, sqlx::Error> {
        let inner = &self.inner;
        let taken = tokio::time::timeout(inner.acquire_timeout, self.take_patiently()).await;
        taken.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn take_patiently(&self) -> Result<InUse<D>, sqlx::Error> {
        let inner = &self.inner;
        let permit = Arc::clone(&inner.permits).acquire_owned().await;
        let mut permit = Some(permit.map_err(|_| sqlx::Error::PoolClosed)?);
        loop {
            let idle = inner.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(Idle { connection, since, opened }) = idle else { break };
            let mut found = InUse {
                connection: Some(connection),
                opened,
                home: Arc::clone(inner),
                permit: permit.take(),
            };
            if !inner.ages || since.elapsed() < IDLE_TRUSTED || found.ping().await.is_ok() {
                return Ok(found);
            }
            permit = found.permit.take();
        }
        let connection = D::Connection::connect_with(&inner.options).await?;
        Ok(InUse {
            connection: Some(connection),
            opened: Instant::now(),
            home: Arc::clone(inner),
            permit,
        })
    }

    /// A connection in a transaction. One that proves to be dead at its first statement, when
    /// nothing has happened yet, is replaced.
    pub(super) async fn begin(
        &self,
        statement: Option<&'static str>,
    ) -> Result<InTransaction<D>, sqlx::Error> {
        use sqlx::SqlSafeStr;

        const DEAD_MAX: u32 = 64;
        let mut dead = 0;
        loop {
            let mut connection = self.take().await?;
            let begun = D::TransactionManager::begin(
                &mut connection,
                statement.map(SqlSafeStr::into_sql_str),
            )
            .await;
            match begun {
                Ok(()) => return Ok(InTransaction(Some(connection))),
                Err(error) if is_dead(&error) && dead < DEAD_MAX => dead += 1,
                Err(error) => {
                    if matches!(error, sqlx::Error::Database(_)) {
                        connection.give_back();
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Waits for the connections in use, as long as a caller of [`take`](Self::take) would; then
    /// closes all and lets no one take another.
    pub(super) async fn close(&self) {
        let inner = &self.inner;
        let all = inner.permits.acquire_many(inner.limit);
        let _all = tokio::time::timeout(inner.acquire_timeout, all).await;
        inner.permits.close();
        let idle: Vec<_> =
            inner.idle.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for one in idle {
            let _ = one.connection.close().await;
        }
    }
}

/// The server ended the session, or the connection is gone.
fn is_dead(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("57P0") || code.starts_with("08") || code == "25P03"
        }),
        _ => false,
    }
}

impl<D: Database> InUse<D> {
    /// It is clean: the next one may have it.
    pub(super) fn give_back(mut self) {
        let old = self.home.ages && self.opened.elapsed() > AGE_MAX;
        if let Some(connection) =
            self.connection.take().filter(|_| !old && !self.home.permits.is_closed())
        {
            let idle = Idle { connection, since: Instant::now(), opened: self.opened };
            self.home.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
        }
    }

    /// After a statement that committed itself: clean unless the connection is in doubt.
    pub(super) fn settle<T>(self, done: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let clean = match &done {
            Ok(_) => true,
            Err(error) => {
                !is_dead(error)
                    && !matches!(error, sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed)
            }
        };
        if clean {
            self.give_back();
        }
        done
    }
}

impl<D: Database> Deref for InUse<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("it is taken out only when the value ends"),
        }
    }
}

impl<D: Database> DerefMut for InUse<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("it is taken out only when the value ends"),
        }
    }
}

/// A connection in a transaction. Dropped, it is rolled back.
#[derive(Debug)]
pub(super) struct InTransaction<D: Database>(Option<InUse<D>>);

impl<D: Database> InTransaction<D> {
    pub(super) fn connection(&mut self) -> &mut D::Connection {
        match &mut self.0 {
            Some(connection) => connection,
            None => unreachable!("it is taken out only when the value ends"),
        }
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        let done = D::TransactionManager::commit(self.connection()).await;
        self.end(done)
    }

    pub(super) async fn rollback(mut self) -> Result<(), sqlx::Error> {
        let done = D::TransactionManager::rollback(self.connection()).await;
        self.end(done)
    }

    /// After an error nobody knows the state of the connection: it is closed, and the database
    /// rolls back what is open.
    fn end(&mut self, done: Result<(), sqlx::Error>) -> Result<(), sqlx::Error> {
        if let Some(connection) = self.0.take().filter(|_| done.is_ok()) {
            connection.give_back();
        }
        done
    }
}

impl<D: Database> Drop for InTransaction<D> {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else { return };
        // Outside of a runtime it is closed, which rolls back too.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            D::TransactionManager::start_rollback(&mut connection);
            runtime.spawn(async move {
                if connection.ping().await.is_ok() {
                    connection.give_back();
                }
            });
        }
    }
}
