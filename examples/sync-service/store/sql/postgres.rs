//! What PostgreSQL does in its own way: arrays instead of many statements, and the whole commit as
//! one statement. Its parts that write all hang on the row of the compare-and-swap (`FROM swapped`):
//! if another batch was first, that is empty and nothing is written.

use chrono::Utc;
use potter_core::{Database, Error, ErrorKind, Result, Row};
use sqlx::PgPool;
use sqlx::Row as _;

use super::conflicts;
use super::rows::{int, notes};
use crate::store::{Commit, EntityKey, OpKey};

fn pool(database: &Database) -> Result<&PgPool> {
    database.postgres().ok_or_else(|| Error::new(ErrorKind::Config, "this is no PostgreSQL"))
}

/// What a driver's error means. `open`: the statement commits itself, so a connection that breaks
/// leaves it open whether it took effect.
fn failed(source: sqlx::Error, open: bool) -> Error {
    let (kind, message) = match &source {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            Some("23505" | "40001" | "40P01") => {
                (ErrorKind::Conflict, "another transaction changed the same rows first")
            }
            Some("57P01" | "57P02") if open => {
                (ErrorKind::Unknown, "the server went away: the change may or may not be there")
            }
            Some("57P01" | "57P02" | "57P03" | "53300") => {
                (ErrorKind::Unavailable, "the database is not available at the moment")
            }
            _ => (ErrorKind::Internal, "the database refused the statement"),
        },
        sqlx::Error::PoolTimedOut => (ErrorKind::Unavailable, "no database connection came free"),
        sqlx::Error::PoolClosed => (ErrorKind::Closed, "the database handle was closed"),
        _ if open => (
            ErrorKind::Unknown,
            "the connection broke before the database answered: the change may or may not be there",
        ),
        _ => (ErrorKind::Unavailable, "the connection to the database broke"),
    };
    Error::with_source(kind, message, source)
}

pub(super) async fn load(
    database: &Database,
    user_id: &str,
    (scope, ids): (&str, &[&str]),
    ops: &[OpKey],
    entities: &[EntityKey],
) -> Result<(Vec<Row>, Vec<Row>, Vec<Row>)> {
    let pool = pool(database)?;
    let answers = async {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        sqlx::query("SELECT * FROM sync_answers WHERE scope = $1 AND id = ANY($2)")
            .bind(scope)
            .bind(ids)
            .fetch_all(pool)
            .await
    };
    let ops = async {
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&[u8]> = ops.iter().map(|name| name.as_slice()).collect();
        sqlx::query("SELECT name, payload FROM sync_ops WHERE name = ANY($1)")
            .bind(names)
            .fetch_all(pool)
            .await
    };
    let types: Vec<&str> = entities.iter().map(|key| key.entity_type.as_str()).collect();
    let ids: Vec<&str> = entities.iter().map(|key| key.entity_id.as_str()).collect();
    let entities = sqlx::query(
        "SELECT e.* FROM unnest($2::text[], $3::text[]) AS k (entity_type, entity_id)
         JOIN sync_entities e ON e.user_id = $1 AND e.entity_type = k.entity_type
             AND e.entity_id = k.entity_id",
    )
    .bind(user_id)
    .bind(types)
    .bind(ids)
    .fetch_all(pool);
    let (answers, ops, entities) =
        tokio::try_join!(answers, ops, entities).map_err(|error| failed(error, false))?;
    let rows = |rows: Vec<sqlx::postgres::PgRow>| rows.into_iter().map(Row::from).collect();
    Ok((rows(answers), rows(ops), rows(entities)))
}

const COMMIT: &str = "
WITH swapped AS (
    UPDATE sync_users SET version = $3, epoch = $4, head = $5, head_mark = $6, horizon = $7,
        horizon_mark = $8
    WHERE user_id = $1 AND version = $2 RETURNING user_id
), replicas AS (
    UPDATE sync_replicas r
    SET last_seen = n.last_seen, last_sequence = n.last_sequence, notes = n.notes
    FROM swapped, unnest($9::text[], $10::bigint[], $11::timestamptz[], $12::bigint[], $13::text[])
        AS n (device_id, incarnation, last_seen, last_sequence, notes)
    WHERE r.device_id = n.device_id AND r.incarnation = n.incarnation
), ops AS (
    INSERT INTO sync_ops (name, payload, at)
    SELECT o.name, o.payload, $14 FROM swapped, unnest($15::bytea[], $16::bigint[])
        AS o (name, payload)
), entities AS (
    INSERT INTO sync_entities (user_id, entity_type, entity_id, kind, state, seq, updated_at)
    SELECT s.user_id, e.entity_type, e.entity_id, e.kind, e.state, e.seq, $14
    FROM swapped s, unnest($17::text[], $18::text[], $19::text[], $20::bytea[], $21::bigint[])
        AS e (entity_type, entity_id, kind, state, seq)
    ON CONFLICT (user_id, entity_type, entity_id) DO UPDATE SET
        state = excluded.state, seq = excluded.seq, updated_at = excluded.updated_at
), log AS (
    INSERT INTO sync_log (user_id, seq, mark, entity_type, entity_id, kind, device_id, delta, at)
    SELECT s.user_id, l.seq, $6, l.entity_type, l.entity_id, l.kind, l.device_id, l.delta, $14
    FROM swapped s, unnest($22::bigint[], $23::text[], $24::text[], $25::text[], $26::text[],
        $27::bytea[]) AS l (seq, entity_type, entity_id, kind, device_id, delta)
), answers AS (
    INSERT INTO sync_answers (scope, id, hash, answer, at)
    SELECT a.scope, a.id, a.hash, a.answer, $14
    FROM swapped, unnest($28::text[], $29::text[], $30::bytea[], $31::text[])
        AS a (scope, id, hash, answer)
)
SELECT count(*) AS n FROM swapped";

