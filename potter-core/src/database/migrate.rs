//! Schema versions: embedded SQL, applied once and in order.
//!
//! All that is pending is applied in one transaction under a lock, so that processes which start
//! together do not collide and a failed migration leaves nothing half done.

use std::collections::BTreeMap;
use std::fmt::Write;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::{Database, Engine, Sql, TablePrefix};
use crate::error::{Error, ErrorKind, Result};
use crate::values;

/// One step of a schema. Never edited after a release: its checksum is stored.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Counts from 1 within its crate.
    pub version: i64,
    /// What it does, as in its file's name.
    pub name: &'static str,
    /// The SQL for SQLite.
    pub sqlite: &'static str,
    /// The SQL for PostgreSQL.
    pub postgres: &'static str,
}

/// The schema of one crate or program.
#[derive(Clone, Copy, Debug)]
pub struct Migrations {
    /// Whose schema it is: versions count within this name.
    pub owner: &'static str,
    /// In order of their versions.
    pub list: &'static [Migration],
}

/// A version of a schema, as it is in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationStatus {
    /// Whose schema it is.
    pub owner: &'static str,
    /// Counts from 1 within its owner.
    pub version: i64,
    /// What it does.
    pub name: String,
    /// The SHA-256 of its text, in hexadecimal: of this build's, or if this build does not know
    /// it, of the one that was applied.
    pub checksum: String,
    /// When it was applied; `None` while it is pending.
    pub applied_at: Option<DateTime<Utc>>,
    /// How the two compare.
    pub state: MigrationState,
}

/// How a version of a schema in a build compares with the one in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MigrationState {
    /// It is not applied.
    Pending,
    /// It is applied.
    Applied,
    /// It is applied with another text: [`Migrations::apply`] refuses that.
    Edited,
    /// It is applied and this build does not know it: [`Migrations::apply`] refuses that.
    Unknown,
}

const TABLE: Sql = Sql::new(
    "CREATE TABLE IF NOT EXISTS potter_migrations (
        owner TEXT NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL, checksum TEXT NOT NULL,
        applied_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
        PRIMARY KEY (owner, version))",
    "CREATE TABLE IF NOT EXISTS potter_migrations (
        owner text NOT NULL, version bigint NOT NULL, name text NOT NULL, checksum text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (owner, version))",
);

const TABLE_EXISTS: Sql = Sql::new(
    "SELECT count(*) AS n FROM sqlite_master WHERE type = 'table' AND name = 'potter_migrations'",
    "SELECT count(*) AS n WHERE to_regclass('potter_migrations') IS NOT NULL",
);

/// "potter" as a number: the advisory lock that migrations of all crates take.
#[cfg(feature = "postgres")]
const LOCK: i64 = 0x706f_7474_6572;

impl Migrations {
    /// Applies what is pending. Safe to call at every start and from many processes at once.
    ///
    /// # Errors
    /// `Corrupt` when an applied migration differs from the one in this build, or the database
    /// is of a newer release; `Internal` when the SQL fails (nothing is applied then).
    pub async fn apply(&self, database: &Database) -> Result<()> {
        let engine = database.engine();
        if engine == Engine::Memory {
            return Ok(());
        }
        let mut tx = database.begin().await?;
        #[cfg(feature = "postgres")]
        if engine == Engine::Postgres {
            tx.execute("SELECT pg_advisory_xact_lock($1)", values![LOCK]).await?;
        }
        // Creating it again would make the server write a notice at every start.
        let exists = tx.fetch_all(TABLE_EXISTS, &[]).await?;
        if exists.first().map_or(Ok(0), |row| row.i64("n"))? == 0 {
            tx.execute(TABLE, &[]).await?;
        }
        let rows = tx
            .fetch_all(
                "SELECT version, checksum FROM potter_migrations WHERE owner = $1 ORDER BY version",
                values![self.owner],
            )
            .await?;
        let mut applied = BTreeMap::new();
        for row in rows {
            applied.insert(row.i64("version")?, row.text("checksum")?);
        }
        self.compare(engine, &applied)?;
        for migration in self.list.iter().filter(|one| !applied.contains_key(&one.version)) {
            self.run(&mut tx, migration, &database.prefix).await?;
        }
        tx.commit().await
    }

