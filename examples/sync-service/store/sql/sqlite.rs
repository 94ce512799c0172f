//! What SQLite does in its own way: many small statements cost nothing in the process.

use potter_core::{Database, Result, Row, Tx, values};

use super::conflicts;
use super::rows::{int, notes};
use crate::store::{Commit, EntityKey, OpKey, Replica};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

pub(super) async fn load(
    database: &Database,
    user_id: &str,
    (scope, ids): (&str, &[&str]),
    ops: &[OpKey],
    entities: &[EntityKey],
) -> Result<(Vec<Row>, Vec<Row>, Vec<Row>)> {
    let id_rows = if ids.is_empty() {
        Vec::new()
    } else {
        database
            .read(
                "SELECT * FROM sync_answers
                 WHERE scope = $1 AND id IN (SELECT value FROM json_each($2))",
                values![scope, potter_core::Json::of(&ids)?],
            )
            .await?
    };
    let op_rows = if ops.is_empty() {
        Vec::new()
    } else {
        let names: Vec<String> = ops.iter().map(|name| hex(name)).collect();
        let names = potter_core::Json::of(&names)?;
        database
            .read(
                "SELECT name, payload FROM sync_ops
                 WHERE name IN (SELECT unhex(value) FROM json_each($1))",
                values![names],
            )
            .await?
    };
    let keys: Vec<(&str, &str)> =
        entities.iter().map(|key| (key.entity_type.as_str(), key.entity_id.as_str())).collect();
    let keys = potter_core::Json::of(&keys)?;
    let entity_rows = database
        .read(
            "SELECT e.* FROM json_each($2) k CROSS JOIN sync_entities e
             WHERE e.user_id = $1 AND e.entity_type = k.value ->> 0
                 AND e.entity_id = k.value ->> 1",
            values![user_id, keys],
        )
        .await?;
    Ok((id_rows, op_rows, entity_rows))
}

pub(super) async fn commit(database: &Database, commit: &Commit) -> Result<bool> {
    let (before, after) = (&commit.before, &commit.after);
    let mut tx = database.begin().await?;
    let swapped = tx
        .execute(
            "UPDATE sync_users SET version = $3, epoch = $4, head = $5, head_mark = $6,
                 horizon = $7, horizon_mark = $8
             WHERE user_id = $1 AND version = $2",
            values![
                &before.user_id,
                int(before.version),
                int(after.version),
                &after.epoch,
                int(after.head.seq),
                int(after.head.mark),
                int(after.horizon.seq),
                int(after.horizon.mark)
            ],
        )
        .await?;
    if swapped != 1 {
        tx.rollback().await?;
        return Ok(false);
    }
    for replica in &commit.replicas {
        write_replica(&mut tx, replica).await?;
    }
    let now = chrono::Utc::now();
    for op in &commit.ops {
        tx.execute(
            "INSERT INTO sync_ops (name, payload, at) VALUES ($1, $2, $3)",
            values![op.key.to_vec(), int(op.payload), now],
        )
        .await?;
    }
    write_changes(&mut tx, commit).await?;
    for conflict in &commit.conflicts {
        tx.execute(conflicts::UPSERT, &conflicts::values_of(conflict)).await?;
    }
    for one in &commit.identities {
        tx.execute(
            "INSERT INTO sync_answers (scope, id, hash, answer, at) VALUES ($1, $2, $3, $4, $5)",
            values![&one.scope, &one.id, one.hash.clone(), &one.answer, now],
        )
        .await?;
    }
    tx.commit().await?;
    Ok(true)
}

async fn write_replica(tx: &mut Tx, replica: &Replica) -> Result<()> {
    tx.execute(
        "UPDATE sync_replicas SET last_seen = $3, last_sequence = $4, notes = $5
         WHERE device_id = $1 AND incarnation = $2",
        values![
            &replica.device_id,
            int(replica.incarnation),
            replica.last_seen,
            int(replica.last_sequence),
            notes(&replica.notes)
        ],
    )
    .await?;
    Ok(())
}

async fn write_changes(tx: &mut Tx, commit: &Commit) -> Result<()> {
    let user_id = &commit.before.user_id;
    for entity in &commit.entities {
        tx.execute(
            "INSERT INTO sync_entities (user_id, entity_type, entity_id, kind, state, seq,
                 updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (user_id, entity_type, entity_id) DO UPDATE SET
                 state = excluded.state, seq = excluded.seq, updated_at = excluded.updated_at",
            values![
                user_id,
                &entity.key.entity_type,
                &entity.key.entity_id,
                entity.kind.name(),
                entity.state.clone(),
                int(entity.seq),
                entity.updated_at
            ],
        )
        .await?;
    }
    for entry in &commit.log {
        tx.execute(
            "INSERT INTO sync_log (user_id, seq, mark, entity_type, entity_id, kind, device_id,
                 delta, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            values![
                user_id,
                int(entry.position.seq),
                int(entry.position.mark),
                &entry.key.entity_type,
                &entry.key.entity_id,
                entry.kind.name(),
                &entry.device_id,
                entry.delta.clone(),
                entry.at
            ],
        )
        .await?;
    }
    Ok(())
}
