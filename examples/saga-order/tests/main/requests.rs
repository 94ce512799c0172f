//! Every documented request, and what comes of an order when a step refuses.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use example_saga_order::steps::STEPS;
use serde_json::{Value, json};

use crate::books::{check_order, check_stock};
use crate::place::Place;
use crate::process::Process;

const IN_ALL: i64 = 300_003;

crate::on_both_engines! {
    every_documented_request;
    a_step_that_refuses_is_compensated;
    a_step_that_fails_once_is_tried_again;
    an_order_that_can_not_be_met_is_refused;
    a_cancelled_order_leaves_nothing;
    a_signal_hands_the_running_sagas_back;
}

fn items() -> Value {
    json!([
        { "product_id": "prod-2", "quantity": 1, "price": 49.9 },
        { "product_id": "prod-1", "quantity": 2, "price": 29.99 },
    ])
}

fn every_documented_request(place: &Place) {
    let process = Process::start(place, &[]);
    let body = json!({ "customer_id": "customer-123", "items": items() }).to_string();
    let answer = process.place("", &body).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let accepted = answer.json();
    let (saga_id, order_id) = (&accepted["saga_id"], &accepted["order_id"]);
    assert_eq!(
        accepted,
        json!({ "saga_id": saga_id, "order_id": order_id, "status": "pending",
            "message": "Order creation started" })
    );
    let (saga_id, order_id) = (saga_id.as_str().unwrap(), order_id.as_str().unwrap());

    let saga = process.finished(saga_id);
    let context = &saga["context"];
    assert_eq!(
        saga,
        json!({
            "saga_id": saga_id, "order_id": order_id, "definition_name": "order_saga",
            "status": "completed", "current_step": null, "total_steps": 4, "completed_steps": 4,
            "context": {
                "order_id": order_id, "customer_id": "customer-123", "items": items(),
                "total_amount": 109.88, "reservation_id": context["reservation_id"],
                "payment_id": context["payment_id"], "shipment_id": context["shipment_id"],
            },
            "last_error": null, "correlation_id": saga["correlation_id"],
            "started_at": saga["started_at"], "completed_at": saga["completed_at"],
            "steps": STEPS.map(|name| json!({ "name": name, "status": "completed" })),
        })
    );
    assert!(saga["started_at"].as_str().unwrap().ends_with('Z'), "{saga}");
    check_order(place, &process, &saga);
    check_stock(place, IN_ALL);
    assert_eq!((process.stock("prod-1"), process.stock("prod-2")), ((99_998, 0), (99_999, 0)));

    let history = process.get(&format!("/api/v1/sagas/{saga_id}/history")).json();
    let attempts = history["history"].as_array().unwrap();
    let names: Vec<_> = attempts.iter().map(|attempt| &attempt["step_name"]).collect();
    assert_eq!(names, STEPS);
    for attempt in attempts {
        let same = (&attempt["status"], &attempt["error"], &attempt["retry_attempt"]);
        assert_eq!(same, (&json!("completed"), &Value::Null, &json!(0)), "{attempt}");
        assert!(attempt["duration"].is_string() && attempt["duration_ms"].is_u64(), "{attempt}");
        assert!(attempt["started_at"].is_string() && attempt["completed_at"].is_string());
    }
    other_requests(&process, saga_id, order_id);
}

