//! Migrations of the user's own: pairs of files, `0001_name.up.sql` and `0001_name.down.sql`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use potter_core::{Database, Sql, Tx, values};
use sha2::{Digest, Sha256};

use crate::{Failure, line, say};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS own_migrations (
    version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL)";
const EXISTS: Sql = Sql::new(
    "SELECT count(*) AS n FROM sqlite_master WHERE type = 'table' AND name = 'own_migrations'",
    "SELECT count(*) AS n WHERE to_regclass('own_migrations') IS NOT NULL",
);
const ALL: &str = "SELECT version, name, checksum FROM own_migrations ORDER BY version";

/// A pair of files.
struct Pair {
    name: String,
    up: String,
    down: String,
}

impl Pair {
    fn checksum(&self) -> String {
        Sha256::digest(self.up.as_bytes()).iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }
}

/// What is in the folder, by version. A folder that is not there is empty.
fn pairs(folder: &Path) -> Result<BTreeMap<i64, Pair>, Failure> {
    let mut pairs = BTreeMap::new();
    if !folder.exists() {
        return Ok(pairs);
    }
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.file_name();
        let file = file.to_string_lossy();
        let Some(stem) = file.strip_suffix(".up.sql") else { continue };
        let parts = stem.split_once('_').and_then(|(n, name)| Some((n.parse().ok()?, name)));
        let Some((version, name)) = parts else {
            return Err(format!("{file}: the name must be like 0001_name.up.sql").into());
        };
        let read = |end: &str| {
            let path = folder.join(format!("{stem}.{end}.sql"));
            std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let pair = Pair { name: name.to_owned(), up: read("up")?, down: read("down")? };
        if pairs.insert(version, pair).is_some() {
            return Err(format!("version {version} is there twice in {}", folder.display()).into());
        }
    }
    Ok(pairs)
}

/// Makes the next pair.
pub(crate) fn create(folder: &Path, name: &str, dry_run: bool) -> Result<(), Failure> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(format!("{name:?}: lower-case letters, digits and underscores").into());
    }
    let version = pairs(folder)?.keys().last().copied().unwrap_or(0) + 1;
    for (end, what) in [("up", "what it does"), ("down", "how it is undone")] {
        let path = folder.join(format!("{version:04}_{name}.{end}.sql"));
        if dry_run {
            say(format_args!("would be made: {}", path.display()));
            continue;
        }
        std::fs::create_dir_all(folder)?;
        std::fs::write(&path, format!("-- {name}: {what}\n"))?;
        say(format_args!("made: {}", path.display()));
    }
    Ok(())
}

/// What is applied: name and checksum by version.
async fn applied(database: &Database) -> Result<BTreeMap<i64, (String, String)>, Failure> {
    let exists = database.read(EXISTS, &[]).await?;
    if exists.first().map_or(Ok(0), |row| row.i64("n"))? == 0 {
        return Ok(BTreeMap::new());
    }
    let rows = database.read(ALL, &[]).await?;
    let row = |row: &potter_core::Row| {
        Ok((row.i64("version")?, (row.text("name")?, row.text("checksum")?)))
    };
    rows.iter().map(row).collect()
}

/// Begins, and lets no other process in between; what is applied by then.
async fn begin(database: &Database) -> Result<(Tx, BTreeMap<i64, String>), Failure> {
    let mut tx = database.begin().await?;
    if tx.postgres().is_some() {
        // "own" as a number.
        tx.execute("SELECT pg_advisory_xact_lock(7305070)", &[]).await?;
    }
    tx.execute(TABLE, &[]).await?;
    let rows = tx.fetch_all(ALL, &[]).await?;
    let row =
        |row: &potter_core::Row| Ok::<_, Failure>((row.i64("version")?, row.text("checksum")?));
    let applied = rows.iter().map(row).collect::<Result<_, _>>()?;
    Ok((tx, applied))
}

