//! What `commit` promises, and what it admits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use potter_core::testing::TestDatabase;
use potter_core::{Database, DatabaseOptions, ErrorKind, MemoryTable, Sql, Tx, new_id, values};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::{LONG, ms};

potter_core::on_every_sql_engine!(
    what_is_not_committed_is_not_there,
    what_is_committed_is_there_for_everyone,
    values_come_back_as_they_were,
    refusals_have_their_kind,
);

async fn items(test: TestDatabase) -> TestDatabase {
    test.database()
        .execute("CREATE TABLE items (id BIGINT PRIMARY KEY, n BIGINT CHECK (n >= 0))", &[])
        .await
        .unwrap();
    test
}

async fn insert(tx: &mut Tx, id: i64) -> Result<u64, ErrorKind> {
    let done = tx.execute("INSERT INTO items (id, n) VALUES ($1, 0)", values![id]).await;
    done.map_err(|error| error.kind())
}

async fn count(database: &Database) -> i64 {
    let rows = database.read("SELECT count(*) AS n FROM items", &[]).await.unwrap();
    rows[0].i64("n").unwrap()
}

async fn what_is_not_committed_is_not_there(test: TestDatabase) {
    let test = items(test).await;
    let mut dropped = test.database().begin().await.unwrap();
    insert(&mut dropped, 1).await.unwrap();
    drop(dropped);
    let mut undone = test.database().begin().await.unwrap();
    insert(&mut undone, 2).await.unwrap();
    assert_eq!(count(test.database()).await, 0, "nobody sees what is not committed");
    undone.rollback().await.unwrap();
    assert_eq!(count(test.database()).await, 0);
    // The connection is clean again.
    let mut tx = test.database().begin().await.unwrap();
    insert(&mut tx, 1).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count(test.database()).await, 1);
    test.close().await;
}

async fn what_is_committed_is_there_for_everyone(test: TestDatabase) {
    let test = items(test).await;
    let mut tx = test.database().begin().await.unwrap();
    insert(&mut tx, 1).await.unwrap();
    tx.commit().await.unwrap();
    test.database().close().await;
    let error = test.database().ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    let again = Database::connect(test.url()).await.unwrap();
    assert_eq!(count(&again).await, 1);
    again.close().await;
    test.close().await;
}

async fn values_come_back_as_they_were(test: TestDatabase) {
    let (id, now) = (new_id(), test.database().now().await.unwrap());
    let select = Sql::new(
        "SELECT $1 AS a, $2 AS b, $3 AS c, $4 AS d, $5 AS e, $6 AS f, $7 AS g, $8 AS h",
        "SELECT $1::boolean AS a, $2::bigint AS b, $3::double precision AS c, $4::text AS d,
                $5::bytea AS e, $6::uuid AS f, $7::timestamptz AS g, $8::text AS h",
    );
    let none: Option<String> = None;
    let values = values![true, i64::MIN, 0.1, "it's $1; ü", vec![0u8, 255], id, now, none];
    let mut tx = test.database().begin().await.unwrap();
    let row = tx.fetch_optional(select, values).await.unwrap().unwrap();
    assert!(row.bool("a").unwrap());
    assert_eq!(row.i64("b").unwrap(), i64::MIN);
    assert!((row.f64("c").unwrap() - 0.1).abs() < f64::EPSILON);
    assert_eq!(row.text("d").unwrap(), "it's $1; ü");
    assert_eq!(row.bytes("e").unwrap(), [0, 255]);
    assert_eq!(row.uuid("f").unwrap(), id);
    assert_eq!(row.time("g").unwrap(), now);
    assert_eq!(row.opt_text("h").unwrap(), None);
    for (error, what) in [(row.text("h"), "NULL"), (row.text("nowhere"), "nowhere")] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(what), "{error}");
    }
    drop(tx);
    test.close().await;
}

async fn refusals_have_their_kind(test: TestDatabase) {
    let test = items(test).await;
    let database = test.database();
    let add = "INSERT INTO items (id, n) VALUES ($1, $2)";
    database.execute(add, values![1, 0]).await.unwrap();
    let error = database.execute(add, values![1, 0]).await.unwrap_err();
    assert_eq!((error.kind(), error.is_conflict()), (ErrorKind::Conflict, true));
    let error = database.execute(add, values![2, -1]).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::InvalidInput, false));
    let error = database.execute("INSERT INTO nowhere VALUES (1)", &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("nowhere") && error.to_string().contains("migrate()"));
    assert!(std::error::Error::source(&error).is_some());
    test.close().await;
}

