//! SQLite and PostgreSQL.
//!
//! A commit is one transaction whose first statement is the compare-and-swap on the user's version.
//! On PostgreSQL it is one statement, so a batch costs one round trip and one commit.

mod conflicts;
mod postgres;
mod rows;
mod sqlite;
mod upkeep;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use potter_core::{Database, Engine, Migration, Migrations, Result, Row, Sql, values};

use super::{
    Commit, Conflict, ConflictFilter, Device, Entity, EntityKey, Identity, Loaded, LogEntry, OpKey,
    REPLICAS_MAX, Replica, Store, User,
};
use crate::protocol::{Secret, new_epoch};
use rows::{entity, identity, int, log_entry, replica, user};

/// The tables.
pub const MIGRATIONS: Migrations = Migrations {
    owner: "sync-service",
    list: &[Migration {
        version: 1,
        name: "sync",
        sqlite: include_str!("../migrations/sqlite/0001_sync.sql"),
        postgres: include_str!("../migrations/postgres/0001_sync.sql"),
    }],
};

/// The store on an SQL engine.
#[derive(Clone, Debug)]
pub struct SqlStore {
    database: Database,
}

impl SqlStore {
    /// Applies the migrations.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn open(database: Database) -> Result<Self> {
        MIGRATIONS.apply(&database).await?;
        Ok(Self { database })
    }

    async fn one(&self, statement: &'static str, value: &str) -> Result<Option<Row>> {
        Ok(self.database.read(statement, values![value]).await?.into_iter().next())
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn ping(&self) -> Result<()> {
        self.database.ping().await
    }

    async fn secret(&self) -> Result<Secret> {
        let fresh: Vec<u8> = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()]
            .iter()
            .flat_map(|half| *half.as_bytes())
            .collect();
        let insert = "INSERT INTO sync_meta (name, value) VALUES ('secret', $1)
            ON CONFLICT (name) DO NOTHING";
        self.database.execute(insert, values![fresh.clone()]).await?;
        let row = self.one("SELECT value FROM sync_meta WHERE name = $1", "secret").await?;
        Secret::new(&row.map_or(Ok(fresh), |row| row.bytes("value"))?)
    }

    async fn device(&self, device_id: &str) -> Result<Option<Device>> {
        let rows = self
            .database
            .read(
                "SELECT u.user_id, u.version, u.epoch, u.head, u.head_mark, u.horizon,
                     u.horizon_mark, r.device_id, r.incarnation, r.registered_at, r.last_seen,
                     r.acked, r.last_sequence, r.retired, r.notes
                 FROM sync_replicas r JOIN sync_users u ON u.user_id = r.user_id
                 WHERE r.device_id = $1 ORDER BY r.incarnation",
                values![device_id],
            )
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let user = user(first)?;
        let replicas = rows.iter().map(replica).collect::<Result<_>>()?;
        Ok(Some(Device { user, replicas }))
    }

    async fn user(&self, user_id: &str) -> Result<Option<User>> {
        let row = self.one("SELECT * FROM sync_users WHERE user_id = $1", user_id).await?;
        row.as_ref().map(user).transpose()
    }

    async fn devices(
        &self,
        user_id: &str,
        device_ids: &[&str],
    ) -> Result<Option<(User, Vec<Replica>)>> {
        const SELECT: Sql = Sql::new(
            "SELECT u.user_id, u.version, u.epoch, u.head, u.head_mark, u.horizon,
                 u.horizon_mark, r.device_id, r.incarnation, r.registered_at, r.last_seen,
                 r.acked, r.last_sequence, r.retired, r.notes
             FROM sync_users u LEFT JOIN sync_replicas r
                 ON r.user_id = u.user_id AND r.device_id IN (SELECT value FROM json_each($2))
             WHERE u.user_id = $1 ORDER BY r.device_id, r.incarnation",
            "SELECT u.user_id, u.version, u.epoch, u.head, u.head_mark, u.horizon,
                 u.horizon_mark, r.device_id, r.incarnation, r.registered_at, r.last_seen,
                 r.acked, r.last_sequence, r.retired, r.notes
             FROM sync_users u LEFT JOIN sync_replicas r
                 ON r.user_id = u.user_id
                     AND r.device_id IN (SELECT json_array_elements_text($2::json))
             WHERE u.user_id = $1 ORDER BY r.device_id, r.incarnation",
        );
        let ids = serde_json::to_string(device_ids).unwrap_or_else(|_| "[]".to_owned());
        let rows = self.database.read(SELECT, values![user_id, ids]).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let user = user(first)?;
        let known = rows.iter().filter(|row| !matches!(row.opt_text("device_id"), Ok(None)));
        Ok(Some((user, known.map(replica).collect::<Result<_>>()?)))
    }

    async fn replicas_of(&self, user_id: &str) -> Result<Vec<Replica>> {
        let rows = self
            .database
            .read(
                "SELECT * FROM sync_replicas WHERE user_id = $1
                 ORDER BY device_id, incarnation LIMIT $2",
                values![user_id, int(REPLICAS_MAX)],
            )
            .await?;
        rows.iter().map(replica).collect()
    }

    async fn add_replica(&self, user_id: &str, replica: &Replica) -> Result<bool> {
        let mut tx = self.database.begin().await?;
        tx.execute(
            "INSERT INTO sync_users (user_id, epoch) VALUES ($1, $2)
             ON CONFLICT (user_id) DO NOTHING",
            values![user_id, new_epoch()],
        )
        .await?;
        let added = tx
            .execute(
                "INSERT INTO sync_replicas
                     (device_id, incarnation, user_id, registered_at, last_seen, acked, notes)
                 VALUES ($1, $2, $3, $4, $4, $5, $6)
                 ON CONFLICT (device_id, incarnation) DO NOTHING",
                values![
                    &replica.device_id,
                    int(replica.incarnation),
                    user_id,
                    replica.registered_at,
                    int(replica.acked),
                    rows::notes(&replica.notes)
                ],
            )
            .await?;
        tx.commit().await?;
        Ok(added == 1)
    }

    async fn load(
        &self,
        user_id: &str,
        scope: &str,
        ids: &[&str],
        ops: &[OpKey],
        entities: &[EntityKey],
    ) -> Result<Loaded> {
        let mut loaded = Loaded::default();
        let (id_rows, op_rows, entity_rows) = if self.database.engine() == Engine::Postgres {
            postgres::load(&self.database, user_id, (scope, ids), ops, entities).await?
        } else {
            sqlite::load(&self.database, user_id, (scope, ids), ops, entities).await?
        };
        for row in &id_rows {
            let identity = identity(row)?;
            loaded.identities.insert(identity.id.clone(), identity);
        }
        for row in &op_rows {
            let name: OpKey = row.bytes("name")?.try_into().unwrap_or_default();
            loaded.ops.insert(name, rows::uint(row, "payload")?);
        }
        for row in &entity_rows {
            let entity = entity(row)?;
            loaded.entities.insert(entity.key.clone(), entity);
        }
        Ok(loaded)
    }

    async fn commit(&self, commit: &Commit) -> Result<bool> {
        if self.database.engine() == Engine::Postgres {
            postgres::commit(&self.database, commit).await
        } else {
            sqlite::commit(&self.database, commit).await
        }
    }

    async fn remember(&self, one: &Identity) -> Result<bool> {
        let insert = "INSERT INTO sync_answers (scope, id, hash, answer, at)
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT (scope, id) DO NOTHING";
        let row = values![&one.scope, &one.id, one.hash.clone(), &one.answer, Utc::now()];
        Ok(self.database.execute(insert, row).await? == 1)
    }

    async fn recall(&self, scope: &str, id: &str) -> Result<Option<Identity>> {
        let rows = self
            .database
            .read("SELECT * FROM sync_answers WHERE scope = $1 AND id = $2", values![scope, id])
            .await?;
        rows.first().map(identity).transpose()
    }

    async fn log(&self, user_id: &str, after: u64, limit: u64) -> Result<Vec<LogEntry>> {
        let rows = self
            .database
            .read(
                "SELECT * FROM sync_log WHERE user_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
                values![user_id, int(after), int(limit)],
            )
            .await?;
        rows.iter().map(log_entry).collect()
    }

    async fn mark(&self, user_id: &str, seq: u64) -> Result<Option<u64>> {
        let rows = self
            .database
            .read(
                "SELECT mark FROM sync_log WHERE user_id = $1 AND seq = $2",
                values![user_id, int(seq)],
            )
            .await?;
        rows.first().map(|row| rows::uint(row, "mark")).transpose()
    }

    async fn entities(
        &self,
        user_id: &str,
        after: Option<&EntityKey>,
        limit: u64,
    ) -> Result<Vec<Entity>> {
        let rows = match after {
            Some(after) => {
                self.database
                    .read(
                        "SELECT * FROM sync_entities
                         WHERE user_id = $1 AND (entity_type, entity_id) > ($2, $3)
                         ORDER BY entity_type, entity_id LIMIT $4",
                        values![user_id, &after.entity_type, &after.entity_id, int(limit)],
                    )
                    .await?
            }
            None => {
                self.database
                    .read(
                        "SELECT * FROM sync_entities WHERE user_id = $1
                         ORDER BY entity_type, entity_id LIMIT $2",
                        values![user_id, int(limit)],
                    )
                    .await?
            }
        };
        rows.iter().map(entity).collect()
    }

    async fn find_entity(&self, key: &EntityKey) -> Result<Vec<(String, Entity)>> {
        let rows = self
            .database
            .read(
                "SELECT * FROM sync_entities WHERE entity_type = $1 AND entity_id = $2 LIMIT 2",
                values![&key.entity_type, &key.entity_id],
            )
            .await?;
        rows.iter().map(|row| Ok((row.text("user_id")?, entity(row)?))).collect()
    }

    async fn acknowledge(&self, replica: &Replica, seq: u64, now: DateTime<Utc>) -> Result<()> {
        const RAISE: Sql = Sql::new(
            "UPDATE sync_replicas SET acked = max(acked, $3), last_seen = $4
             WHERE device_id = $1 AND incarnation = $2",
            "UPDATE sync_replicas SET acked = greatest(acked, $3), last_seen = $4
             WHERE device_id = $1 AND incarnation = $2",
        );
        let row = values![&replica.device_id, int(replica.incarnation), int(seq), now];
        self.database.execute(RAISE, row).await?;
        Ok(())
    }

    async fn conflicts(&self, filter: &ConflictFilter) -> Result<(Vec<Conflict>, u64)> {
        conflicts::list(&self.database, filter).await
    }

    async fn conflict(&self, id: uuid::Uuid) -> Result<Option<Conflict>> {
        conflicts::get(&self.database, id).await
    }

    async fn retire(&self, silent_since: DateTime<Utc>) -> Result<u64> {
        upkeep::retire(&self.database, silent_since).await
    }

    async fn users(&self, after: Option<&str>, limit: u64) -> Result<Vec<User>> {
        upkeep::users(&self.database, after, limit).await
    }

    async fn least_acked(&self, user_id: &str) -> Result<Option<u64>> {
        upkeep::least_acked(&self.database, user_id).await
    }

    async fn trim(&self, user_id: &str, up_to: u64) -> Result<()> {
        let delete = "DELETE FROM sync_log WHERE user_id = $1 AND seq <= $2";
        self.database.execute(delete, values![user_id, int(up_to)]).await?;
        Ok(())
    }

    async fn forget(&self, older_than: DateTime<Utc>) -> Result<u64> {
        upkeep::forget(&self.database, older_than).await
    }
}
