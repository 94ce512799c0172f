//! The tables of a workload: named by its prefix, made before it, dropped after it.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::connection::connect;
use super::{Kind, Options};
use crate::runner::{Failure, Node};

pub(super) const ACCOUNTS: i64 = 8;
const BALANCE: i64 = 10;
pub(super) const BANK_TOTAL: i64 = ACCOUNTS * BALANCE;

/// How long replicas may take to see new tables.
const REPLICATION: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) struct Tables {
    prefix: String,
}

impl Tables {
    /// `None` if the prefix is no plain lower case name: it becomes part of statements.
    pub(super) fn new(prefix: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let valid = prefix.starts_with(|c: char| c.is_ascii_lowercase())
            && prefix.len() <= 40
            && prefix.chars().all(plain);
        valid.then(|| Self { prefix: prefix.to_owned() })
    }

    /// The table of a workload.
    pub(super) fn name(&self, kind: Kind) -> String {
        let suffix = match kind {
            Kind::Register | Kind::Cas | Kind::Rw => "kv",
            Kind::Bank => "bank",
            Kind::Set => "set",
            Kind::Append => "list",
            Kind::Queue => "queue",
            Kind::Counter | Kind::Monotonic => "number",
            Kind::LongFork => "fork",
        };
        format!("{}_{suffix}", self.prefix)
    }

    pub(super) async fn create(
        &self,
        kind: Kind,
        nodes: &[Node],
        options: &Options,
    ) -> Result<(), Failure> {
        let primary = nodes.first().ok_or("there is no node")?;
        let table = self.name(kind);
        let columns = match kind {
            Kind::Register
            | Kind::Cas
            | Kind::Rw
            | Kind::LongFork
            | Kind::Counter
            | Kind::Monotonic
            | Kind::Bank => "k bigint PRIMARY KEY, v bigint NOT NULL",
            Kind::Set => "v bigint PRIMARY KEY",
            Kind::Append => "k bigint PRIMARY KEY, v bigint[] NOT NULL",
            Kind::Queue => "k bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v bigint NOT NULL",
        };
        let rows = match kind {
            Kind::Bank => format!(
                "INSERT INTO {table} SELECT n, {BALANCE} FROM generate_series(0, {}) n",
                ACCOUNTS - 1
            ),
            Kind::Counter | Kind::Monotonic => format!("INSERT INTO {table} VALUES (0, 0)"),
            _ => "SELECT 1".into(),
        };
        let mut connection = connect(&primary.url, options, false).await?;
        let sql = format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} ({columns}); {rows}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        connection.close().await?;
        for replica in &nodes[1..] {
            wait_for(&table, kind, replica, options).await?;
        }
        Ok(())
    }

    pub(super) async fn drop(&self, kind: Kind, nodes: &[Node]) -> Result<(), Failure> {
        let primary = nodes.first().ok_or("there is no node")?;
        let mut connection = connect(&primary.url, &Options::default(), false).await?;
        // A client that was given up may still hold a lock: then the table stays.
        let sql = format!("SET lock_timeout = '5s'; DROP TABLE IF EXISTS {}", self.name(kind));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }
}

/// Waits until a replica has the table with its first rows.
async fn wait_for(
    table: &str,
    kind: Kind,
    replica: &Node,
    options: &Options,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut connection = connect(&replica.url, options, true).await?;
    while !there(table, kind, &mut connection).await? {
        if begun.elapsed() > REPLICATION {
            return Err(format!("node {} does not follow the primary", replica.name).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(connection.close().await?)
}

async fn there(
    table: &str,
    kind: Kind,
    connection: &mut PgConnection,
) -> Result<bool, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(table)
        .fetch_one(&mut *connection)
        .await?;
    if !exists || !matches!(kind, Kind::Bank | Kind::Counter | Kind::Monotonic) {
        return Ok(exists);
    }
    let sql = AssertSqlSafe(format!("SELECT EXISTS (SELECT 1 FROM {table})"));
    sqlx::query_scalar(sql).fetch_one(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_plain_name() {
        for bad in ["", "1a", "A", "a-b", "a\"; DROP TABLE x; --", "ä", &"a".repeat(41)] {
            assert!(Tables::new(bad).is_none(), "{bad}");
        }
        assert!(Tables::new("jepsen_1a").is_some());
    }
}
