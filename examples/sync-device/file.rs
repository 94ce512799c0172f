//! The device's SQLite file.
//!
//! Invariant: commands on one file take turns (a lock beside it), and each loads, works and stores
//! what changed in one transaction. Killed before it, a command has done nothing.

use std::fs::File;
use std::path::Path;

use async_trait::async_trait;
use example_sync_service::client::{Dirty, Failure, Keeper, Local, LocalOp, Meta};
use example_sync_service::document::{Document, Kind};
use example_sync_service::store::EntityKey;
use potter_core::{Database, Error, ErrorKind, Migration, Migrations, Result, Row, values};

const MIGRATIONS: Migrations = Migrations {
    owner: "sync-device",
    list: &[Migration {
        version: 1,
        name: "device",
        sqlite: include_str!("migrations/0001_device.sql"),
        postgres: "",
    }],
};

/// An open file, locked for as long as this lives.
pub(crate) struct DeviceFile {
    database: Database,
    _lock: File,
}

impl DeviceFile {
    /// Opens it, waiting for other commands on it to end, and loads what it holds; a new one is of
    /// device `device_id` of `user_id`.
    pub(crate) async fn open(path: &Path, device_id: &str, user_id: &str) -> Result<(Self, Local)> {
        let io = |error: std::io::Error| {
            let message = format!("{} can't be used: {error}", path.display());
            Error::with_source(ErrorKind::Config, message, error)
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let lock = File::create(path.with_extension("lock")).map_err(io)?;
        lock.lock().map_err(io)?;
        let database = Database::connect(&format!("sqlite://{}", path.display())).await?;
        MIGRATIONS.apply(&database).await?;
        let file = Self { database, _lock: lock };
        let local = file.load(device_id, user_id).await?;
        Ok((file, local))
    }

    /// Ends the use of it.
    pub(crate) async fn close(self) {
        self.database.close().await;
    }

    async fn load(&self, device_id: &str, user_id: &str) -> Result<Local> {
        let mut local = Local::new(device_id, user_id);
        let rows = self.database.read("SELECT meta FROM device", &[]).await?;
        let Some(row) = rows.first() else { return Ok(local) };
        local.meta = read::<Meta>(&row.text("meta")?)?;
        for row in self.database.read("SELECT * FROM entities", &[]).await? {
            let (key, document) = entity(&row)?;
            local.entities.insert(key, document);
        }
        for row in self.database.read("SELECT * FROM operations", &[]).await? {
            let number = u64::try_from(row.i64("number")?).unwrap_or_default();
            local.ops.insert(number, read::<LocalOp>(&row.text("operation")?)?);
        }
        Ok(local)
    }

    async fn store(&self, local: &Local) -> Result<()> {
        let mut tx = self.database.begin().await?;
        tx.execute(
            "INSERT INTO device (id, meta) VALUES (1, $1)
             ON CONFLICT (id) DO UPDATE SET meta = excluded.meta",
            values![potter_core::Json::of(&local.meta)?],
        )
        .await?;
        let Dirty { cleared, entities, ops } = &local.dirty;
        if *cleared {
            tx.execute("DELETE FROM entities", &[]).await?;
        }
        for key in entities {
            let Some(document) = local.entities.get(key) else { continue };
            tx.execute(
                "INSERT INTO entities (entity_type, entity_id, kind, state) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (entity_type, entity_id) DO UPDATE SET
                     kind = excluded.kind, state = excluded.state",
                values![
                    &key.entity_type,
                    &key.entity_id,
                    document.kind().name(),
                    document.to_bytes()
                ],
            )
            .await?;
        }
        for number in ops {
            let row = i64::try_from(*number).unwrap_or(i64::MAX);
            match local.ops.get(number) {
                Some(op) => {
                    tx.execute(
                        "INSERT INTO operations (number, operation) VALUES ($1, $2)
                         ON CONFLICT (number) DO UPDATE SET operation = excluded.operation",
                        values![row, potter_core::Json::of(op)?],
                    )
                    .await?
                }
                None => {
                    tx.execute("DELETE FROM operations WHERE number = $1", values![row]).await?
                }
            };
        }
        tx.commit().await
    }
}

#[async_trait]
impl Keeper for DeviceFile {
    async fn keep(&mut self, local: &mut Local) -> std::result::Result<(), Failure> {
        self.store(local).await.map_err(|error| Failure::Keeping(error.to_string()))?;
        local.dirty = Dirty::default();
        Ok(())
    }
}

fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the device's file can't be read: {what}"))
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(corrupt)
}

fn entity(row: &Row) -> Result<(EntityKey, Document)> {
    let key =
        EntityKey { entity_type: row.text("entity_type")?, entity_id: row.text("entity_id")? };
    let name = row.text("kind")?;
    let kind = Kind::parse(&name).ok_or_else(|| corrupt(format!("there is no CRDT {name}")))?;
    let document = Document::from_bytes(kind, &row.bytes("state")?).map_err(corrupt)?;
    Ok((key, document))
}
