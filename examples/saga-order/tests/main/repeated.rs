//! The same request again.

use std::sync::Barrier;

use serde_json::json;

use crate::books::{check_order, check_stock};
use crate::place::Place;
use crate::process::Process;

crate::on_both_engines! {
    equal_requests_at_once_are_one_order;
}

fn equal_requests_at_once_are_one_order(place: &Place) {
    let process = Process::start(place, &[]);
    let order = |quantity: u32| {
        let items = json!([{ "product_id": "prod-1", "quantity": quantity, "price": 29.99 }]);
        json!({ "customer_id": "customer-123", "items": items }).to_string()
    };
    let (body, barrier) = (order(2), Barrier::new(64));
    let answers: Vec<_> = std::thread::scope(|scope| {
        let send = || {
            barrier.wait();
            process.place("order-42", &body).unwrap()
        };
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(send)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (202, &answers[0].body), "{}", answer.body);
    }
    let saga = process.finished(answers[0].json()["saga_id"].as_str().unwrap());
    assert_eq!(saga["status"], "completed", "{saga}");
    check_order(place, &process, &saga);
    check_stock(place, 300_003);
    assert_eq!(process.get("/api/v1/sagas").json()["total"], 1);

    let again = process.place("order-42", &body.replace("29.99", "29.990")).unwrap();
    assert_eq!(
        (again.status, &again.body),
        (202, &answers[0].body),
        "the same order in other words"
    );
    let detail =
        process.place("order-42", &order(3)).unwrap().problem(422, "idempotency_key_reused");
    assert!(detail.contains("order-42"), "{detail}");

    let other = process.place("order-43", &body).unwrap().json();
    let without: Vec<_> = (0..2).map(|_| process.place("", &body).unwrap().json()).collect();
    let mut ids: Vec<_> = without.iter().chain([&other]).map(|one| &one["order_id"]).collect();
    ids.push(&saga["order_id"]);
    ids.sort_by_key(ToString::to_string);
    ids.dedup();
    assert_eq!(ids.len(), 4, "other keys, and requests without one, are other orders");
}
