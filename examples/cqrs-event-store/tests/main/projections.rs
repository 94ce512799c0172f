//! The read models: rebuilt under load, reset, and equal to a fold.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use examples_test_support::Program;
use potter_core::testing::TestDatabase;
use serde_json::{Value, json};

use crate::place::{Place, eventually, open, send};

const ACCOUNTS: usize = 6;

/// All rows of the accounts, by id.
fn accounts(program: &Program) -> BTreeMap<String, f64> {
    let page = program.get("/api/v1/queries?name=accounts&limit=500").of(200);
    let row =
        |one: &Value| (one["id"].as_str().unwrap().to_owned(), one["balance"].as_f64().unwrap());
    page["items"].as_array().unwrap().iter().map(row).collect()
}

/// The balances by the events of the log.
fn folded(program: &Program) -> BTreeMap<String, f64> {
    let (mut balances, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let page = program.get(&format!("/api/v1/events?limit=500{cursor}")).of(200);
        for event in page["events"].as_array().unwrap() {
            let id = event["aggregate_id"].as_str().unwrap().to_owned();
            let data = &event["data"];
            let change = match event["event_type"].as_str().unwrap() {
                "account.opened" => data["initial_balance"].as_f64().unwrap(),
                "account.deposited" => data["amount"].as_f64().unwrap(),
                "account.withdrawn" => -data["amount"].as_f64().unwrap(),
                _ => 0.0,
            };
            *balances.entry(id).or_default() += change;
        }
        let Some(next) = page["next_cursor"].as_str() else { return balances };
        cursor = format!("&cursor={next}");
    }
}

fn get(program: &Program, name: &str) -> Value {
    program.get(&format!("/api/v1/projections/{name}")).of(200)
}

fn is_caught_up(program: &Program, name: &str) -> bool {
    let view = get(program, name);
    view["state"] == "running" && view["lag_events"] == 0
}

/// Writers write and readers read all the time: the read model is built anew, no query fails, and at
/// the end it is the fold of the log.
async fn a_rebuild_under_load_fails_no_query(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    for n in 0..ACCOUNTS {
        open(&program, &format!("account-{n}"), 100);
    }
    eventually("all accounts are seen", || accounts(&program).len() == ACCOUNTS);
    let (done, queries) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (program, done) = (&program, &done);
            scope.spawn(move || {
                let mut n = writer;
                while !done.load(Ordering::SeqCst) {
                    let id = format!("account-{}", n % ACCOUNTS);
                    let name = if n % 3 == 0 { "Withdraw" } else { "Deposit" };
                    send(program, &id, name, &json!({"amount": 1})).of(200);
                    n += 1;
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                // Never empty, never an error.
                assert_eq!(accounts(&program).len(), ACCOUNTS);
                queries.fetch_add(1, Ordering::SeqCst);
            }
        });
        for _ in 0..2 {
            let path = "/api/v1/projections/accounts/rebuild";
            let started = program.send("POST", path, &[], "").unwrap().of(202);
            assert_eq!(started["state"], "running");
            eventually("the rebuild ends", || {
                let rebuild = get(&program, "accounts")["rebuild"].clone();
                assert_ne!(rebuild["state"], "failed", "{rebuild}");
                rebuild["state"] == "completed"
            });
        }
        let before = queries.load(Ordering::SeqCst);
        eventually("queries go on", || queries.load(Ordering::SeqCst) > before);
        done.store(true, Ordering::SeqCst);
    });
    eventually("it has caught up", || is_caught_up(&program, "accounts"));
    assert_eq!(accounts(&program), folded(&program));
    place.test.close().await;
}

async fn a_reset_begins_again(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    for n in 0..3 {
        open(&program, &format!("account-{n}"), n);
    }
    eventually("they run", || {
        ["accounts", "orders", "activity"].iter().all(|name| is_caught_up(&program, name))
    });
    let before = accounts(&program);
    for name in ["accounts", "orders", "activity"] {
        let path = format!("/api/v1/projections/{name}/reset");
        program.send("POST", &path, &[], "").unwrap().of(202);
    }
    eventually("they have caught up", || {
        accounts(&program) == before && is_caught_up(&program, "activity")
    });
    let page = program.get("/api/v1/queries?name=activity").of(200);
    let events: i64 =
        page["items"].as_array().unwrap().iter().map(|one| one["events"].as_i64().unwrap()).sum();
    assert_eq!(events, 3);
    let list = program.get("/api/v1/projections").of(200);
    assert_eq!(list["total"], 3);
    // The same key is the same request.
    for path in ["projections/orders/reset", "projections/orders/rebuild", "snapshots/account-1"] {
        let path = format!("/api/v1/{path}");
        let first = program.post_once(&path, &path[8..], &json!({}));
        assert!(first.status == 202 || first.status == 201, "{}", first.body);
        let again = program.post_once(&path, &path[8..], &json!({}));
        assert_eq!((first.status, first.json()), (again.status, again.json()));
    }
    program
        .post_once("/api/v1/snapshots/account-2", "snapshots/account-1", &json!({}))
        .problem(422, "idempotency_key_reused");
    let status = program.get("/api/v1/projections/accounts/status").of(200);
    assert_eq!(status["segments"].as_array().unwrap().len(), 8);
    for path in ["", "/status"] {
        let path = format!("/api/v1/projections/nothing{path}");
        let detail = program.get(&path).problem(404, "projection_not_found");
        assert!(detail.contains("accounts, orders, activity"), "{detail}");
    }
    place.test.close().await;
}

potter_core::on_every_sql_engine!(a_rebuild_under_load_fails_no_query, a_reset_begins_again);
