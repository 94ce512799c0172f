//! The program through its terminal, on SQLite and PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use examples_test_support::program;
use potter_core::testing::TestDatabase;
use potter_core::values;
use potter_eventsourcing::{ExpectedVersion, NewEvent, StreamId, event_store};

fn run(test: &TestDatabase, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("eventsourcing-replay"));
    command.env_clear().current_dir(folder.path()).env("DATABASE_URL", test.url());
    command.args(arguments).output().unwrap()
}

#[track_caller]
fn said(test: &TestDatabase, arguments: &[&str]) -> String {
    let output = run(test, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(test: &TestDatabase, arguments: &[&str], code: i32) -> String {
    let output = run(test, arguments);
    assert_eq!(output.status.code(), Some(code));
    String::from_utf8(output.stderr).unwrap()
}

async fn numbers(test: &TestDatabase) -> Vec<i64> {
    let orders = "SELECT count(*) AS a, CAST(sum(amount) AS bigint) AS b,
                         CAST(sum(event_count) AS bigint) AS c FROM order_summary";
    let customers = "SELECT count(*) AS a, CAST(sum(total_amount) AS bigint) AS b,
                            CAST(sum(total_orders) AS bigint) AS c FROM customer_stats";
    let mut numbers = Vec::new();
    for statement in [orders, customers] {
        let rows = test.database().read(statement, &[]).await.unwrap();
        numbers.extend(["a", "b", "c"].map(|name| rows[0].opt_i64(name).unwrap().unwrap_or(0)));
    }
    numbers
}

async fn read_models_are_built_from_history(test: TestDatabase) {
    assert!(said(&test, &["seed", "--orders", "200"]).contains("360 events"));
    assert!(said(&test, &["seed", "--orders", "200"]).contains("0 events"), "they are there");
    // The log has others' events too.
    let user = NewEvent::new("user.created", &()).unwrap();
    let (store, stream) =
        (event_store(test.database()).unwrap(), StreamId::new("user", "1").unwrap());
    store.append(&stream, ExpectedVersion::NoStream, vec![user]).await.unwrap();
    let amount: i64 = (0..200).map(|n| 500 + n * 37 % 10_000).sum();
    let expected = vec![200, amount, 360, 50, amount, 200];
    let all = said(&test, &["replay-all", "--parallel=3", "--batch-size", "7"]);
    assert!(all.ends_with("✓ replay-all completed successfully\n"), "{all}");
    for (name, total) in [("order_summary", 360), ("customer_stats", 200)] {
        assert!(all.contains(&format!("{name} Progress: {total}/{total} (100.00%)")), "{all}");
    }
    assert_eq!(numbers(&test).await, expected);
    // Spoiled, and built again.
    test.database().execute("UPDATE order_summary SET amount = 1", &[]).await.unwrap();
    test.database().execute("DELETE FROM customer_stats", &[]).await.unwrap();
    said(&test, &["replay-projection", "--projection", "order_summary"]);
    assert_eq!(numbers(&test).await[..3], expected[..3]);
    said(&test, &["replay-projection", "--projection", "customer_stats", "--parallel"]);
    assert_eq!(numbers(&test).await, expected);
    test.close().await;
}

async fn parts_of_the_log_are_counted(test: TestDatabase) {
    said(&test, &["seed", "--orders", "100"]);
    let created = said(&test, &["replay-all", "--event-type", "order.created"]);
    assert!(created.contains("Progress: 100/100 (100.00%) | Position: "), "{created}");
    assert!(created.contains("\norder.created: 100\n✓ replay-all"), "{created}");
    let all = said(&test, &["replay-from", "--from-time", "2020-01-01T00:00:00Z", "--parallel=4"]);
    let tally = "order.cancelled: 20\norder.completed: 60\norder.created: 100\n";
    assert!(all.contains(tally), "{all}");
    let none = said(&test, &["replay-from", "--from-time", "2120-01-01T00:00:00Z"]);
    assert!(none.contains("Progress: 0/0 (100.00%)"), "{none}");
    test.close().await;
}

async fn an_orders_life_is_shown(test: TestDatabase) {
    said(&test, &["seed", "--orders", "5"]);
    said(&test, &["replay-all"]);
    let row = "SELECT order_id FROM order_summary WHERE status = $1 ORDER BY order_id LIMIT 1";
    let rows = test.database().read(row, values!["completed"]).await.unwrap();
    let id = rows[0].text("order_id").unwrap();
    let life = said(&test, &["replay-aggregate", "--aggregate-id", &id]);
    assert!(life.contains(" order.created\n    amount: 0 → "), "{life}");
    assert!(life.contains("    status: \"created\" → \"completed\"\n"), "{life}");
    let nobody = refused(&test, &["replay-aggregate", "--aggregate-id", "nobody"], 1);
    assert!(nobody.contains("there is no stream order-nobody"), "{nobody}");
    let unknown = refused(&test, &["replay-projection", "--projection", "x"], 1);
    assert!(unknown.contains("order_summary or customer_stats"), "{unknown}");
    refused(&test, &["replay-from", "--from-time", "yesterday"], 2);
    refused(&test, &["replay-all", "--parallel=0"], 2);
    test.close().await;
}

potter_core::on_every_sql_engine!(
    read_models_are_built_from_history,
    parts_of_the_log_are_counted,
    an_orders_life_is_shown,
);