fn other_requests(process: &Process, saga_id: &str, order_id: &str) {
    for path in ["/api/v1/sagas?status=completed&limit=1&offset=0", "/api/v1/sagas"] {
        let list = process.get(path).json();
        assert_eq!((&list["total"], &list["sagas"][0]["saga_id"]), (&json!(1), &json!(saga_id)));
    }
    assert_eq!(process.get("/api/v1/sagas?status=failed").json()["total"], 0);
    process.get("/api/v1/sagas?status=lost").problem(400, "invalid_query");
    process.get("/api/v1/sagas?limit=501").problem(400, "invalid_query");
    process.get("/api/v1/sagas?offset=-1").problem(400, "bad_request");

    for action in ["cancel", "resume"] {
        let path = format!("/api/v1/sagas/{saga_id}/{action}");
        let detail = process.post(&path).problem(409, "invalid_state");
        assert!(detail.contains("completed"), "{detail}");
    }
    let unknown = "/api/v1/sagas/00000000-0000-0000-0000-000000000000";
    process.get(unknown).problem(404, "saga_not_found");
    process.get(&format!("{unknown}/history")).problem(404, "saga_not_found");
    process.post(&format!("{unknown}/cancel")).problem(404, "saga_not_found");
    process.post(&format!("{unknown}/resume")).problem(404, "saga_not_found");
    process.get(&format!("/api/v1/orders/{saga_id}")).problem(404, "order_not_found");
    process.get("/api/v1/sagas/seven").problem(400, "bad_request");
    process.get("/api/v1/stock/prod-99").problem(404, "product_not_found");
    assert_eq!(process.get("/api/v1/stock").json()["total"], 5);

    let order = process.get(&format!("/api/v1/orders/{order_id}")).json();
    let shown = (&order["version"], &order["saga_id"], &order["total_amount"]);
    assert_eq!(shown, (&json!(5), &json!(saga_id), &json!(109.88)), "{order}");
    assert_eq!(process.get("/health").json()["status"], "healthy");
    let metrics = process.get("/metrics").body;
    for name in ["potter_saga_ended_total{", "http_requests_total{"] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    let document = process.get("/openapi.json").json();
    let operations = document["paths"].as_object().unwrap().values();
    let operations = operations.flat_map(|path| path.as_object().unwrap().values());
    let names: BTreeSet<_> =
        operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 9, "{names:?}");
    assert!(process.get("/docs").body.contains("<html"));

    // The relay looks every 200 ms.
    let begin = Instant::now();
    let told = loop {
        match process.log_lines("published").first() {
            Some(told) => break told.clone(),
            None => assert!(begin.elapsed() < Duration::from_secs(20), "nothing is published"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(
        (&told["event_type"], &told["order_id"]),
        (&json!("order.completed"), &json!(order_id))
    );
}

fn a_step_that_refuses_is_compensated(place: &Place) {
    for (index, step) in STEPS.into_iter().enumerate() {
        let process = Process::start(place, &[("FAIL_AT", step)]);
        let saga = process.order(&items());
        assert_eq!(saga["status"], "compensated", "{saga}");
        assert_eq!(saga["last_error"], format!("step {step} rejected: FAIL_AT says so"), "{saga}");
        assert_eq!((&saga["completed_steps"], &saga["current_step"]), (&json!(0), &Value::Null));
        let statuses: Vec<_> =
            saga["steps"].as_array().unwrap().iter().map(|step| &step["status"]).collect();
        let expected = (0..STEPS.len()).map(|other| match other.cmp(&index) {
            std::cmp::Ordering::Less => "compensated",
            std::cmp::Ordering::Equal => "failed",
            std::cmp::Ordering::Greater => "skipped",
        });
        assert_eq!(statuses, expected.collect::<Vec<_>>(), "{saga}");
        check_order(place, &process, &saga);
        check_stock(place, IN_ALL);
        assert_eq!(process.stock("prod-1"), (100_000, 0));

        let order = process.get(&format!("/api/v1/orders/{}", saga["order_id"].as_str().unwrap()));
        let reason = order.json()["reason"].as_str().unwrap().to_owned();
        assert!(reason.ends_with("FAIL_AT says so"), "{reason}");
        for action in ["cancel", "resume"] {
            let path = format!("/api/v1/sagas/{}/{action}", saga["saga_id"].as_str().unwrap());
            process.post(&path).problem(409, "invalid_state");
        }
    }
    assert_eq!(place.number("SELECT count(*) AS n FROM payments"), 2);
    assert_eq!(place.number("SELECT count(*) AS n FROM shipments"), 1);
}

fn a_step_that_fails_once_is_tried_again(place: &Place) {
    for step in STEPS {
        let process = Process::start(place, &[("FAIL_ONCE", step)]);
        let saga = process.order(&items());
        assert_eq!(
            (&saga["status"], &saga["completed_steps"]),
            (&json!("completed"), &json!(4)),
            "{saga}"
        );
        check_order(place, &process, &saga);
        let path = format!("/api/v1/sagas/{}/history", saga["saga_id"].as_str().unwrap());
        let history = process.get(&path).json();
        let attempts: Vec<_> = history["history"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|attempt| attempt["step_name"] == step)
            .map(|attempt| (&attempt["status"], &attempt["retry_attempt"], &attempt["error"]))
            .collect();
        let first = (&json!("failed"), &json!(0), &json!("FAIL_ONCE says so"));
        assert_eq!(attempts, [first, (&json!("completed"), &json!(1), &Value::Null)], "{history}");
        assert_eq!(history["history"].as_array().unwrap().len(), 5, "{history}");
    }
    check_stock(place, IN_ALL);
}

fn an_order_that_can_not_be_met_is_refused(place: &Place) {
    let process = Process::start(place, &[]);
    for (product_id, quantity, price, says) in [
        ("prod-rare", 4, 1.0, "prod-rare is short: 4 ordered, 3 left"),
        ("prod-sold-out", 1, 1.0, "prod-sold-out is short: 1 ordered, 0 left"),
        ("prod-99", 1, 1.0, "there is no product prod-99"),
        ("prod-1", 2, 5000.01, "10000.02 is over the card's limit of 10000.00"),
    ] {
        let item = json!([{ "product_id": product_id, "quantity": quantity, "price": price }]);
        let saga = process.order(&item);
        assert_eq!(saga["status"], "compensated", "{saga}");
        assert!(saga["last_error"].as_str().unwrap().ends_with(says), "{saga}");
        check_order(place, &process, &saga);
        check_stock(place, IN_ALL);
    }
    let item = json!([{ "product_id": "prod-rare", "quantity": 3, "price": 1 }]);
    assert_eq!(process.order(&item)["status"], "completed");
    let item = json!([{ "product_id": "prod-1", "quantity": 2, "price": 5000 }]);
    assert_eq!(process.order(&item)["status"], "completed", "the limit itself is taken");
    check_stock(place, IN_ALL);
}

fn a_cancelled_order_leaves_nothing(place: &Place) {
    let body = json!({ "customer_id": "customer-123", "items": items() }).to_string();
    // Before anything is done; within the first step; within the third.
    for (fail_once, delay_ms, versions) in
        [("reserve_inventory", 100, 0..=0), ("", 100, 3..=3), ("", 1500, 4..=5)]
    {
        let variables = [("STEP_DELAY_MS", "600"), ("FAIL_ONCE", fail_once)];
        let process = Process::start(place, &variables);
        let accepted = process.place("", &body).unwrap().json();
        let path = format!("/api/v1/sagas/{}", accepted["saga_id"].as_str().unwrap());
        std::thread::sleep(Duration::from_millis(delay_ms));
        let asked = json!({ "saga_id": accepted["saga_id"], "status": "resumed",
            "message": "Saga resumed" });
        assert_eq!(process.post(&format!("{path}/resume")).json(), asked);
        let asked = json!({ "saga_id": accepted["saga_id"], "status": "compensating",
            "message": "Saga cancellation started" });
        assert_eq!(process.post(&format!("{path}/cancel")).json(), asked);
        let saga = process.finished(accepted["saga_id"].as_str().unwrap());
        assert_eq!(saga["status"], "cancelled", "{saga}");
        assert_eq!(process.post(&format!("{path}/cancel")).json(), asked, "the same answer again");
        process.post(&format!("{path}/resume")).problem(409, "invalid_state");
        check_order(place, &process, &saga);
        check_stock(place, IN_ALL);
        let path = format!("/api/v1/orders/{}", accepted["order_id"].as_str().unwrap());
        let order = process.get(&path).json();
        assert_eq!(order["reason"], "cancelled on request", "{order}");
        assert!(versions.contains(&order["version"].as_u64().unwrap()), "{order}");
    }
}

fn a_signal_hands_the_running_sagas_back(place: &Place) {
    // What is not handed back stays where it is for an hour.
    let mut process = Process::start(place, &[("STEP_DELAY_MS", "400"), ("LEASE_MS", "3600000")]);
    let body = json!({ "customer_id": "customer-123", "items": items() }).to_string();
    let ids: Vec<_> = (0..20)
        .map(|_| process.place("", &body).unwrap().json()["saga_id"].as_str().unwrap().to_owned())
        .collect();
    std::thread::sleep(Duration::from_millis(600));
    process.signal("TERM");
    assert!(process.ended().success());

    let next = Process::start(place, &[]);
    for id in &ids {
        let saga = next.finished(id);
        assert_eq!(saga["status"], "completed", "{saga}");
        check_order(place, &next, &saga);
    }
    check_stock(place, IN_ALL);
}
