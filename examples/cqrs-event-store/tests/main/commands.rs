//! The write side: once, in order, and with clear refusals.

use examples_test_support::Program;
use potter_core::testing::TestDatabase;
use serde_json::{Value, json};

use crate::place::{Place, command, open, send};

const COMMANDS: &str = "/api/v1/commands";

fn version(program: &Program, id: &str) -> u64 {
    program.get(&format!("/api/v1/events/{id}")).of(200)["version"].as_u64().unwrap()
}

async fn the_published_requests_work_as_printed(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    let order = json!({"aggregate_id": "order-123", "command_type": "CreateOrder",
        "data": {"customer_id": "cust-456", "amount": 100}});
    program.post(COMMANDS, &order).of(200);
    assert_eq!(program.get("/api/v1/events/order-123").of(200)["version"], 1);
    let created = json!({"owner": "John Doe", "initial_balance": 1000});
    send(&program, "account-123", "CreateAccount", &created).of(200);
    send(&program, "account-123", "Withdraw", &json!({"amount": 200})).of(200);
    let events = program.get("/api/v1/events/account-123").of(200);
    assert_eq!(events["events"].as_array().unwrap().len(), 2);
    assert_eq!(events["events"][1]["event_type"], "account.withdrawn");
    let then = json!({"aggregate_id": "account-123", "point_in_time": "2024-01-01T12:00:00Z"});
    let detail =
        program.post("/api/v1/time-travel/restore", &then).problem(404, "before_first_event");
    assert!(detail.contains("2024-01-01T12:00:00"), "{detail}");
    let now = json!({"aggregate_id": "account-123", "point_in_time": "2124-01-01T12:00:00Z"});
    let state = program.post("/api/v1/time-travel/restore", &now).of(200);
    assert_eq!((&state["version"], &state["data"]["balance"]), (&json!(2), &json!(800.0)));
    place.test.close().await;
}

async fn an_order_lives_its_life(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    let go = |name: &str, data: Value| send(&program, "order-1", name, &data);
    go("AddItem", json!({"product_id": "tea", "quantity": 1, "price": 1}))
        .problem(404, "aggregate_not_found");
    go("CreateOrder", json!({"customer_id": "c"})).of(200);
    go("CreateOrder", json!({"customer_id": "c"})).problem(409, "aggregate_exists");
    go("ConfirmOrder", json!({})).problem(422, "order_empty");
    go("AddItem", json!({"product_id": "tea", "quantity": 2, "price": 4.5})).of(200);
    go("AddItem", json!({"product_id": "mug", "quantity": 1, "price": 12.25})).of(200);
    go("RemoveItem", json!({"product_id": "pot"})).problem(422, "no_such_item");
    go("RemoveItem", json!({"product_id": "mug"})).of(200);
    go("PayOrder", json!({})).problem(409, "wrong_order_status");
    go("ConfirmOrder", json!({})).of(200);
    let detail = go("PayOrder", json!({"amount": 8.99})).problem(422, "wrong_amount");
    assert!(detail.contains("9.00"), "{detail}");
    go("PayOrder", json!({"amount": 9, "method": "card"})).of(200);
    go("ShipOrder", json!({"tracking_number": "T-1"})).of(200);
    go("CancelOrder", json!({})).problem(409, "wrong_order_status");
    let done = go("DeliverOrder", json!({})).of(200);
    assert_eq!(done["version"], 8);
    let page = program.get("/api/v1/time-travel/timeline/order-1").of(200);
    let stations: Vec<_> =
        page["milestones"].as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
    assert_eq!(stations, ["created", "confirmed", "paid", "shipped", "delivered"]);
    go("CreateOrder", json!({"customer_id": "c", "amount": 1, "items": [{"product_id": "x", "quantity": 0, "price": 1}]}))
        .problem(422, "invalid_data");
    place.test.close().await;
}

