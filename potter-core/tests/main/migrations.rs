//! Schema versions: once, in order, all or nothing.

use potter_core::testing::TestDatabase;
use potter_core::{
    Database, Engine, ErrorKind, Lease, MIGRATIONS, Migration, MigrationState, Migrations, Tx,
    migrate, values,
};
use tokio::task::JoinSet;

use crate::{LONG, enqueue, message};

potter_core::on_every_sql_engine!(
    eight_processes_may_start_together,
    an_edited_migration_is_refused,
    a_database_of_a_newer_release_is_refused,
    a_failing_migration_leaves_nothing,
    the_printed_sql_makes_the_same_tables,
    owners_have_their_own_versions,
    the_status_says_what_is_applied,
);

const fn step(version: i64, sql: &'static str) -> Migration {
    Migration { version, name: "step", sqlite: sql, postgres: sql }
}

const ONE: Migrations =
    Migrations { owner: "shop", list: &[step(1, "CREATE TABLE a (n INTEGER);")] };
const TWO: Migrations = Migrations {
    owner: "shop",
    list: &[
        step(1, "CREATE TABLE a (n INTEGER);"),
        step(2, "INSERT INTO a VALUES (1); INSERT INTO a VALUES (2);"),
    ],
};
const EDITED: Migrations =
    Migrations { owner: "shop", list: &[step(1, "CREATE TABLE a (n INTEGER, m INTEGER);")] };
const BROKEN: Migrations = Migrations {
    owner: "shop",
    list: &[
        step(1, "CREATE TABLE a (n INTEGER);"),
        step(2, "CREATE TABLE b (n INTEGER); INSERT INTO nowhere VALUES (1);"),
    ],
};

async fn rows(database: &Database, table: &str) -> Option<usize> {
    let select = match table {
        "a" => "SELECT * FROM a LIMIT 100",
        "b" => "SELECT * FROM b LIMIT 100",
        _ => "SELECT * FROM potter_migrations LIMIT 100",
    };
    database.read(select, &[]).await.ok().map(|rows| rows.len())
}

mod own {
    use super::*;

    potter_core::on_every_engine!(migrating_again_changes_nothing);

    async fn migrating_again_changes_nothing(test: TestDatabase) {
        for _ in 0..3 {
            migrate(test.database()).await.unwrap();
        }
        enqueue(test.database(), &message("a", 1)).await;
        migrate(test.database()).await.unwrap();
        test.close().await;
    }
}

async fn eight_processes_may_start_together(test: TestDatabase) {
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let url = test.url().to_owned();
        tasks.spawn(async move {
            let database = Database::connect(&url).await.unwrap();
            TWO.apply(&database).await.unwrap();
            migrate(&database).await.unwrap();
            database.close().await;
        });
    }
    tasks.join_all().await;
    assert_eq!(rows(test.database(), "a").await, Some(2));
    assert_eq!(rows(test.database(), "").await, Some(3));
    test.close().await;
}

async fn an_edited_migration_is_refused(test: TestDatabase) {
    ONE.apply(test.database()).await.unwrap();
    let error = EDITED.apply(test.database()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("version 1 of the schema of shop"), "{error}");
    ONE.apply(test.database()).await.unwrap();
    test.close().await;
}

async fn a_database_of_a_newer_release_is_refused(test: TestDatabase) {
    ONE.apply(test.database()).await.unwrap();
    TWO.apply(test.database()).await.unwrap();
    assert_eq!(rows(test.database(), "a").await, Some(2));
    let error = ONE.apply(test.database()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("version 2 of the schema of shop"), "{error}");
    test.close().await;
}

async fn a_failing_migration_leaves_nothing(test: TestDatabase) {
    let error = BROKEN.apply(test.database()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("shop 0002 step"), "{error}");
    for table in ["a", "b", ""] {
        assert_eq!(rows(test.database(), table).await, None, "{table}");
    }
    TWO.apply(test.database()).await.unwrap();

    // Also on top of what was there.
    const LATER: Migrations = Migrations {
        owner: "shop",
        list: &[TWO.list[0], TWO.list[1], step(3, "DELETE FROM a; SELECT * FROM nowhere;")],
    };
    LATER.apply(test.database()).await.unwrap_err();
    assert_eq!(rows(test.database(), "a").await, Some(2));
    test.close().await;
}

async fn run(tx: &mut Tx, sql: String) {
    let sql = sqlx::AssertSqlSafe(sql);
    if tx.engine() == Engine::Postgres {
        sqlx::raw_sql(sql).execute(tx.postgres().unwrap()).await.unwrap();
    } else {
        sqlx::raw_sql(sql).execute(tx.sqlite().unwrap()).await.unwrap();
    }
}

async fn the_printed_sql_makes_the_same_tables(test: TestDatabase) {
    let mut tx = test.database().begin().await.unwrap();
    let sql = MIGRATIONS.sql(test.database().engine());
    assert!(sql.starts_with("-- potter-core 0001 "), "{sql}");
    run(&mut tx, sql).await;
    tx.commit().await.unwrap();
    enqueue(test.database(), &message("a", 1)).await;
    Lease::acquire(test.database(), "jobs", LONG).await.unwrap().unwrap();
    test.close().await;
}

async fn owners_have_their_own_versions(test: TestDatabase) {
    const OTHER: Migrations =
        Migrations { owner: "desk", list: &[step(1, "CREATE TABLE b (n INTEGER);")] };
    TWO.apply(test.database()).await.unwrap();
    OTHER.apply(test.database()).await.unwrap();
    let owner = "SELECT version FROM potter_migrations WHERE owner = $1 LIMIT 10";
    assert_eq!(test.database().read(owner, values!["desk"]).await.unwrap().len(), 1);
    assert_eq!(test.database().read(owner, values!["shop"]).await.unwrap().len(), 2);
    test.close().await;
}

async fn the_status_says_what_is_applied(test: TestDatabase) {
    use MigrationState::{Applied, Edited, Pending, Unknown};
    async fn states(migrations: &Migrations, test: &TestDatabase) -> Vec<MigrationState> {
        let status = migrations.status(test.database()).await.unwrap();
        assert!(status.iter().all(|one| one.applied_at.is_none() == (one.state == Pending)));
        assert!(status.iter().all(|one| one.checksum.len() == 64 && one.owner == "shop"));
        status.iter().map(|one| one.state).collect()
    }
    assert_eq!(states(&TWO, &test).await, [Pending, Pending]);
    assert_eq!(rows(test.database(), "").await, None, "to look changes nothing");
    ONE.apply(test.database()).await.unwrap();
    assert_eq!(states(&TWO, &test).await, [Applied, Pending]);
    TWO.apply(test.database()).await.unwrap();
    assert_eq!(states(&TWO, &test).await, [Applied, Applied]);
    assert_eq!(states(&EDITED, &test).await, [Edited, Unknown]);
    test.close().await;
}
