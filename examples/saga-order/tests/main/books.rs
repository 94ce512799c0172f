//! The books of the shop: what must be true when all orders are final, whatever happened.

use std::collections::BTreeMap;

use potter_core::values;
use serde_json::Value;

use crate::place::Place;
use crate::process::Process;

/// What the database has about one order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Effects {
    /// How often the log says of a step that it is done (first) and undone (second).
    steps: BTreeMap<String, (i64, i64)>,
    /// Product, quantity and status.
    reservations: Vec<(String, i64, String)>,
    /// Amount, refunded amount and status.
    payments: Vec<(i64, i64, String)>,
    shipments: Vec<String>,
}

fn effects(place: &Place, saga_id: &str, order_id: &str) -> Effects {
    let mut effects = Effects::default();
    let log = "SELECT step_name, kind, count(*) AS n FROM potter_saga_log
        WHERE CAST(saga_id AS text) = $1 AND kind IN ('completed', 'undone')
        GROUP BY step_name, kind";
    for row in place.rows(log, values![saga_id]) {
        let counts = effects.steps.entry(row.text("step_name").unwrap()).or_default();
        match row.text("kind").unwrap().as_str() {
            "completed" => counts.0 = row.i64("n").unwrap(),
            _ => counts.1 = row.i64("n").unwrap(),
        }
    }
    let reservations = "SELECT product_id, quantity, status FROM reservations
        WHERE order_id = $1 ORDER BY product_id";
    for row in place.rows(reservations, values![order_id]) {
        effects.reservations.push((
            row.text("product_id").unwrap(),
            row.i64("quantity").unwrap(),
            row.text("status").unwrap(),
        ));
    }
    let payments = "SELECT amount, refunded, status FROM payments WHERE order_id = $1";
    for row in place.rows(payments, values![order_id]) {
        effects.payments.push((
            row.i64("amount").unwrap(),
            row.i64("refunded").unwrap(),
            row.text("status").unwrap(),
        ));
    }
    let shipments = "SELECT status FROM shipments WHERE order_id = $1";
    for row in place.rows(shipments, values![order_id]) {
        effects.shipments.push(row.text("status").unwrap());
    }
    effects
}

/// Each step of a final saga happened at most once, what was undone was undone once, and nothing
/// is lost. `saga` is as the program shows it.
pub(crate) fn check_order(place: &Place, process: &Process, saga: &Value) {
    let (saga_id, order_id) =
        (saga["saga_id"].as_str().unwrap(), saga["order_id"].as_str().unwrap());
    let found = effects(place, saga_id, order_id);
    let is_completed = saga["status"] == "completed";
    let done = |step: &str| found.steps.get(step).copied().unwrap_or_default();
    for step in ["reserve_inventory", "process_payment", "create_shipment"] {
        let (done, undone) = done(step);
        assert!(done <= 1, "{step} is there {done} times: {saga}");
        assert_eq!(undone, if is_completed { 0 } else { done }, "{step}: {saga}");
    }
    assert_eq!(done("complete_order"), (i64::from(is_completed), 0), "{saga}");

    let mut expected = Effects { steps: found.steps.clone(), ..Effects::default() };
    let word =
        |completed: &str, undone: &str| if is_completed { completed } else { undone }.to_owned();
    if done("reserve_inventory").0 == 1 {
        for item in saga["context"]["items"].as_array().unwrap() {
            let product = item["product_id"].as_str().unwrap().to_owned();
            let quantity = item["quantity"].as_i64().unwrap();
            expected.reservations.push((product, quantity, word("used", "released")));
        }
        expected.reservations.sort();
    }
    if done("process_payment").0 == 1 {
        let total = saga["context"]["total_amount"].to_string();
        let (whole, cents) = total.split_once('.').unwrap_or((&total, "0"));
        let amount: i64 = format!("{whole}{cents:0<2}").parse().unwrap();
        let refunded = if is_completed { 0 } else { amount };
        expected.payments.push((amount, refunded, word("captured", "refunded")));
    }
    if done("create_shipment").0 == 1 {
        expected.shipments.push(word("created", "cancelled"));
    }
    assert_eq!(found, expected, "{saga}");
    check_events(process, saga, &found);
}

/// The order's events are those of the steps that were done, each once.
fn check_events(process: &Process, saga: &Value, found: &Effects) {
    let order_id = saga["order_id"].as_str().unwrap();
    let order = process.get(&format!("/api/v1/orders/{order_id}")).json();
    let events: Vec<_> = order["events"].as_array().unwrap().iter().collect();
    let types: Vec<_> = events.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    let mut expected = vec![];
    if saga["status"] != "cancelled" || !found.steps.is_empty() {
        expected.push("order.placed");
    }
    for (step, event) in [
        ("reserve_inventory", "order.inventory_reserved"),
        ("process_payment", "order.payment_processed"),
        ("create_shipment", "order.shipped"),
        ("complete_order", "order.completed"),
    ] {
        if found.steps.contains_key(step) {
            expected.push(event);
        }
    }
    if saga["status"] == "completed" {
        assert_eq!(order["state"], "completed");
    } else {
        assert_eq!(order["state"], "cancelled", "{order}");
        if !expected.is_empty() {
            expected.push("order.cancelled");
        }
    }
    assert_eq!(types, expected, "{saga}");
}

/// Everything that was ever in stock is there or sold.
pub(crate) fn check_stock(place: &Place, in_all: i64) {
    let available = place.number("SELECT CAST(sum(available) AS bigint) AS n FROM stock");
    let sold = place.number(
        "SELECT CAST(coalesce(sum(quantity), 0) AS bigint) AS n FROM reservations
         WHERE status = 'used'",
    );
    let held = place.number("SELECT count(*) AS n FROM reservations WHERE status = 'held'");
    assert_eq!((available + sold, held), (in_all, 0));
}

/// All sagas, through the program's list.
pub(crate) fn all_sagas(process: &Process) -> Vec<Value> {
    let mut sagas = Vec::new();
    loop {
        let offset = sagas.len();
        let page = process.get(&format!("/api/v1/sagas?limit=100&offset={offset}")).json();
        sagas.extend(page["sagas"].as_array().unwrap().iter().cloned());
        if sagas.len() as u64 >= page["total"].as_u64().unwrap() {
            return sagas;
        }
    }
}