async fn refusals_say_what_is_wrong(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    open(&program, "account-1", 100);
    let go = |name: &str, data: Value| send(&program, "account-1", name, &data);
    let detail = go("Withdraw", json!({"amount": 100.01})).problem(422, "insufficient_funds");
    assert!(detail.contains("100.00") && detail.contains("100.01"), "{detail}");
    let detail = go("Explode", json!({})).problem(422, "unknown_command");
    assert!(detail.contains("CreateAccount") && detail.contains("CancelOrder"), "{detail}");
    go("Deposit", json!({"amount": -1})).problem(422, "invalid_data");
    go("Deposit", json!({"amount": 1, "note": "x"})).problem(422, "invalid_data");
    go("CloseAccount", json!({})).problem(422, "account_not_empty");
    go("Withdraw", json!({"amount": 100})).of(200);
    go("CloseAccount", json!({"reason": "moved"})).of(200);
    go("Deposit", json!({"amount": 1})).problem(409, "account_closed");
    send(&program, "order-1", "Deposit", &json!({"amount": 1})).problem(422, "wrong_aggregate");
    send(&program, "cart-1", "Deposit", &json!({})).problem(422, "invalid_aggregate_id");
    let post = |body: &str| {
        program.send("POST", COMMANDS, &["content-type: application/json"], body).unwrap()
    };
    post("{\"aggregate_id\": ").problem(400, "malformed_json");
    post(r#"{"aggregate_id": "account-1", "command_type": "Deposit", "dta": {}}"#)
        .problem(422, "invalid_body");
    post("").problem(400, "malformed_json");
    let large = format!(
        r#"{{"aggregate_id": "account-1", "command_type": "Deposit", "data": {{"x": "{}"}}}}"#,
        "x".repeat(10 * 1024 * 1024)
    );
    post(&large).problem(413, "body_too_large");
    program
        .send("POST", COMMANDS, &["content-type: text/plain"], "{}")
        .unwrap()
        .problem(415, "unsupported_media_type");
    program.send("DELETE", COMMANDS, &[], "").unwrap().problem(405, "method_not_allowed");
    program.get("/api/v1/events/account-none").problem(404, "aggregate_not_found");
    program.get("/api/v1/events?limit=501").problem(422, "invalid_limit");
    program.get("/api/v1/events?limit=x").problem(400, "invalid_parameter");
    program.get("/api/v1/events?cursor=x").problem(422, "invalid_position");
    program.get("/api/v1/events?colour=x").problem(400, "invalid_parameter");
    program.get("/api/v1/nothing").problem(404, "no_such_route");
    assert_eq!(version(&program, "account-1"), 3);
    place.test.close().await;
}

async fn a_command_that_comes_again_is_done_once(test: TestDatabase) {
    let place = Place::new(test);
    let mut program = place.start();
    open(&program, "account-1", 0);
    let deposit = command("account-1", "Deposit", &json!({"amount": 5}));
    let mut named = deposit.clone();
    named["command_id"] = json!("d-1");
    let first = program.post_once(COMMANDS, "key", &deposit).of(200);
    assert_eq!(program.post_once(COMMANDS, "key", &deposit).of(200), first);
    program.post_once(COMMANDS, "key", &named).problem(422, "idempotency_key_reused");
    let second = program.post(COMMANDS, &named).of(200);
    program.kill();
    let program = place.start();
    assert_eq!(program.post(COMMANDS, &named).of(200), second);
    assert_eq!(program.post_once(COMMANDS, "key", &deposit).of(200), first);
    named["data"]["amount"] = json!(6);
    program.post(COMMANDS, &named).problem(422, "command_id_reused");
    assert_eq!(version(&program, "account-1"), 3);
    // Many at once, of one and the same.
    let mut one = command("account-1", "Deposit", &json!({"amount": 7}));
    one["command_id"] = json!("d-2");
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..8).map(|_| scope.spawn(|| program.post(COMMANDS, &one).of(200))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(version(&program, "account-1"), 4);
    let status = program.get("/api/v1/commands/d-2/status").of(200);
    assert_eq!((&status["status"], &status["result"]), (&json!("completed"), &answers[0]));
    // A refusal leaves a trace, and can become a success.
    let mut late = command("account-1", "Withdraw", &json!({"amount": 50}));
    late["command_id"] = json!("w-1");
    program.post(COMMANDS, &late).problem(422, "insufficient_funds");
    let status = program.get("/api/v1/commands/w-1/status").of(200);
    assert_eq!(
        (&status["status"], &status["result"]["code"]),
        (&json!("rejected"), &json!("insufficient_funds"))
    );
    send(&program, "account-1", "Deposit", &json!({"amount": 50})).of(200);
    program.post(COMMANDS, &late).of(200);
    assert_eq!(program.get("/api/v1/commands/w-1/status").of(200)["status"], "completed");
    program.get("/api/v1/commands/none/status").problem(404, "command_not_found");
    let mut stale = command("account-1", "Deposit", &json!({"amount": 1}));
    stale["expected_version"] = json!(2);
    program.post(COMMANDS, &stale).problem(409, "version_conflict");
    place.test.close().await;
}

async fn many_at_once_lose_nothing(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    open(&program, "account-1", 0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    send(&program, "account-1", "Deposit", &json!({"amount": 1})).of(200);
                }
            });
        }
    });
    let now = json!({"aggregate_id": "account-1", "version": 41});
    let state = program.post("/api/v1/time-travel/restore", &now).of(200);
    assert_eq!(state["data"]["balance"], 40.0);
    place.test.close().await;
}

