//! The program through its port, on SQLite and PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use examples_test_support::{Program, commands};
use potter_core::testing::TestDatabase;
use serde_json::json;

const NAME: &str = "eventsourcing-basic";
const README: &str = include_str!("../README.md");

fn start(test: &TestDatabase, folder: &tempfile::TempDir) -> Program {
    Program::start(NAME, folder.path(), &[("DATABASE_URL", test.url())])
}

async fn the_readme_is_true(test: TestDatabase) {
    let folder = tempfile::tempdir().unwrap();
    let program = start(&test, &folder);
    let commands = commands(README);
    assert_eq!(commands.len(), 10);
    for command in commands {
        let answer = command.send(&program);
        assert_eq!(answer.status, command.status, "{command:?}: {}", answer.body);
    }
    let events = program.get("/accounts/ada/events").of(200);
    let types: Vec<_> = events["events"].as_array().unwrap().iter().collect();
    let types: Vec<_> = types.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    let expected = ["opened", "deposited", "deposited", "withdrawn", "closed"];
    assert_eq!(types, expected.map(|name| format!("account.{name}")));
    test.close().await;
}

async fn bad_requests_are_refused(test: TestDatabase) {
    let folder = tempfile::tempdir().unwrap();
    let program = start(&test, &folder);
    let open = |body| program.post("/accounts", &body);
    open(json!({"id": "a", "owner_name": "Ada"})).of(201);
    open(json!({"id": "a", "owner": "Bob"})).problem(409, "account_exists");
    open(json!({"owner": " "})).problem(422, "invalid_owner");
    open(json!({"owner": "Ada", "initial_balance": -1})).problem(422, "invalid_amount");
    open(json!({"owner": "Ada", "colour": "red"})).problem(422, "invalid_body");
    open(json!({"id": "", "owner": "Ada"})).problem(422, "invalid_input");
    for amount in [0, -5, i64::MAX] {
        let body = json!({"amount": amount});
        program.post("/accounts/a/deposit", &body).problem(422, "invalid_amount");
        program.post("/accounts/a/withdraw", &body).problem(422, "invalid_amount");
    }
    let headers = ["content-type: application/json"];
    let malformed = program.send("POST", "/accounts", &headers, "{\"owner\":").unwrap();
    malformed.problem(400, "malformed_json");
    program.post("/accounts/b/deposit", &json!({"amount": 1})).problem(404, "account_not_found");
    program.get("/accounts/b/events").problem(404, "account_not_found");
    program.get("/accounts/a/events?limit=501").problem(422, "invalid_limit");
    program.post_once("/accounts/a/deposit", "k", &json!({"amount": 1})).of(200);
    let reused = program.post_once("/accounts/a/deposit", "k", &json!({"amount": 2}));
    reused.problem(422, "idempotency_key_reused");
    assert_eq!(program.get("/accounts/a").of(200)["balance"], 1);
    test.close().await;
}

/// Killed while requests are under way; whoever got no answer asks again with the same key.
async fn nothing_is_lost_or_doubled(test: TestDatabase) {
    let folder = tempfile::tempdir().unwrap();
    let mut program = start(&test, &folder);
    program.post("/accounts", &json!({"id": "a", "owner": "Ada"})).of(201);
    for round in 0..3 {
        let keys: Vec<_> = (0..20).map(|n| format!("{round}-{n}")).collect();
        std::thread::scope(|scope| {
            for key in &keys {
                let program = &program;
                scope.spawn(move || {
                    let key = format!("idempotency-key: {key}");
                    let headers = ["content-type: application/json", &*key];
                    let body = r#"{"amount": 1}"#;
                    // Most of them do not live to see the answer.
                    let _ = program.send("POST", "/accounts/a/deposit", &headers, body);
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(15 * (round + 1)));
            program.signal("KILL");
        });
        program.ended();
        program = start(&test, &folder);
        for key in &keys {
            program.post_once("/accounts/a/deposit", key, &json!({"amount": 1})).of(200);
        }
    }
    let account = program.get("/accounts/a").of(200);
    assert_eq!((&account["balance"], &account["version"]), (&json!(60), &json!(61)));
    program.signal("TERM");
    assert!(program.ended().success());
    test.close().await;
}

/// Deposits do not exclude each other: many at once on one account all go through.
async fn a_crowd_at_one_account(test: TestDatabase) {
    let folder = tempfile::tempdir().unwrap();
    let program = start(&test, &folder);
    program.post("/accounts", &json!({"id": "a", "owner": "Ada"})).of(201);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| program.post("/accounts/a/deposit", &json!({"amount": 1})).of(200));
        }
    });
    assert_eq!(program.get("/accounts/a").of(200)["balance"], 40);
    test.close().await;
}

potter_core::on_every_sql_engine!(
    the_readme_is_true,
    a_crowd_at_one_account,
    bad_requests_are_refused,
    nothing_is_lost_or_doubled,
);
