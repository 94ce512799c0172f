//! The read side: the log, time travel, snapshots, queries, analytics.

use potter_core::testing::TestDatabase;
use serde_json::{Value, json};

use crate::place::{NAME, Place, open, send};
use examples_test_support::commands;

const README: &str = include_str!("../../README.md");

/// Events that are told apart by their times: SQLite's clock counts milliseconds.
fn a_moment() {
    std::thread::sleep(std::time::Duration::from_millis(3));
}

async fn the_readme_is_true(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    let commands = commands(README);
    assert!(commands.len() >= 28, "{}", commands.len());
    for command in commands {
        let answer = command.send(&program);
        assert_eq!(answer.status, command.status, "{command:?}: {}", answer.body);
    }
    let health = program.get("/health").of(200);
    assert_eq!((&health["status"], &health["service"]), (&json!("healthy"), &json!(NAME)));
    assert!(program.get("/metrics").body.contains("cqrs_commands_total"));
    place.test.close().await;
}

/// Every route of the contract is in the document.
async fn every_route_is_documented(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    let paths = program.get("/openapi.json").of(200)["paths"].clone();
    for (method, path) in [
        ("post", "/commands"),
        ("post", "/commands/batch"),
        ("get", "/commands/{id}/status"),
        ("get", "/queries"),
        ("get", "/events"),
        ("get", "/events/stream"),
        ("get", "/events/{aggregate_id}"),
        ("post", "/events/{aggregate_id}/replay"),
        ("get", "/projections"),
        ("get", "/projections/{name}"),
        ("get", "/projections/{name}/status"),
        ("post", "/projections/{name}/rebuild"),
        ("post", "/projections/{name}/reset"),
        ("get", "/time-travel/snapshots"),
        ("post", "/time-travel/restore"),
        ("get", "/time-travel/timeline/{aggregate_id}"),
        ("post", "/time-travel/compare"),
        ("get", "/time-travel/analytics"),
        ("get", "/analytics/events"),
        ("get", "/analytics/aggregates"),
        ("get", "/analytics/performance"),
        ("get", "/analytics/trends"),
        ("get", "/snapshots"),
        ("post", "/snapshots/{id}"),
        ("delete", "/snapshots/{id}"),
    ] {
        assert!(paths[format!("/api/v1{path}")][method].is_object(), "{method} {path}");
    }
    place.test.close().await;
}

async fn the_log_is_read_page_by_page(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    for n in 0..5 {
        open(&program, &format!("account-{n}"), 10);
        send(&program, &format!("order-{n}"), "CreateOrder", &json!({"customer_id": "c"})).of(200);
        send(&program, &format!("account-{n}"), "Deposit", &json!({"amount": 1})).of(200);
    }
    let read = |filter: &str| {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = program.get(&format!("/api/v1/events?limit=2{filter}{cursor}")).of(200);
            found.extend(page["events"].as_array().unwrap().clone());
            let Some(next) = page["next_cursor"].as_str() else { return found };
            cursor = format!("&cursor={next}");
        }
    };
    let all = read("");
    assert_eq!(all.len(), 15);
    let positions: Vec<_> = all.iter().map(|one| one["position"].as_u64().unwrap()).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    assert_eq!(read("&aggregate_type=order").len(), 5);
    assert_eq!(read("&event_type=account.deposited,order.created").len(), 10);
    assert_eq!(read("&from=2124-01-01T00:00:00Z").len(), 0);
    let at = all[7]["recorded_at"].as_str().unwrap();
    assert_eq!(read(&format!("&from={at}"))[0]["recorded_at"], at);
    let page = program.get("/api/v1/events/account-1?from_version=2&limit=1").of(200);
    assert_eq!(page["events"][0]["version"], 2);
    assert_eq!(page["next_cursor"], Value::Null);
    assert_eq!(program.get("/api/v1/events/account-1?limit=1").of(200)["next_cursor"], "2");
    place.test.close().await;
}