async fn batches_are_alone_or_all_or_none(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    let commands = json!([
        command("account-1", "CreateAccount", &json!({"owner": "A", "initial_balance": 10})),
        command("account-1", "Withdraw", &json!({"amount": 20})),
        command("account-1", "Nonsense", &json!({})),
        command("account-1", "Deposit", &json!({"amount": 5})),
    ]);
    let batch = "/api/v1/commands/batch";
    let mut body = json!({"atomic": true, "commands": commands});
    let detail = program.post_once(batch, "b-1", &body).problem(422, "batch_rejected");
    assert!(detail.contains("commands[2]"), "{detail}");
    body["commands"].as_array_mut().unwrap().remove(2);
    let detail = program.post_once(batch, "b-2", &body).problem(422, "batch_rejected");
    assert!(detail.contains("commands[1]") && detail.contains("insufficient_funds"), "{detail}");
    program.get("/api/v1/events/account-1").problem(404, "aggregate_not_found");
    // Alone: the good ones are done, and not again when the batch comes again.
    let body = json!({"commands": commands});
    for _ in 0..2 {
        let done = program.post_once(batch, "b-3", &body).of(200);
        assert_eq!((&done["completed"], &done["rejected"]), (&json!(2), &json!(2)), "{done}");
        assert_eq!(done["results"][1]["error"]["code"], "insufficient_funds");
        assert_eq!(done["results"][2]["error"]["code"], "unknown_command");
        assert_eq!(version(&program, "account-1"), 2);
    }
    let other = json!({"commands": [commands[3]]});
    program.post_once(batch, "b-3", &other).problem(422, "idempotency_key_reused");
    // All: one transaction over several aggregates.
    let transfer = json!({"atomic": true, "commands": [
        command("account-1", "Withdraw", &json!({"amount": 15})),
        command("account-2", "CreateAccount", &json!({"owner": "B"})),
        command("account-2", "Deposit", &json!({"amount": 15})),
    ]});
    let first = program.post_once(batch, "t", &transfer).of(200);
    assert_eq!(first["completed"], 3);
    assert_eq!(program.post_once(batch, "t", &transfer).of(200), first);
    assert_eq!((version(&program, "account-1"), version(&program, "account-2")), (3, 2));
    program.post(batch, &json!({"commands": []})).problem(422, "invalid_batch");
    place.test.close().await;
}

potter_core::on_every_sql_engine!(
    the_published_requests_work_as_printed,
    an_order_lives_its_life,
    refusals_say_what_is_wrong,
    a_command_that_comes_again_is_done_once,
    many_at_once_lose_nothing,
    batches_are_alone_or_all_or_none,
);
