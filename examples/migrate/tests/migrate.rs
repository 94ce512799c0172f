//! The tool as its users see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::process::Command;

use potter_core::{Database, new_id, values};

/// Whether it went well, and what it printed on both.
fn run(folder: &Path, url: &str, flags: &str) -> (bool, String) {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples").join("migrate");
    let build = "run: cargo build -p example-migrate --example migrate";
    assert!(program.exists(), "{} is not there; {build}", program.display());
    let mut command = Command::new(program);
    command.current_dir(folder).env_remove("TABLE_PREFIX").env("DATABASE_URL", url);
    let output = command.args(flags.split_whitespace()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[track_caller]
fn good(folder: &Path, url: &str, flags: &str) -> String {
    let (good, text) = run(folder, url, flags);
    assert!(good, "{flags}: {text}");
    text
}

/// The whole way, with the flags that all commands get.
fn the_whole_way(folder: &Path, url: &str, more: &str) {
    let go = |flags: &str| good(folder, url, &format!("{flags} {more}"));
    assert!(go("create add_shelves").contains("0001_add_shelves.up.sql"));
    assert!(go("create fill_shelves").contains("0002_fill_shelves.down.sql"));
    let write = |file: &str, text: &str| {
        std::fs::write(folder.join("migrations").join(file), text).unwrap();
    };
    write("0001_add_shelves.up.sql", "CREATE TABLE shelves (n INTEGER);");
    write("0001_add_shelves.down.sql", "DROP TABLE shelves;");
    write(
        "0002_fill_shelves.up.sql",
        "INSERT INTO shelves VALUES (1); INSERT INTO shelves VALUES (2);",
    );
    write("0002_fill_shelves.down.sql", "DELETE FROM shelves;");

    assert!(go("up --dry-run").contains("would be applied: potter-saga 0001"));
    let status = go("status");
    assert!(status.contains("pending") && !status.contains("applied"), "{status}");
    assert!(go("up").contains("applied: own 0002 fill_shelves"));
    let status = go("status");
    assert!(status.contains("applied") && !status.contains("pending"), "{status}");
    assert_eq!(go("up"), "", "there is nothing left to do");

    assert!(go("down --dry-run 2").contains("would be rolled back: own 0001"));
    let text = go("down");
    assert!(text.contains("rolled back: own 0002") && !text.contains("own 0001"), "{text}");
    assert!(text.contains("The crates' tables stay"), "{text}");
    assert!(go("up").contains("applied: own 0002"));

    // A migration that fails leaves nothing.
    go("create broken");
    write("0003_broken.up.sql", "INSERT INTO shelves VALUES (3); INSERT INTO nowhere VALUES (1);");
    let (went, text) = run(folder, url, &format!("up {more}"));
    assert!(!went && text.contains("0003 broken failed, nothing is changed"), "{text}");
    let status = go("status");
    assert!(status.lines().any(|line| line.contains("broken") && line.contains("pending")));
    write("0003_broken.up.sql", "");
    assert!(go("up").contains("applied: own 0003"));

    write("0001_add_shelves.up.sql", "CREATE TABLE shelves (m INTEGER);");
    let (went, text) = run(folder, url, &format!("up {more}"));
    assert!(!went && text.contains("0001 add_shelves was edited"), "{text}");
}

#[test]
fn up_and_down_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("own.db").display());
    the_whole_way(folder.path(), &url, "--prefix shop_");
    let keys = good(folder.path(), &url, "up --prefix shop_ --keys --dir none");
    assert_eq!(keys, "applied: potter-eventsourcing-keys 0001 subject_keys\n");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let database = Database::connect(&url).await.unwrap();
        for (table, times) in [("shop_events", 1), ("shelves", 1), ("nowhere", 0)] {
            const TABLES: &str = "SELECT count(*) AS n FROM sqlite_master WHERE name = $1";
            let rows = database.read(TABLES, values![table]).await.unwrap();
            assert_eq!(rows[0].i64("n").unwrap(), times, "{table}");
        }
        database.close().await;
    });
}

#[test]
fn up_and_down_on_postgres_in_a_schema() {
    let url = std::env::var("POTTER_TEST_POSTGRES_URL")
        .expect("POTTER_TEST_POSTGRES_URL is not set; run: eval \"$(scripts/services up)\"");
    let folder = tempfile::tempdir().unwrap();
    let schema = format!("own_{}", new_id().simple());
    the_whole_way(folder.path(), &url, &format!("--schema {schema} --prefix shop_"));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        const TABLES: &str = "SELECT count(*) AS n FROM pg_tables
             WHERE schemaname = $1 AND tablename IN ('shop_events', 'shelves')";
        let database = Database::connect(&url).await.unwrap();
        let rows = database.read(TABLES, values![&schema]).await.unwrap();
        let drop = sqlx::AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"));
        sqlx::query(drop).execute(database.postgres().unwrap()).await.unwrap();
        assert_eq!(rows[0].i64("n").unwrap(), 2);
        database.close().await;
    });
}

#[test]
fn print_gives_the_sql_of_all_crates() {
    let folder = tempfile::tempdir().unwrap();
    for engine in ["sqlite", "postgres"] {
        let text = good(folder.path(), "", &format!("print --engine {engine} --prefix shop_"));
        for owner in ["potter-core 0001", "potter-eventsourcing 0002", "potter-saga 0001"] {
            assert!(text.contains(&format!("-- {owner}")), "{owner}: {text}");
        }
        assert!(text.contains("shop_events") && !text.contains("potter_"), "{engine}");
        assert!(!text.contains("shop_subject_keys"), "only when it is asked for");
        let text =
            good(folder.path(), "", &format!("print --engine {engine} --prefix shop_ --keys"));
        assert!(text.contains("shop_subject_keys") && text.contains("shop_events"), "{text}");
    }
    let text = good(folder.path(), "", "print --engine postgres --schema shop");
    assert!(text.starts_with("CREATE SCHEMA IF NOT EXISTS \"shop\";\nSET search_path"), "{text}");
    assert!(!folder.path().join("data").exists(), "no database is needed");
}

#[test]
fn what_can_not_be_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (url, flags, part) in [
        ("", "status --engine postgres", "--engine is not the engine"),
        ("", "up --schema shop", "--schema is for PostgreSQL"),
        ("", "create Bad-Name", "lower-case letters"),
        ("mysql://x/y", "up", "DATABASE_URL"),
        ("", "print --prefix Bad", "is no prefix"),
    ] {
        let (went, text) = run(folder.path(), url, flags);
        assert!(!went && text.contains(part) && text.lines().count() == 1, "{flags}: {text}");
    }
}
