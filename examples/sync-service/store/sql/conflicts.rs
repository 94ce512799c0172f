//! Conflicts in tables.

use potter_core::{Database, Result, Row, SqlValue, values};

use super::rows::{self, corrupt, int};
use crate::store::{Conflict, ConflictFilter};

pub(super) async fn list(
    database: &Database,
    filter: &ConflictFilter,
) -> Result<(Vec<Conflict>, u64)> {
    const WHERE: &str = "WHERE (user_id = $1 OR $1 IS NULL) AND (status = $2 OR $2 IS NULL)";
    let (user, status) = (filter.user_id.clone(), filter.status.clone());
    let count =
        potter_core::Sql::checked(format!("SELECT count(*) AS n FROM sync_conflicts {WHERE}"));
    let total = database.read(count, values![user.clone(), status.clone()]).await?;
    let total = total.first().map_or(Ok(0), |row| rows::uint(row, "n"))?;
    let select = potter_core::Sql::checked(format!(
        "SELECT * FROM sync_conflicts {WHERE} ORDER BY detected_at DESC, id LIMIT $3 OFFSET $4"
    ));
    let rows =
        database.read(select, values![user, status, int(filter.limit), int(filter.offset)]).await?;
    Ok((rows.iter().map(conflict).collect::<Result<_>>()?, total))
}

pub(super) async fn get(database: &Database, id: uuid::Uuid) -> Result<Option<Conflict>> {
    let rows = database.read("SELECT * FROM sync_conflicts WHERE id = $1", values![id]).await?;
    rows.first().map(conflict).transpose()
}

fn conflict(row: &Row) -> Result<Conflict> {
    let siblings = serde_json::from_str(&row.text("siblings")?)
        .map_err(|error| corrupt(format!("column siblings can't be read: {error}")))?;
    let status = row.text("status")?;
    let status = ["open", "resolved", "superseded"].into_iter().find(|known| *known == status);
    Ok(Conflict {
        id: row.uuid("id")?,
        user_id: row.text("user_id")?,
        key: rows::key(row)?,
        kind: rows::kind(row)?,
        entry: row.opt_text("entry")?,
        siblings,
        status: status.ok_or_else(|| corrupt("a conflict has no such status"))?,
        detected_at: row.time("detected_at")?,
        resolved_at: row.opt_time("resolved_at")?,
        resolution: row.opt_text("resolution")?,
    })
}

/// The statement that writes one, and its values.
pub(super) const UPSERT: &str = "
    INSERT INTO sync_conflicts (id, user_id, entity_type, entity_id, kind, entry, siblings, status,
        detected_at, resolved_at, resolution)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ON CONFLICT (id) DO UPDATE SET siblings = excluded.siblings, status = excluded.status,
        detected_at = CASE WHEN sync_conflicts.status = 'open' OR excluded.status <> 'open'
            THEN sync_conflicts.detected_at ELSE excluded.detected_at END,
        resolved_at = excluded.resolved_at, resolution = excluded.resolution";

pub(super) fn values_of(one: &Conflict) -> Vec<SqlValue> {
    let siblings = serde_json::to_string(&one.siblings).unwrap_or_else(|_| "[]".to_owned());
    values![
        one.id,
        &one.user_id,
        &one.key.entity_type,
        &one.key.entity_id,
        one.kind.name(),
        one.entry.clone(),
        siblings,
        one.status,
        one.detected_at,
        one.resolved_at,
        one.resolution.clone()
    ]
    .to_vec()
}