    /// What is applied and what is pending, in order of versions. Changes nothing; a database
    /// without tables has all pending, one in memory has no versions.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn status(&self, database: &Database) -> Result<Vec<MigrationStatus>> {
        const ALL: &str = "SELECT version, name, checksum, applied_at FROM potter_migrations
             WHERE owner = $1 ORDER BY version";
        let engine = database.engine();
        if engine == Engine::Memory {
            return Ok(Vec::new());
        }
        let mut all: BTreeMap<_, _> =
            self.list.iter().map(|one| (one.version, self.pending(one, engine))).collect();
        let exists = database.read(TABLE_EXISTS, &[]).await?;
        if exists.first().map_or(Ok(0), |row| row.i64("n"))? == 0 {
            return Ok(all.into_values().collect());
        }
        for row in database.read(ALL, values![self.owner]).await? {
            let (version, checksum) = (row.i64("version")?, row.text("checksum")?);
            let applied_at = Some(row.time("applied_at")?);
            let unknown = MigrationStatus {
                owner: self.owner,
                version,
                name: row.text("name")?,
                checksum: checksum.clone(),
                applied_at,
                state: MigrationState::Unknown,
            };
            all.entry(version)
                .and_modify(|one| {
                    let same = one.checksum == checksum;
                    one.state = if same { MigrationState::Applied } else { MigrationState::Edited };
                    one.applied_at = applied_at;
                })
                .or_insert(unknown);
        }
        Ok(all.into_values().collect())
    }

    fn pending(&self, migration: &Migration, engine: Engine) -> MigrationStatus {
        MigrationStatus {
            owner: self.owner,
            version: migration.version,
            name: migration.name.to_owned(),
            checksum: migration.checksum(engine),
            applied_at: None,
            state: MigrationState::Pending,
        }
    }

    /// The SQL of all versions, for people who run their own migration tool.
    pub fn sql(&self, engine: Engine) -> String {
        self.sql_of(engine, &TablePrefix::default())
    }

    /// The same for tables whose names begin with `prefix` in place of `potter_`.
    ///
    /// # Errors
    /// `Config` for a prefix that [`DatabaseOptions::table_prefix`](super::DatabaseOptions::table_prefix)
    /// would not take.
    pub fn sql_with_prefix(&self, engine: Engine, prefix: &str) -> Result<String> {
        Ok(self.sql_of(engine, &TablePrefix::new(prefix)?))
    }

    fn sql_of(&self, engine: Engine, prefix: &TablePrefix) -> String {
        let mut out = String::new();
        for migration in self.list {
            let text = prefix.apply(migration.text(engine).into());
            let _ = writeln!(
                out,
                "-- {} {:04} {}\n{}",
                self.owner,
                migration.version,
                migration.name,
                text.trim_end()
            );
        }
        out
    }

    fn compare(&self, engine: Engine, applied: &BTreeMap<i64, String>) -> Result<()> {
        for (version, checksum) in applied {
            let known = self.list.iter().find(|migration| migration.version == *version);
            let owner = self.owner;
            let problem = match known {
                None => format!(
                    "the database has version {version} of the schema of {owner}, which this build does not know: run a newer build"
                ),
                Some(known) if known.checksum(engine) != *checksum => {
                    format!(
                        "version {version} of the schema of {owner} was applied with another text: never edit an applied migration, add one"
                    )
                }
                Some(_) => continue,
            };
            return Err(Error::new(ErrorKind::Corrupt, problem));
        }
        Ok(())
    }

    async fn run(
        &self,
        tx: &mut super::Tx,
        migration: &Migration,
        prefix: &TablePrefix,
    ) -> Result<()> {
        let engine = tx.engine();
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        let text = prefix.apply(migration.text(engine).into());
        #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
        let _ = prefix;
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        let failed = |source: sqlx::Error| {
            let message = format!(
                "migration {} {:04} {} failed: {source}",
                self.owner, migration.version, migration.name
            );
            Error::with_source(ErrorKind::Internal, message, source)
        };
        #[cfg(feature = "postgres")]
        if let Some(connection) = tx.postgres() {
            sqlx::raw_sql(super::sql::sql_str(text.clone()))
                .execute(connection)
                .await
                .map_err(failed)?;
        }
        #[cfg(feature = "sqlite")]
        if let Some(connection) = tx.sqlite() {
            sqlx::raw_sql(super::sql::sql_str(text.clone()))
                .execute(connection)
                .await
                .map_err(failed)?;
        }
        tx.execute(
            "INSERT INTO potter_migrations (owner, version, name, checksum) VALUES ($1, $2, $3, $4)",
            values![self.owner, migration.version, migration.name, migration.checksum(engine)],
        )
        .await?;
        Ok(())
    }
}

impl Migration {
    fn text(&self, engine: Engine) -> &'static str {
        match engine {
            Engine::Memory => "",
            Engine::Sqlite => self.sqlite,
            Engine::Postgres => self.postgres,
        }
    }

    fn checksum(&self, engine: Engine) -> String {
        let digest = Sha256::digest(self.text(engine).as_bytes());
        digest.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }
}
