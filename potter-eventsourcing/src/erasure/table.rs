//! Keys in a table, of any SQL database: best one of its own, with backups of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_trait::async_trait;
use potter_core::{Database, Engine, Json, Migration, Migrations, Row, Sql, Tx, values};

use super::envelope;
use super::keys::{DataKey, KeyStore, SubjectKey, fill};
use crate::error::{Error, ErrorKind, Result};

/// The schema of the table of keys, to apply or to print. It is not among
/// [`MIGRATIONS`](crate::MIGRATIONS), as it may be in another database.
pub const KEY_MIGRATIONS: Migrations = Migrations {
    owner: "potter-eventsourcing-keys",
    list: &[Migration {
        version: 1,
        name: "subject_keys",
        sqlite: include_str!("../../migrations/sqlite/keys/0001_subject_keys.sql"),
        postgres: include_str!("../../migrations/postgres/keys/0001_subject_keys.sql"),
    }],
};

/// Keys in the table `potter_subject_keys` of an SQLite or PostgreSQL database.
///
/// On an SQLite file that holds the events too, a key that is made while events are appended inside of
/// a transaction is made in that transaction: there is one writer at a time. It is there if they are.
///
/// What was forgotten is overwritten by the database in its own time, and is in backups of the
/// table until they are gone: keep those for a short time only, apart from the events' backups. On
/// SQLite free space is overwritten at once (`secure_delete`); on PostgreSQL a `VACUUM` of the
/// table does that, and the write-ahead log follows when it is recycled.
pub struct KeyTable {
    database: Database,
    master: Option<DataKey>,
}

const FIND: Sql = Sql::new(
    "SELECT subject, key FROM potter_subject_keys WHERE subject IN (SELECT value FROM json_each($1))",
    "SELECT subject, key FROM potter_subject_keys
     WHERE subject = ANY (ARRAY(SELECT json_array_elements_text($1::json)))",
);
const INSERT: &str = "INSERT INTO potter_subject_keys (subject, key) VALUES ($1, $2)
     ON CONFLICT (subject) DO NOTHING";
const FORGET: Sql = Sql::new(
    "UPDATE potter_subject_keys
     SET key = NULL, forgotten_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
     WHERE subject = $1 AND key IS NOT NULL",
    "UPDATE potter_subject_keys SET key = NULL, forgotten_at = clock_timestamp()
     WHERE subject = $1 AND key IS NOT NULL",
);
const NEVER_KNOWN: Sql = Sql::new(
    "INSERT INTO potter_subject_keys (subject, forgotten_at)
     VALUES ($1, CAST(unixepoch('subsec') * 1000000 AS INTEGER)) ON CONFLICT (subject) DO NOTHING",
    "INSERT INTO potter_subject_keys (subject, forgotten_at) VALUES ($1, clock_timestamp())
     ON CONFLICT (subject) DO NOTHING",
);

impl KeyTable {
    /// In `database`; the keys are kept as they are.
    ///
    /// # Errors
    /// `Config` when the database takes no SQL: [`MemoryKeys`](super::MemoryKeys) is for that.
    pub fn new(database: Database) -> Result<Self> {
        if database.engine() == Engine::Memory {
            let message = "a table of keys needs an SQL database: use MemoryKeys in memory";
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(Self { database, master: None })
    }

    /// Encrypts the keys with `master`, which is kept elsewhere. The same for all programs.
    #[must_use]
    pub fn with_master_key(mut self, master: DataKey) -> Self {
        self.master = Some(master);
        self
    }

    /// Creates or updates the table. Safe at every start.
    ///
    /// # Errors
    /// See [`Migrations::apply`].
    pub async fn migrate(&self) -> Result<()> {
        Ok(KEY_MIGRATIONS.apply(&self.database).await?)
    }

    fn wrap(&self, subject: &str, key: &DataKey) -> Result<Vec<u8>> {
        let Some(master) = &self.master else { return Ok(key.bytes().to_vec()) };
        let mut nonce = [0; 12];
        fill(&mut nonce)?;
        envelope::seal_bytes(master, nonce, &place(subject), key.bytes())
    }

    fn unwrap(&self, subject: &str, stored: &[u8]) -> Result<DataKey> {
        let wrong = |source: Option<Error>| {
            let message = format!(
                "the key of subject {subject:?} can't be read: the master key is another one, or \
                 there is one where none was, or none where one was"
            );
            match source {
                Some(source) => Error::with_source(ErrorKind::Config, message, source),
                None => Error::new(ErrorKind::Config, message),
            }
        };
        let bytes = match &self.master {
            Some(master) => envelope::open_bytes(master, &place(subject), stored)
                .map_err(|source| wrong(Some(source)))?,
            None => stored.to_vec(),
        };
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| wrong(None))?;
        Ok(DataKey::from_bytes(bytes))
    }
}

