//! The program through its port and its terminal, on SQLite and PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use examples_test_support::{Program, commands, program};
use potter_core::testing::TestDatabase;
use serde_json::{Value, json};

const NAME: &str = "eventsourcing-snapshots";
const README: &str = include_str!("../README.md");

fn start(test: &TestDatabase, variables: &[(&str, &str)]) -> (Program, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec![("DATABASE_URL", test.url())];
    all.extend(variables);
    (Program::start(NAME, folder.path(), &all), folder)
}

async fn the_readme_is_true(test: TestDatabase) {
    let (program, _folder) = start(&test, &[]);
    let commands = commands(README);
    assert_eq!(commands.len(), 7);
    for command in commands {
        let answer = command.send(&program);
        assert_eq!(answer.status, command.status, "{command:?}: {}", answer.body);
    }
    test.close().await;
}

fn stats(program: &Program) -> Value {
    program.get("/snapshots/stats?product_id=p").of(200)
}

fn change(program: &Program, times: u32) {
    for n in 0..times {
        let body = json!({"price": f64::from(n) + 0.25});
        program.json("PUT", "/products/p/price", &body).of(200);
    }
}

async fn snapshots_are_taken_by_count(test: TestDatabase) {
    let (mut first, _folder) = start(&test, &[("SNAPSHOT_FREQUENCY", "5")]);
    first.post("/products", &json!({"id": "p", "name": "P", "price": 1})).of(201);
    change(&first, 3);
    assert_eq!(stats(&first)["has_snapshot"], false);
    change(&first, 9);
    // At the end what was due is saved.
    first.signal("TERM");
    assert!(first.ended().success());
    let (program, _folder) = start(&test, &[]);
    let stats = stats(&program);
    assert_eq!((&stats["strategy"], &stats["version"]), (&json!("frequency"), &json!(13)));
    let newest = stats["snapshots"][0]["version"].as_u64().unwrap();
    assert!((5..=13).contains(&newest), "{stats}");
    assert_eq!(stats["events_to_read"], 13 - newest);
    let product = program.get("/products/p").of(200);
    assert_eq!(product, json!({"id": "p", "name": "P", "price": 8.25, "stock": 0, "version": 13}));
    test.close().await;
}

async fn snapshots_are_taken_by_time(test: TestDatabase) {
    for strategy in ["timebased", "hybrid"] {
        let variables = [("SNAPSHOT_STRATEGY", strategy), ("SNAPSHOT_INTERVAL_MS", "1")];
        let (mut program, _folder) = start(&test, &variables);
        let id = json!({"id": strategy, "name": "P", "price": 1});
        program.post("/products", &id).of(201);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let price = format!("/products/{strategy}/price");
        program.json("PUT", &price, &json!({"price": 2})).of(200);
        program.signal("TERM");
        assert!(program.ended().success());
        let (program, _folder) = start(&test, &variables);
        let stats = program.get(&format!("/snapshots/stats?product_id={strategy}")).of(200);
        assert_eq!((&stats["strategy"], &stats["has_snapshot"]), (&json!(strategy), &json!(true)));
    }
    test.close().await;
}

async fn bad_requests_are_refused(test: TestDatabase) {
    let (program, _folder) = start(&test, &[]);
    let create = |body| program.post("/products", &body);
    create(json!({"id": "p", "name": "P", "price": 1})).of(201);
    create(json!({"id": "p", "name": "P", "price": 1})).problem(409, "product_exists");
    create(json!({"name": "", "price": 1})).problem(422, "invalid_name");
    create(json!({"name": "P", "price": -1})).problem(422, "invalid_price");
    create(json!({"name": "P"})).problem(422, "invalid_body");
    let stock = |body| program.json("PUT", "/products/p/stock", &body);
    stock(json!({"stock": -1})).problem(422, "invalid_stock");
    program
        .json("PUT", "/products/q/stock", &json!({"stock": 1}))
        .problem(404, "product_not_found");
    program.get("/snapshots/stats?product_id=q").problem(404, "product_not_found");
    program.get("/snapshots/stats?limit=0").problem(422, "invalid_limit");
    test.close().await;
}

potter_core::on_every_sql_engine!(
    the_readme_is_true,
    snapshots_are_taken_by_count,
    snapshots_are_taken_by_time,
    bad_requests_are_refused,
);

#[test]
fn an_unknown_strategy_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(program(NAME));
    let command = command.env_clear().current_dir(folder.path());
    let ended = command.env("SNAPSHOT_STRATEGY", "sometimes").output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("SNAPSHOT_STRATEGY=sometimes") && said.contains("hybrid"), "{said}");
}

#[test]
fn the_bench_prints_its_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(program(NAME));
    let ended = command.env_clear().current_dir(folder.path()).arg("bench").output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let table = String::from_utf8(ended.stdout).unwrap();
    let rows: Vec<_> = table.lines().skip(2).map(|line| line.split_whitespace().next()).collect();
    assert_eq!(rows, [Some("10"), Some("100"), Some("1000"), Some("10000")], "{table}");
}
