//! The tables of the crates and your own. See the README beside it.

mod own;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use potter_core::{Database, DatabaseOptions, Engine, Identifier, MigrationState, Migrations};
use potter_eventsourcing::KEY_MIGRATIONS;

/// Why a command failed.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

const CRATES: [Migrations; 3] =
    [potter_core::MIGRATIONS, potter_eventsourcing::MIGRATIONS, potter_saga::MIGRATIONS];

/// The tables of the crates and your own: print, apply, look, roll back.
#[derive(Parser)]
#[command(name = "migrate")]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// postgres://user:password@host:port/name or sqlite://path/to/file.db; unset, an SQLite file
    /// under ./data
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true)]
    database_url: Option<String>,
    /// For `print`: whose SQL (default: that of DATABASE_URL). For the others: a check of the URL
    #[arg(long, value_enum, global = true)]
    engine: Option<Dialect>,
    /// What the names of the crates' tables begin with
    #[arg(long, env = "TABLE_PREFIX", default_value = "potter_", global = true)]
    prefix: String,
    /// PostgreSQL: the schema that the tables are in; it is made if it is not there
    #[arg(long, global = true)]
    schema: Option<String>,
    /// Also the table of keys for personal data that can be erased (it may be in another database)
    #[arg(long, global = true)]
    keys: bool,
    /// Where your own migrations are
    #[arg(long, default_value = "migrations", global = true)]
    dir: PathBuf,
    /// Say what would be done, change nothing
    #[arg(long, global = true)]
    dry_run: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Apply what is pending: the crates' tables, then your own migrations
    Up,
    /// Roll back the last N of your own migrations (the crates' tables stay)
    Down {
        /// How many
        #[arg(default_value_t = 1)]
        count: usize,
    },
    /// What is applied, what is pending, with checksums
    Status,
    /// Make an empty pair of files for a migration of your own
    Create {
        /// What it does: lower-case letters, digits, underscores
        name: String,
    },
    /// Print the SQL of the crates, for a migration tool of your own
    Print,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dialect {
    Sqlite,
    Postgres,
}

fn main() -> ExitCode {
    let done = tokio::runtime::Runtime::new()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(&Args::parse())));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string().replace(['\n', '\r'], " ");
            // Nothing can be done if stderr is closed.
            let _ = writeln!(std::io::stderr(), "migrate: {text}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Print => print(args),
        Command::Create { name } => own::create(&args.dir, name, args.dry_run),
        Command::Up => with_database(args, async |database| up(args, database).await).await,
        Command::Status => with_database(args, async |database| status(args, database).await).await,
        Command::Down { count } => {
            let down = async |database: &Database| {
                own::down(database, &args.dir, *count, args.dry_run).await?;
                say("The crates' tables stay: their schema has no way back but a backup");
                Ok(())
            };
            with_database(args, down).await
        }
    }
}

/// The sets of tables that are wanted.
fn crates(args: &Args) -> impl Iterator<Item = Migrations> {
    CRATES.into_iter().chain(args.keys.then_some(KEY_MIGRATIONS))
}

/// Prints a line.
pub(crate) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn url(args: &Args) -> &str {
    let set = args.database_url.as_deref().filter(|url| !url.is_empty());
    set.unwrap_or("sqlite://data/migrate.db")
}

fn dialect(args: &Args) -> Result<Dialect, Failure> {
    match url(args).split(':').next() {
        Some("sqlite") => Ok(Dialect::Sqlite),
        Some("postgres" | "postgresql") => Ok(Dialect::Postgres),
        _ => Err("DATABASE_URL can't be used: it must be postgres://… or sqlite://…".into()),
    }
}

/// The schema, if it can be one.
fn schema(args: &Args, dialect: Dialect) -> Result<Option<Identifier>, Failure> {
    let Some(name) = &args.schema else { return Ok(None) };
    if dialect == Dialect::Sqlite {
        return Err("--schema is for PostgreSQL: on SQLite use another file".into());
    }
    // It goes into the URL, too: no characters that mean something there.
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    {
        return Err("--schema: lower-case letters, digits and underscores".into());
    }
    Ok(Some(Identifier::new(name)?))
}

fn print(args: &Args) -> Result<(), Failure> {
    let dialect = args.engine.map_or_else(|| dialect(args), Ok)?;
    let engine = match dialect {
        Dialect::Sqlite => Engine::Sqlite,
        Dialect::Postgres => Engine::Postgres,
    };
    if let Some(schema) = schema(args, dialect)? {
        let schema = schema.quoted();
        say(format_args!("CREATE SCHEMA IF NOT EXISTS {schema};\nSET search_path TO {schema};\n"));
    }
    for migrations in crates(args) {
        say(migrations.sql_with_prefix(engine, &args.prefix)?);
    }
    Ok(())
}

async fn with_database(
    args: &Args,
    command: impl AsyncFnOnce(&Database) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let dialect = dialect(args)?;
    if args.engine.is_some_and(|engine| engine != dialect) {
        return Err("--engine is not the engine of DATABASE_URL".into());
    }
    let schema = schema(args, dialect)?;
    let mut url = url(args).to_owned();
    let options =
        DatabaseOptions::new().application_name("migrate").table_prefix(args.prefix.as_str());
    let failed = |error: potter_core::Error| format!("DATABASE_URL can't be used: {error}");
    if let (Some(schema), Some(name)) = (schema, &args.schema) {
        const MAKE: potter_core::Sql = potter_core::Sql::same("CREATE SCHEMA IF NOT EXISTS {name}");
        if !args.dry_run && !matches!(args.command, Command::Status) {
            let database = options.connect(&url).await.map_err(failed)?;
            let made = database.execute(MAKE.with("name", &schema), &[]).await;
            database.close().await;
            made?;
        }
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(&format!("options=-c%20search_path%3D{name}"));
    }
    let database = options.connect(&url).await.map_err(failed)?;
    let done = command(&database).await;
    database.close().await;
    done
}

async fn up(args: &Args, database: &Database) -> Result<(), Failure> {
    for migrations in crates(args) {
        let pending: Vec<_> = migrations
            .status(database)
            .await?
            .into_iter()
            .filter(|one| one.state == MigrationState::Pending)
            .collect();
        if !args.dry_run {
            migrations.apply(database).await?;
        }
        let what = if args.dry_run { "would be applied" } else { "applied" };
        for one in pending {
            say(format_args!("{what}: {} {:04} {}", one.owner, one.version, one.name));
        }
    }
    own::up(database, &args.dir, args.dry_run).await
}

async fn status(args: &Args, database: &Database) -> Result<(), Failure> {
    for migrations in crates(args) {
        for one in migrations.status(database).await? {
            let state = match one.state {
                MigrationState::Pending => "pending",
                MigrationState::Applied => "applied",
                MigrationState::Edited => "edited after it was applied",
                _ => "applied, unknown to this build",
            };
            line(one.owner, one.version, &one.name, &one.checksum, state);
        }
    }
    own::status(database, &args.dir).await
}

/// One line of the status.
pub(crate) fn line(owner: &str, version: i64, name: &str, checksum: &str, state: &str) {
    let checksum = checksum.get(..12).unwrap_or(checksum);
    say(format_args!("{owner:<25} {version:04} {name:<28} {checksum} {state}"));
}