async fn aggregates_are_seen_as_they_were(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    open(&program, "account-1", 100);
    a_moment();
    send(&program, "account-1", "Withdraw", &json!({"amount": 30})).of(200);
    a_moment();
    send(&program, "account-1", "Deposit", &json!({"amount": 5})).of(200);
    let post = |path: &str, body: Value| program.post(&format!("/api/v1{path}"), &body);
    let events = program.get("/api/v1/events/account-1").of(200);
    let second = &events["events"][1]["recorded_at"];
    let by_time = json!({"aggregate_id": "account-1", "point_in_time": second});
    let state = post("/time-travel/restore", by_time).of(200);
    assert_eq!((&state["version"], &state["data"]["balance"]), (&json!(2), &json!(70.0)));
    assert_eq!(state["timestamp"], *second);
    let none = json!({"aggregate_id": "account-1"});
    post("/time-travel/restore", none).problem(422, "invalid_moment");
    let ahead = json!({"aggregate_id": "account-1", "version": 4});
    post("/time-travel/restore", ahead).problem(404, "version_not_found");
    let unknown = json!({"aggregate_id": "account-9", "point_in_time": second});
    post("/time-travel/restore", unknown).problem(404, "aggregate_not_found");
    // Two moments, and two accounts.
    let moments = json!({"aggregate_id": "account-1", "version1": 1, "time2": second});
    let compared = post("/time-travel/compare", moments).of(200);
    let expected =
        json!([{"field": "balance", "type": "modified", "old_value": 100.0, "new_value": 70.0}]);
    assert_eq!(compared["differences"], expected);
    open(&program, "account-2", 75);
    let others = json!({"aggregate_id": "account-1", "other_aggregate_id": "account-2"});
    assert_eq!(post("/time-travel/compare", others).of(200)["differences"], json!([]));
    // Replays.
    let replayed =
        program.send("POST", "/api/v1/events/account-1/replay", &[], "").unwrap().of(200);
    assert_eq!(replayed["events_replayed"], 3);
    assert_eq!(
        (&replayed["data"]["balance"], &replayed["snapshot_agrees"]),
        (&json!(75.0), &json!(true))
    );
    let without = post("/events/account-1/replay", json!({"without": [2]})).of(200);
    assert_eq!(without["what_if"]["balance"], 105.0);
    let until = post("/events/account-1/replay", json!({"to_version": 2})).of(200);
    assert_eq!(
        (&until["data"]["balance"], &until["snapshot_agrees"]),
        (&json!(70.0), &Value::Null)
    );
    // The life, in pages.
    let page = program.get("/api/v1/time-travel/timeline/account-1?limit=2").of(200);
    assert_eq!(page["events"][1]["changes"], expected);
    assert_eq!(page["next_cursor"], "3");
    let page = program.get("/api/v1/time-travel/timeline/account-1?from_version=3").of(200);
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    assert_eq!(page["events"][0]["state"]["balance"], 75.0);
    place.test.close().await;
}

async fn snapshots_are_taken_listed_and_deleted(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start_with(&[("SNAPSHOT_FREQUENCY", "1000")]);
    open(&program, "account-1", 100);
    let taken = program.post("/api/v1/snapshots/account-1", &json!({})).of(201);
    assert_eq!(taken["version"], 1);
    send(&program, "account-1", "Deposit", &json!({"amount": 5})).of(200);
    program.post("/api/v1/snapshots/account-1", &json!({})).of(201);
    program.post("/api/v1/snapshots/account-9", &json!({})).problem(404, "aggregate_not_found");
    let list = program.get("/api/v1/snapshots?aggregate_id=account-1&limit=1").of(200);
    assert_eq!((&list["snapshots"][0]["version"], &list["next_cursor"]), (&json!(2), &json!("1")));
    let states = program.get("/api/v1/time-travel/snapshots?aggregate_id=account-1").of(200);
    assert_eq!(states["snapshots"][0]["state"]["balance"], 105.0);
    // A restore from it, and behind it.
    let then = json!({"aggregate_id": "account-1", "version": 2});
    let state = program.post("/api/v1/time-travel/restore", &then).of(200);
    assert_eq!(state["data"]["balance"], 105.0);
    let id = taken["id"].as_str().unwrap();
    let delete =
        |id: &str| program.send("DELETE", &format!("/api/v1/snapshots/{id}"), &[], "").unwrap();
    assert_eq!(delete(id).status, 204);
    delete(id).problem(404, "snapshot_not_found");
    delete("x").problem(404, "snapshot_not_found");
    let list = program.get("/api/v1/snapshots").of(200);
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 1);
    place.test.close().await;
}

