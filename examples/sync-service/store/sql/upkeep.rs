//! What is done from time to time.

use chrono::{DateTime, Utc};
use potter_core::{Database, Result, Sql, values};

use super::rows::{int, uint, user};
use crate::store::User;

pub(super) async fn retire(database: &Database, silent_since: DateTime<Utc>) -> Result<u64> {
    const RETIRE: Sql = Sql::new(
        "UPDATE sync_replicas SET retired = 1 WHERE retired = 0 AND last_seen < $1",
        "UPDATE sync_replicas SET retired = true WHERE NOT retired AND last_seen < $1",
    );
    database.execute(RETIRE, values![silent_since]).await
}

pub(super) async fn users(
    database: &Database,
    after: Option<&str>,
    limit: u64,
) -> Result<Vec<User>> {
    let rows = database
        .read(
            "SELECT * FROM sync_users WHERE user_id > $1 ORDER BY user_id LIMIT $2",
            values![after.unwrap_or_default(), int(limit)],
        )
        .await?;
    rows.iter().map(user).collect()
}

pub(super) async fn least_acked(database: &Database, user_id: &str) -> Result<Option<u64>> {
    const LEAST: Sql = Sql::new(
        "SELECT coalesce(min(acked), -1) AS n FROM sync_replicas
         WHERE user_id = $1 AND retired = 0",
        "SELECT coalesce(min(acked), -1) AS n FROM sync_replicas
         WHERE user_id = $1 AND NOT retired",
    );
    let rows = database.read(LEAST, values![user_id]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    if row.i64("n")? < 0 { Ok(None) } else { uint(row, "n").map(Some) }
}

pub(super) async fn forget(database: &Database, older_than: DateTime<Utc>) -> Result<u64> {
    let ops = database.execute("DELETE FROM sync_ops WHERE at < $1", values![older_than]).await?;
    let answers =
        database.execute("DELETE FROM sync_answers WHERE at < $1", values![older_than]).await?;
    Ok(ops + answers)
}
