//! A client: up to two connections, no retries, and an honest word on every error.

use std::str::FromStr;

use async_trait::async_trait;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use super::operations::{self, Ended};
use super::tables::Tables;
use super::{Isolation, Kind, Options};
use crate::runner::{Client, Completion, Failure, Node, Op};

/// A connection with the session's settings. On a replica SERIALIZABLE does not exist.
pub(super) async fn connect(
    url: &str,
    options: &Options,
    replica: bool,
) -> Result<PgConnection, sqlx::Error> {
    let connect = PgConnectOptions::from_str(url)?
        .application_name("potter-jepsen")
        .disable_statement_logging();
    let mut connection = connect.connect().await?;
    let isolation = match (replica, options.isolation) {
        (true, Isolation::Serializable) => Isolation::RepeatableRead,
        (_, isolation) => isolation,
    };
    // Transactions here get into each other's way on purpose: a second for each deadlock would be
    // most of a test. Only superusers may change that.
    let sql = format!(
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {}; \
         SET idle_in_transaction_session_timeout = {}; \
         DO $$ BEGIN PERFORM set_config('deadlock_timeout', '20ms', false); \
         EXCEPTION WHEN insufficient_privilege THEN NULL; END $$",
        isolation.sql(),
        options.idle_in_transaction.as_millis()
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    Ok(connection)
}

pub(super) struct PgClient {
    kind: Kind,
    options: Options,
    table: String,
    primary_url: String,
    replica_url: Option<String>,
    primary: Option<PgConnection>,
    replica: Option<PgConnection>,
}

impl PgClient {
    pub(super) fn new(
        kind: Kind,
        options: &Options,
        tables: &Tables,
        primary: &Node,
        replica: Option<&Node>,
    ) -> Self {
        Self {
            kind,
            options: options.clone(),
            table: tables.name(kind),
            primary_url: primary.url.clone(),
            replica_url: replica.map(|node| node.url.clone()),
            primary: None,
            replica: None,
        }
    }

    /// Connects to where reads go; the other connection is made when it is needed.
    pub(super) async fn connect(&mut self) -> Result<(), sqlx::Error> {
        self.take(true).await.map(|connection| self.put(true, connection))
    }

    fn on_replica(&self, reads: bool) -> bool {
        reads && self.replica_url.is_some()
    }

    async fn take(&mut self, reads: bool) -> Result<PgConnection, sqlx::Error> {
        match &self.replica_url {
            Some(url) if reads => match self.replica.take() {
                Some(connection) => Ok(connection),
                None => connect(url, &self.options, true).await,
            },
            _ => match self.primary.take() {
                Some(connection) => Ok(connection),
                None => connect(&self.primary_url, &self.options, false).await,
            },
        }
    }

    fn put(&mut self, reads: bool, connection: PgConnection) {
        match self.on_replica(reads) {
            true => self.replica = Some(connection),
            false => self.primary = Some(connection),
        }
    }
}

/// The server says that the statement, and its transaction, left nothing behind.
fn rolled_back(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    match error.code().as_deref() {
        // statement_completion_unknown
        Some("40003") => false,
        // Rolled back; read-only; no lock; no room for the connection; not up yet.
        Some(code) => {
            code.starts_with("40") || matches!(code, "25006" | "55P03" | "53300" | "57P03")
        }
        None => false,
    }
}

/// After an answer of the server the connection is still good; after anything else it is not.
fn answered(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().is_some_and(|c| !c.starts_with("57P") && !c.starts_with("08")))
}

#[async_trait]
impl Client for PgClient {
    async fn invoke(&mut self, op: &Op) -> Result<Completion, Failure> {
        let reads = operations::only_reads(op);
        let mut connection = match self.take(reads).await {
            Ok(connection) => connection,
            Err(error) => return Ok(Completion::Unreachable(error.to_string())),
        };
        let ended = operations::run(self.kind, &self.table, op, &mut connection).await;
        match ended {
            Ended::Done(completion) => {
                self.put(reads, connection);
                Ok(completion)
            }
            Ended::Failed { error, before_commit } => {
                let certain = before_commit || reads || rolled_back(&error);
                if answered(&error) {
                    self.put(reads, connection);
                }
                if certain { Ok(Completion::Fail(error.to_string())) } else { Err(error.into()) }
            }
            Ended::Misfit(what) => Ok(Completion::Fail(what)),
        }
    }

    async fn close(&mut self) {
        for connection in [self.primary.take(), self.replica.take()].into_iter().flatten() {
            _ = connection.close().await;
        }
    }
}
