//! What is refused, and how.

use std::process::Output;

use serde_json::json;

use crate::place::Place;
use crate::process::{Process, command};

const GOOD: &str = r#"{"product_id":"prod-1","quantity":1,"price":1}"#;

fn with(items: &str) -> String {
    format!(r#"{{"customer_id":"c","items":[{items}]}}"#)
}

fn by(customer_id: &str) -> String {
    format!(r#"{{"customer_id":"{customer_id}","items":[{GOOD}]}}"#)
}

fn item(quantity: &str, price: &str) -> String {
    with(&format!(r#"{{"product_id":"prod-1","quantity":{quantity},"price":{price}}}"#))
}

fn many(count: usize) -> String {
    let item = |index| format!(r#"{{"product_id":"prod-{index}","quantity":1,"price":1}}"#);
    with(&(0..count).map(item).collect::<Vec<_>>().join(","))
}

#[test]
fn a_body_that_is_wrong_is_refused_with_the_place_of_the_mistake() {
    let place = Place::sqlite();
    let process = Process::start(&place, &[]);
    let no_product = with(r#"{"product_id":"","quantity":1,"price":1}"#);
    let coloured = with(r#"{"product_id":"p","quantity":1,"price":1,"colour":"red"}"#);
    for (body, status, code, names) in [
        ("{\"customer_id\":\n oops}".to_owned(), 400, "malformed_json", "line 2, column 2"),
        (String::new(), 400, "malformed_json", "empty"),
        ("[1]".to_owned(), 422, "invalid_body", ""),
        (format!(r#"{{"items":[{GOOD}]}}"#), 422, "invalid_body", "customer_id"),
        (r#"{"customer_id":"c"}"#.to_owned(), 422, "invalid_body", "items"),
        (by("c").replace("]}", r#"],"coupon":1}"#), 422, "invalid_body", "coupon"),
        (coloured, 422, "invalid_body", "items[0].colour"),
        (item("1.5", "1"), 422, "invalid_body", "items[0].quantity"),
        (item("99999999999999999999", "1"), 422, "invalid_body", "items[0].quantity"),
        (item("1", "-0.01"), 422, "invalid_body", "items[0].price: must not be negative"),
        (item("1", "29.999"), 422, "invalid_body", "items[0].price: must have at most two"),
        (item("1", "1e400"), 422, "invalid_body", "items[0].price: is too large"),
        (item("1", "\"29.99\""), 422, "invalid_body", "items[0].price: must be a number"),
        (item("1", "null"), 422, "invalid_body", "items[0].price"),
        (with(""), 422, "invalid_order", "items must not be empty"),
        (with(&[GOOD, GOOD].join(",")), 422, "invalid_order", "items[1].product_id is there twice"),
        (many(101), 422, "invalid_order", "items has 101 products; 100 at most"),
        (by(""), 422, "invalid_order", "customer_id"),
        (by(&"x".repeat(101)), 422, "invalid_order", "customer_id"),
        (by(r"a\u0000b"), 422, "invalid_order", "customer_id"),
        (no_product, 422, "invalid_order", "items[0].product_id"),
        (item("0", "1"), 422, "invalid_order", "items[0].quantity"),
        (item("-1", "1"), 422, "invalid_order", "items[0].quantity"),
        (item("1000001", "1"), 422, "invalid_order", "items[0].quantity"),
        (item("1000000", "90071992547409.91"), 422, "invalid_order", "items cost more than"),
    ] {
        let answer = process.place("", &body).unwrap();
        let detail = answer.problem(status, code);
        assert!(detail.contains(names), "{body}: {detail}");
        if code == "invalid_order" {
            let errors = answer.json()["errors"].clone();
            assert!(detail.starts_with(errors[0]["field"].as_str().unwrap()), "{body}: {errors}");
        }
    }
    let huge = by(&"x".repeat(10 << 20));
    process.place("", &huge).unwrap().problem(413, "body_too_large");
    let key = "x".repeat(256);
    process.place(&key, &by("c")).unwrap().problem(400, "invalid_idempotency_key");
    assert_eq!(process.get("/api/v1/sagas").json()["total"], 0, "nothing of it was started");
}

#[test]
fn amounts_are_exact_up_to_the_bounds() {
    let place = Place::sqlite();
    let process = Process::start(&place, &[]);
    let free = process.order(&json!([{ "product_id": "prod-1", "quantity": 1, "price": 0 }]));
    assert_eq!(free["status"], "completed", "{free}");
    assert_eq!(process.place("", &many(100)).unwrap().status, 202);
    // Added up as floats these are 0.30000000000000004.
    let saga = process.order(&json!([
        { "product_id": "prod-1", "quantity": 1, "price": 0.1 },
        { "product_id": "prod-2", "quantity": 1, "price": 0.2 },
    ]));
    let answer = process.get(&format!("/api/v1/sagas/{}", saga["saga_id"].as_str().unwrap()));
    assert!(answer.body.contains(r#""total_amount":0.30,"#), "{}", answer.body);
}

fn refused(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.starts_with("saga-order: "), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn a_setting_that_can_not_be_used_is_one_line_and_exit_code_one() {
    let place = Place::postgres();
    let (_, rest) = place.url.split_once("://").unwrap();
    let (user, host) = rest.split_once('@').unwrap();
    let user = user.split(':').next().unwrap();
    let (address, _) = host.split_once('/').unwrap();
    // A port where nobody listens, as far as that can be known.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let steps = "reserve_inventory, process_payment, create_shipment, complete_order";
    for (variable, value, says) in [
        (
            "DATABASE_URL",
            format!("postgres://me:secret@{free}/orders"),
            vec!["DATABASE_URL can't be used", &free.to_string(), "can't be reached"],
        ),
        (
            "DATABASE_URL",
            "mysql://me:secret@db/orders".to_owned(),
            vec!["DATABASE_URL=mysql://***@db"],
        ),
        ("DATABASE_URL", "orders.db".to_owned(), vec!["DATABASE_URL=orders.db", "postgres://"]),
        ("DATABASE_URL", "postgres://u:secret@[::1/orders".to_owned(), vec!["DATABASE_URL"]),
        (
            "DATABASE_URL",
            format!("postgres://{user}@{address}/no_such_place"),
            vec!["DATABASE_URL can't be used", address, "no database \"no_such_place\""],
        ),
        (
            "DATABASE_URL",
            "sqlite:///proc/none/orders.db".to_owned(),
            vec!["DATABASE_URL", "/proc/none"],
        ),
        ("FAIL_AT", "payment".to_owned(), vec!["FAIL_AT=payment", steps]),
        ("FAIL_ONCE", "ship".to_owned(), vec!["FAIL_ONCE=ship", steps]),
        ("STEP_DELAY_MS", "soon".to_owned(), vec!["STEP_DELAY_MS=soon"]),
        ("STEP_DELAY_MS", "600001".to_owned(), vec!["STEP_DELAY_MS=600001", "at most 600000"]),
        ("LEASE_MS", "0".to_owned(), vec!["LEASE_MS=0", "from 100"]),
        ("PORT", "http".to_owned(), vec!["PORT=http"]),
    ] {
        let output = command(&place, &[(variable, &value)]).output().unwrap();
        let text = refused(&output, 1);
        assert!(says.iter().all(|word| text.contains(word)), "{variable}={value}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn a_wrong_password_is_told_from_a_server_that_is_down() {
    let place = Place::postgres();
    let (_, rest) = place.url.split_once('@').unwrap();
    // Whoever is not known is refused, with or without a password.
    let url = format!("postgres://nobody_here:secret@{rest}");
    let output = command(&place, &[("DATABASE_URL", &url)]).output().unwrap();
    let text = refused(&output, 1);
    assert!(text.contains("DATABASE_URL can't be used") && text.contains("nobody_here"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn arguments_are_known_or_refused() {
    let place = Place::sqlite();
    let output = command(&place, &[]).arg("--help").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let documented = ["saga-order demo", "FAIL_AT", "FAIL_ONCE", "STEP_DELAY_MS", "LEASE_MS"];
    assert!(documented.iter().all(|word| text.contains(word)), "{text}");
    for arguments in [&["--port=1"][..], &["demo", "twice"]] {
        let text = refused(&command(&place, &[]).args(arguments).output().unwrap(), 2);
        assert!(text.contains("--help"), "{text}");
    }
}