// ------------------------------------------------------------------------------------- PostgreSQL

#[tokio::test]
async fn the_reserved_connection_is_free_when_no_other_is() {
    let test = items(TestDatabase::postgres().await).await;
    let options = DatabaseOptions::new().max_connections(2).acquire_timeout(ms(300));
    let database = options.connect(test.url()).await.unwrap();
    let held = (database.begin().await.unwrap(), database.begin().await.unwrap());
    assert_eq!(database.ping().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let add = "INSERT INTO items (id, n) VALUES ($1, 0)";
    assert_eq!(database.reserved().execute(add, values![1]).await.unwrap(), 1);
    // One, however often it is asked for.
    let tx = database.reserved().begin().await.unwrap();
    let error = database.reserved().ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(tx);
    drop(held);
    database.close().await;
    assert_eq!(database.reserved().ping().await.unwrap_err().kind(), ErrorKind::Closed);
    test.close().await;
}

async fn expect_refused_commit(tx: Tx, database: &Database) {
    let error = tx.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert_eq!(count(database).await, 0);
}

/// PostgreSQL answers COMMIT of a failed transaction with ROLLBACK, and with no error.
#[tokio::test]
async fn a_swallowed_failure_does_not_commit_as_if_nothing_was() {
    let test = items(TestDatabase::postgres().await).await;
    let database = test.database();
    let fails = "SELECT 1 / $1::bigint";

    let mut tx = database.begin().await.unwrap();
    insert(&mut tx, 1).await.unwrap();
    tx.execute(fails, values![0]).await.unwrap_err();
    expect_refused_commit(tx, database).await;

    let mut tx = database.begin().await.unwrap();
    insert(&mut tx, 1).await.unwrap();
    tx.fetch_all(fails, values![0]).await.unwrap_err();
    insert(&mut tx, 2).await.unwrap_err();
    expect_refused_commit(tx, database).await;

    // Through the driver's connection, where we see nothing.
    let mut tx = database.begin().await.unwrap();
    insert(&mut tx, 1).await.unwrap();
    sqlx::query("SELECT 1 / 0").execute(tx.postgres().unwrap()).await.unwrap_err();
    expect_refused_commit(tx, database).await;

    // In a transaction that was begun elsewhere.
    let mut raw = database.postgres().unwrap().begin().await.unwrap();
    sqlx::query("INSERT INTO items VALUES (1, 0)").execute(&mut *raw).await.unwrap();
    sqlx::query("SELECT 1 / 0").execute(&mut *raw).await.unwrap_err();
    expect_refused_commit(Tx::from(raw), database).await;

    // And a savepoint makes it whole.
    let mut tx = database.begin().await.unwrap();
    insert(&mut tx, 1).await.unwrap();
    tx.execute("SAVEPOINT before", &[]).await.unwrap();
    tx.execute(fails, values![0]).await.unwrap_err();
    tx.execute("ROLLBACK TO SAVEPOINT before", &[]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count(database).await, 1);
    test.close().await;
}

/// A statement that was given up (a time limit) may fail afterwards.
#[tokio::test]
async fn a_statement_that_nobody_waited_for_does_not_commit_unseen() {
    let test = items(TestDatabase::postgres().await).await;
    let mut tx = test.database().begin().await.unwrap();
    insert(&mut tx, 1).await.unwrap();
    let fails = "SELECT 1 / (CASE WHEN pg_sleep(0.3)::text = '' THEN 0 ELSE 1 END)";
    tokio::time::timeout(ms(50), tx.execute(fails, &[])).await.unwrap_err();
    let error = tx.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert_eq!(count(test.database()).await, 0);
    test.close().await;
}

#[tokio::test]
async fn an_idle_transaction_loses_its_locks_and_cannot_commit() {
    let test = items(TestDatabase::postgres().await).await;
    let lock = "SELECT pg_advisory_xact_lock(1)";
    let paused = DatabaseOptions::new()
        .idle_in_transaction_timeout(ms(300))
        .connect(test.url())
        .await
        .unwrap();
    let mut tx = paused.begin().await.unwrap();
    insert(&mut tx, 1).await.unwrap();
    tx.execute(lock, &[]).await.unwrap();
    let begun = Instant::now();
    let mut other = test.database().begin().await.unwrap();
    other.execute(lock, &[]).await.unwrap();
    assert!(begun.elapsed() >= ms(250), "{:?}", begun.elapsed());
    drop(other);
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unknown), "{error:?}");
    assert_eq!(count(test.database()).await, 0);
    // The pool goes on with another connection.
    assert_eq!(count(&paused).await, 0);
    paused.close().await;
    test.close().await;
}