async fn run(tx: &mut Tx, version: i64, name: &str, text: &str) -> Result<(), Failure> {
    // The files are the user's own: what is in them is to be run.
    let sql = || sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned()));
    let mut done = Ok(());
    if let Some(connection) = tx.postgres() {
        done = sql().execute(connection).await.map(|_| ());
    } else if let Some(connection) = tx.sqlite() {
        done = sql().execute(connection).await.map(|_| ());
    }
    done.map_err(|error| format!("{version:04} {name} failed, nothing is changed: {error}").into())
}

fn unedited(pairs: &BTreeMap<i64, Pair>, applied: &BTreeMap<i64, String>) -> Result<(), Failure> {
    for (version, checksum) in applied {
        match pairs.get(version) {
            None => return Err(format!("{version:04} is applied and its files are gone").into()),
            Some(pair) if pair.checksum() != *checksum => {
                let text = "was edited after it was applied: add a migration in place of that";
                return Err(format!("{version:04} {} {text}", pair.name).into());
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Applies what is pending, all in one transaction.
pub(crate) async fn up(database: &Database, folder: &Path, dry_run: bool) -> Result<(), Failure> {
    let pairs = pairs(folder)?;
    if dry_run {
        let applied = applied(database).await?;
        for (version, pair) in pairs.iter().filter(|(version, _)| !applied.contains_key(version)) {
            say(format_args!("would be applied: own {version:04} {}", pair.name));
        }
        return Ok(());
    }
    if pairs.is_empty() {
        return Ok(());
    }
    let (mut tx, applied) = begin(database).await?;
    unedited(&pairs, &applied)?;
    let mut done = Vec::new();
    for (version, pair) in pairs.iter().filter(|(version, _)| !applied.contains_key(version)) {
        const ADD: &str =
            "INSERT INTO own_migrations (version, name, checksum) VALUES ($1, $2, $3)";
        run(&mut tx, *version, &pair.name, &pair.up).await?;
        tx.execute(ADD, values![*version, &pair.name, pair.checksum()]).await?;
        done.push(format!("applied: own {version:04} {}", pair.name));
    }
    tx.commit().await?;
    done.iter().for_each(say);
    Ok(())
}

/// Rolls the last `count` back, all in one transaction.
pub(crate) async fn down(
    database: &Database,
    folder: &Path,
    count: usize,
    dry_run: bool,
) -> Result<(), Failure> {
    let pairs = pairs(folder)?;
    if dry_run {
        for (version, (name, _)) in applied(database).await?.iter().rev().take(count) {
            say(format_args!("would be rolled back: own {version:04} {name}"));
        }
        return Ok(());
    }
    let (mut tx, applied) = begin(database).await?;
    let mut done = Vec::new();
    for version in applied.keys().rev().take(count) {
        let Some(pair) = pairs.get(version) else {
            return Err(format!("{version:04} is applied and its files are gone").into());
        };
        run(&mut tx, *version, &pair.name, &pair.down).await?;
        tx.execute("DELETE FROM own_migrations WHERE version = $1", values![*version]).await?;
        done.push(format!("rolled back: own {version:04} {}", pair.name));
    }
    tx.commit().await?;
    done.iter().for_each(say);
    Ok(())
}

/// Prints what is applied and what is pending.
pub(crate) async fn status(database: &Database, folder: &Path) -> Result<(), Failure> {
    let (pairs, applied) = (pairs(folder)?, applied(database).await?);
    for (version, pair) in &pairs {
        let checksum = pair.checksum();
        let state = match applied.get(version) {
            None => "pending",
            Some((_, known)) if *known == checksum => "applied",
            Some(_) => "edited after it was applied",
        };
        line("own", *version, &pair.name, &checksum, state);
    }
    for (version, (name, checksum)) in applied.iter().filter(|(it, _)| !pairs.contains_key(it)) {
        line("own", *version, name, checksum, "applied, its files are gone");
    }
    Ok(())
}