async fn queries_filter_and_see_ones_own_writes(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    for n in 0..7 {
        let done = open(&program, &format!("account-{n}"), n * 100);
        let position = &done["position"];
        let path = format!("/api/v1/queries?name=accounts&id=account-{n}&min_position={position}");
        let page = program.get(&path).of(200);
        assert_eq!(page["items"][0]["balance"], f64::from(n * 100), "{page}");
    }
    let read = |filter: &str| program.get(&format!("/api/v1/queries?name={filter}")).of(200);
    let ids = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        items.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let page = read("accounts&min_balance=200&max_balance=500&limit=3");
    assert_eq!(ids(&page), ["account-2", "account-3", "account-4"]);
    let next = page["next_cursor"].as_str().unwrap();
    let page = read(&format!("accounts&min_balance=200&max_balance=500&limit=3&cursor={next}"));
    assert_eq!(ids(&page), ["account-5"]);
    assert_eq!(page["next_cursor"], Value::Null);
    assert!(ids(&read("accounts&owner=Nobody")).is_empty());
    let done =
        send(&program, "order-1", "CreateOrder", &json!({"customer_id": "c", "amount": 9.5}));
    let position = done.of(200)["position"].clone();
    let page = read(&format!("orders&status=created&customer_id=c&min_position={position}"));
    assert_eq!(page["items"][0]["total"], 9.5);
    let page = read(&format!("activity&event_type=account.opened&min_position={position}"));
    let events =
        page["items"].as_array().unwrap().iter().map(|one| one["events"].as_i64().unwrap());
    assert_eq!(events.sum::<i64>(), 7);
    program.get("/api/v1/queries?name=nothing").problem(404, "query_not_found");
    program.get("/api/v1/queries?name=orders&owner=x").problem(422, "unknown_filter");
    program.get("/api/v1/queries?name=accounts&min_balance=x").problem(422, "invalid_amount");
    place.test.close().await;
}

async fn analytics_count_what_is_there(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    for n in 0..3 {
        open(&program, &format!("account-{n}"), 10);
    }
    a_moment();
    for _ in 0..4 {
        send(&program, "account-1", "Deposit", &json!({"amount": 1})).of(200);
    }
    send(&program, "account-1", "Withdraw", &json!({"amount": 1000}))
        .problem(422, "insufficient_funds");
    send(&program, "order-1", "CreateOrder", &json!({"customer_id": "c"})).of(200);
    let get = |path: &str| program.get(&format!("/api/v1{path}")).of(200);
    let events = get("/analytics/events");
    assert_eq!((&events["totals"]["events"], &events["totals"]["streams"]), (&json!(8), &json!(4)));
    assert_eq!(events["event_types"][0]["event_type"], "account.deposited");
    assert_eq!(events["event_types"][0]["events"], 4);
    assert_eq!(get("/analytics/events?aggregate_type=order")["totals"]["events"], 1);
    assert_eq!(get("/analytics/events?to=2024-01-01T00:00:00Z")["totals"]["events"], 0);
    let aggregates = get("/analytics/aggregates");
    assert_eq!(aggregates["aggregate_types"][0]["aggregate_type"], "account");
    assert_eq!(aggregates["aggregate_types"][0]["events"], 7);
    assert_eq!(aggregates["busiest"][0]["aggregate_id"], "account-1");
    assert_eq!(aggregates["busiest"][0]["events"], 5);
    let performance = get("/analytics/performance");
    let of = |name: &str| {
        let commands = performance["commands"].as_array().unwrap();
        commands.iter().find(|one| one["command_type"] == name).unwrap().clone()
    };
    assert_eq!((&of("Deposit")["completed"], &of("Withdraw")["rejected"]), (&json!(4), &json!(1)));
    assert!(of("Deposit")["p50_ms"].as_f64().unwrap() <= of("Deposit")["max_ms"].as_f64().unwrap());
    let trends = get("/analytics/trends?bucket=day");
    let buckets = trends["buckets"].as_array().unwrap();
    let sum: u64 = buckets.iter().map(|one| one["events"].as_u64().unwrap()).sum();
    assert_eq!(sum, 8);
    // As it was.
    let all = get("/events?limit=500");
    let third = all["events"][2]["recorded_at"].as_str().unwrap();
    let then = get(&format!("/time-travel/analytics?point_in_time={third}"));
    assert_eq!(then["totals"]["events"], 3, "{then}");
    assert_eq!(then["since_then"]["events"], 5);
    program.get("/api/v1/analytics/events?source=x").problem(422, "invalid_source");
    program.get("/api/v1/analytics/trends?bucket=year").problem(400, "invalid_parameter");
    place.test.close().await;
}

potter_core::on_every_sql_engine!(
    the_readme_is_true,
    every_route_is_documented,
    the_log_is_read_page_by_page,
    aggregates_are_seen_as_they_were,
    snapshots_are_taken_listed_and_deleted,
    queries_filter_and_see_ones_own_writes,
    analytics_count_what_is_there,
);