#[tokio::test]
async fn the_idle_time_limit_is_what_was_asked_for() {
    async fn setting(options: DatabaseOptions, url: &str) -> String {
        let database = options.connect(url).await.unwrap();
        let show = "SELECT current_setting('idle_in_transaction_session_timeout') AS s";
        let rows = database.read(show, &[]).await.unwrap();
        let text = rows[0].text("s").unwrap();
        database.close().await;
        text
    }

    let test = TestDatabase::postgres().await;
    let options = DatabaseOptions::new();
    assert_eq!(setting(options.clone(), test.url()).await, "30s");
    let zero = options.clone().idle_in_transaction_timeout(ms(0));
    assert_eq!(setting(zero, test.url()).await, "0");
    let for_ever = options.clone().idle_in_transaction_timeout(std::time::Duration::MAX);
    assert_eq!(setting(for_ever, test.url()).await, format!("{}ms", i32::MAX));
    // What the URL asks for comes first.
    let separator = if test.url().contains('?') { '&' } else { '?' };
    let url =
        format!("{}{separator}options=-c%20idle_in_transaction_session_timeout%3D7s", test.url());
    assert_eq!(setting(options, &url).await, "7s");
    test.close().await;
}

#[tokio::test]
async fn connections_that_died_while_idle_are_not_handed_out() {
    let test = items(TestDatabase::postgres().await).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(test.database().begin().await.unwrap());
    }
    for tx in open {
        tx.rollback().await.unwrap();
    }
    let other = Database::connect(test.url()).await.unwrap();
    let kill = "SELECT pg_terminate_backend(pid)::text AS t FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert!(other.write(kill, &[]).await.unwrap().len() >= 8);
    other.close().await;
    tokio::time::sleep(ms(100)).await;
    for id in 0..8 {
        let mut tx = test.database().begin().await.unwrap();
        insert(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(count(test.database()).await, 8);
    test.close().await;
}

/// Passes everything on, until the client says COMMIT: then the connection breaks, before the
/// server hears of it or before the client hears of the outcome.
async fn breaks_at_commit(server: String, passes_it_on: bool, armed: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let upstream = TcpStream::connect(&server).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = upstream.into_split();
            let answers = tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
            });
            let armed = armed.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                    let sent = &buffer[..read];
                    let commit = sent.windows(6).any(|window| window == b"COMMIT");
                    if commit && armed.load(Ordering::SeqCst) {
                        answers.abort();
                        let _ = answers.await;
                        if passes_it_on {
                            to_server.write_all(sent).await.unwrap();
                            tokio::time::sleep(ms(200)).await;
                        }
                        return;
                    }
                    if to_server.write_all(sent).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_connection_that_breaks_at_commit_leaves_the_outcome_unknown() {
    let test = items(TestDatabase::postgres().await).await;
    let (before, address) = test.url().split_once('@').unwrap();
    let (server, name) = address.split_once('/').unwrap();
    for passes_it_on in [false, true] {
        let armed = Arc::new(AtomicBool::new(false));
        let port = breaks_at_commit(server.to_owned(), passes_it_on, armed.clone()).await;
        let proxied = format!("{before}@127.0.0.1:{port}/{name}");
        let database = Database::connect(&proxied).await.unwrap();
        let mut tx = database.begin().await.unwrap();
        insert(&mut tx, 1).await.unwrap();
        armed.store(true, Ordering::SeqCst);
        let error = tx.commit().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error:?}");
        assert!(!error.is_retryable(), "doing it again is not known to be right");
        // The client may hear of the break before the server does its part.
        let begun = Instant::now();
        while passes_it_on && count(test.database()).await == 0 && begun.elapsed() < LONG {
            tokio::time::sleep(ms(10)).await;
        }
        assert_eq!(count(test.database()).await, i64::from(passes_it_on));
    }
    test.close().await;
}

// ----------------------------------------------------------------------------------------- SQLite