/// Which file, and under which name the table is there: a prefix is put into the text, too.
const WHERE: &str = "SELECT file, 'potter_subject_keys' AS name FROM pragma_database_list
     WHERE name = 'main'";

impl KeyTable {
    /// Is `tx` of the SQLite file that the table is in? Then it holds the one right to write to it,
    /// and whoever waits for that right inside of it waits for himself.
    async fn is_in(&self, tx: &mut Tx) -> Result<bool> {
        if (tx.engine(), self.database.engine()) != (Engine::Sqlite, Engine::Sqlite) {
            return Ok(false);
        }
        let place = |row: &Row| Ok::<_, Error>((row.text("file")?, row.text("name")?));
        let mine = self.database.read(WHERE, &[]).await?;
        let its = tx.fetch_optional(WHERE, &[]).await?;
        match (mine.first(), &its) {
            (Some(mine), Some(its)) => Ok(place(mine)? == place(its)?),
            _ => Ok(false),
        }
    }

    fn keys(&self, rows: &[Row]) -> Result<BTreeMap<String, SubjectKey>> {
        let mut found = BTreeMap::new();
        for row in rows {
            let subject = row.text("subject")?;
            let key = match row.opt_bytes("key")? {
                Some(stored) => SubjectKey::Known(self.unwrap(&subject, &stored)?),
                None => SubjectKey::Forgotten,
            };
            found.insert(subject, key);
        }
        Ok(found)
    }
}

fn place(subject: &str) -> String {
    format!("subject key|{subject}")
}

impl fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyTable").field("master", &self.master).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyStore for KeyTable {
    async fn find(&self, subjects: &BTreeSet<String>) -> Result<BTreeMap<String, SubjectKey>> {
        self.keys(&self.database.read(FIND, values![Json::of(subjects)?]).await?)
    }

    async fn find_in(
        &self,
        tx: &mut Tx,
        subjects: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, SubjectKey>> {
        if !self.is_in(tx).await? {
            return self.find(subjects).await;
        }
        self.keys(&tx.fetch_all(FIND, values![Json::of(subjects)?]).await?)
    }

    async fn ensure_in(
        &self,
        tx: &mut Tx,
        subjects: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, SubjectKey>> {
        if !self.is_in(tx).await? {
            return self.ensure(subjects).await;
        }
        // Nobody else writes meanwhile: what is not there is not about to come.
        let mut found = self.find_in(tx, subjects).await?;
        let mut made = Vec::new();
        for subject in subjects.iter().filter(|subject| !found.contains_key(*subject)) {
            let key = DataKey::generate()?;
            let wrapped = self.wrap(subject, &key)?;
            tx.execute(INSERT, values![subject.as_str(), wrapped]).await?;
            made.push((subject.clone(), SubjectKey::Known(key)));
        }
        found.extend(made);
        Ok(found)
    }

    async fn ensure(&self, subjects: &BTreeSet<String>) -> Result<BTreeMap<String, SubjectKey>> {
        let found = self.find(subjects).await?;
        if found.len() == subjects.len() {
            return Ok(found);
        }
        for subject in subjects.iter().filter(|subject| !found.contains_key(*subject)) {
            let key = self.wrap(subject, &DataKey::generate()?)?;
            self.database.execute(INSERT, values![subject.as_str(), key]).await?;
        }
        // Whoever was first: one key for all.
        self.find(subjects).await
    }

    async fn forget(&self, subject: &str) -> Result<bool> {
        if self.database.engine() == Engine::Sqlite {
            self.database.write("PRAGMA secure_delete = ON", &[]).await?;
        }
        let forgotten = self.database.execute(FORGET, values![subject]).await? > 0;
        if !forgotten {
            self.database.execute(NEVER_KNOWN, values![subject]).await?;
        }
        Ok(forgotten)
    }
}