pub(super) async fn commit(database: &Database, commit: &Commit) -> Result<bool> {
    if commit.conflicts.is_empty() {
        return swap(pool(database)?, commit).await.map_err(|error| failed(error, true));
    }
    // Conflicts are rare: then it is a transaction of several statements.
    let mut tx = database.begin().await?;
    let Some(connection) = tx.postgres() else {
        return Err(Error::new(ErrorKind::Config, "this is no PostgreSQL"));
    };
    if !swap(connection, commit).await.map_err(|error| failed(error, false))? {
        tx.rollback().await?;
        return Ok(false);
    }
    for conflict in &commit.conflicts {
        tx.execute(conflicts::UPSERT, &conflicts::values_of(conflict)).await?;
    }
    tx.commit().await?;
    Ok(true)
}

async fn swap<'e>(
    executor: impl sqlx::PgExecutor<'e>,
    commit: &Commit,
) -> std::result::Result<bool, sqlx::Error> {
    let (before, after) = (&commit.before, &commit.after);
    let (replicas, answers) = (&commit.replicas, &commit.identities);
    let (entities, log) = (&commit.entities, &commit.log);
    let row = sqlx::query(COMMIT)
        .bind(&before.user_id)
        .bind(int(before.version))
        .bind(int(after.version))
        .bind(&after.epoch)
        .bind(int(after.head.seq))
        .bind(int(after.head.mark))
        .bind(int(after.horizon.seq))
        .bind(int(after.horizon.mark))
        .bind(replicas.iter().map(|one| one.device_id.as_str()).collect::<Vec<_>>())
        .bind(replicas.iter().map(|one| int(one.incarnation)).collect::<Vec<_>>())
        .bind(replicas.iter().map(|one| one.last_seen).collect::<Vec<_>>())
        .bind(replicas.iter().map(|one| int(one.last_sequence)).collect::<Vec<_>>())
        .bind(replicas.iter().map(|one| notes(&one.notes)).collect::<Vec<_>>())
        .bind(Utc::now())
        .bind(commit.ops.iter().map(|op| op.key.as_slice()).collect::<Vec<_>>())
        .bind(commit.ops.iter().map(|op| int(op.payload)).collect::<Vec<_>>())
        .bind(entities.iter().map(|one| one.key.entity_type.as_str()).collect::<Vec<_>>())
        .bind(entities.iter().map(|one| one.key.entity_id.as_str()).collect::<Vec<_>>())
        .bind(entities.iter().map(|one| one.kind.name()).collect::<Vec<_>>())
        .bind(entities.iter().map(|one| one.state.as_slice()).collect::<Vec<_>>())
        .bind(entities.iter().map(|one| int(one.seq)).collect::<Vec<_>>())
        .bind(log.iter().map(|one| int(one.position.seq)).collect::<Vec<_>>())
        .bind(log.iter().map(|one| one.key.entity_type.as_str()).collect::<Vec<_>>())
        .bind(log.iter().map(|one| one.key.entity_id.as_str()).collect::<Vec<_>>())
        .bind(log.iter().map(|one| one.kind.name()).collect::<Vec<_>>())
        .bind(log.iter().map(|one| one.device_id.as_str()).collect::<Vec<_>>())
        .bind(log.iter().map(|one| one.delta.as_slice()).collect::<Vec<_>>())
        .bind(answers.iter().map(|one| one.scope.as_str()).collect::<Vec<_>>())
        .bind(answers.iter().map(|one| one.id.as_str()).collect::<Vec<_>>())
        .bind(answers.iter().map(|one| one.hash.as_slice()).collect::<Vec<_>>())
        .bind(answers.iter().map(|one| one.answer.as_str()).collect::<Vec<_>>())
        .fetch_one(executor)
        .await?;
    Ok(row.try_get::<i64, _>("n")? == 1)
}