/// 32 tasks on two handles of one file, as two processes have them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_of_one_sqlite_file_wait_for_each_other() {
    let test = items(TestDatabase::sqlite().await).await;
    let other = Database::connect(test.url()).await.unwrap();
    test.database().execute("INSERT INTO items VALUES (0, 0)", &[]).await.unwrap();
    let mut tasks = JoinSet::new();
    for id in 1..=32 {
        let database = if id % 2 == 0 { &other } else { test.database() }.clone();
        tasks.spawn(async move {
            for _ in 0..10 {
                let mut tx = database.begin().await.unwrap();
                // Read, then write: what a deferred transaction would fail at.
                let rows = tx.fetch_all("SELECT n FROM items WHERE id = 0", &[]).await.unwrap();
                let next = rows[0].i64("n").unwrap() + 1;
                tx.execute("UPDATE items SET n = $1 WHERE id = 0", values![next]).await.unwrap();
                tx.commit().await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let rows = test.database().read("SELECT n FROM items WHERE id = 0", &[]).await.unwrap();
    assert_eq!(rows[0].i64("n").unwrap(), 320, "no update lost");
    other.close().await;
    test.close().await;
}

/// SQLite undoes the statement and keeps the transaction.
#[tokio::test]
async fn a_failed_statement_leaves_an_sqlite_transaction_usable() {
    let test = items(TestDatabase::sqlite().await).await;
    let mut tx = test.database().begin().await.unwrap();
    insert(&mut tx, 1).await.unwrap();
    assert_eq!(insert(&mut tx, 1).await, Err(ErrorKind::Conflict));
    tx.commit().await.unwrap();
    assert_eq!(count(test.database()).await, 1);
    test.close().await;
}

#[tokio::test]
async fn reads_do_not_write_on_sqlite() {
    let test = items(TestDatabase::sqlite().await).await;
    let error = test.database().read("DELETE FROM items RETURNING id", &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
    test.close().await;
}

// ----------------------------------------------------------------------------------------- memory

struct Stock;

impl MemoryTable for Stock {
    type Key = &'static str;
    type Row = u32;
}

struct Orders;

impl MemoryTable for Orders {
    type Key = u32;
    type Row = &'static str;
}

#[tokio::test]
async fn a_rollback_in_memory_restores_everything() {
    let database = Database::memory();
    let mut tx = database.begin().await.unwrap();
    let tables = tx.memory().unwrap();
    assert_eq!(tables.put::<Stock>("kept", 1), None);
    tables.put::<Stock>("removed", 2);
    tx.commit().await.unwrap();

    let mut tx = database.begin().await.unwrap();
    let tables = tx.memory().unwrap();
    tables.put::<Stock>("kept", 10);
    tables.put::<Stock>("kept", 11);
    assert_eq!(tables.remove::<Stock>(&"removed"), Some(2));
    assert_eq!(tables.remove::<Stock>(&"removed"), None);
    tables.put::<Stock>("removed", 20);
    tables.remove::<Stock>(&"kept");
    tables.put::<Stock>("new", 30);
    tables.put::<Orders>(1, "new");
    drop(tx);

    let mut tx = database.begin().await.unwrap();
    let tables = tx.memory().unwrap();
    let rows: Vec<_> = tables.rows::<Stock>().iter().map(|(key, row)| (*key, *row)).collect();
    assert_eq!(rows, [("kept", 1), ("removed", 2)]);
    assert!(tables.rows::<Orders>().is_empty());
}

#[tokio::test]
async fn memory_takes_no_sql_and_says_so() {
    let database = Database::memory();
    let mut tx = database.begin().await.unwrap();
    for error in [
        tx.execute("SELECT 1", &[]).await.unwrap_err(),
        tx.fetch_all("SELECT 1", &[]).await.unwrap_err(),
        database.execute("SELECT 1", &[]).await.unwrap_err(),
        database.read("SELECT 1", &[]).await.unwrap_err(),
        database.write("SELECT 1", &[]).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[tokio::test]
async fn transactions_in_memory_take_turns() {
    let database = Database::memory();
    let mut tasks = JoinSet::new();
    for _ in 0..32 {
        let database = database.clone();
        tasks.spawn(async move {
            let mut tx = database.begin().await.unwrap();
            let n = tx.memory().unwrap().get::<Stock>(&"n").copied().unwrap_or(0);
            tokio::task::yield_now().await;
            tx.memory().unwrap().put::<Stock>("n", n + 1);
            tx.commit().await.unwrap();
        });
    }
    tasks.join_all().await;
    let mut tx = database.begin().await.unwrap();
    assert_eq!(tx.memory().unwrap().get::<Stock>(&"n"), Some(&32));
}
