//! Operations: each once, each with its own answer.

use std::sync::atomic::Ordering;
use std::thread;

use example_sync_service::client::Local;
use example_sync_service::document::Kind;
use serde_json::{Value, json};

use crate::devices::{Port, act, copy, meet, meet_at_last, shown};
use crate::place::{API, Place, operations, post, register, upload, value};

crate::on_every_store! {
    one_bad_operation_of_a_hundred_is_set_aside;
    an_operation_is_counted_once_by_its_id;
    a_batch_is_answered_once;
    two_uploads_of_one_user_at_once_lose_nothing;
    a_copied_device_goes_on_as_another_incarnation;
}

fn one_bad_operation_of_a_hundred_is_set_aside(place: &Place) {
    let program = place.start();
    register(&program, "d", "ada");
    let mut ops = vec![json!({ "type": "increment", "value": 1 }); 100];
    ops[42] = json!({ "type": "increment", "value": "many" });
    let answer = upload(&program, "d", "n", "GCounter", &json!(ops));
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(99), &json!(1)));
    let bad = &answer["results"][42];
    assert_eq!((&bad["status"], &bad["code"]), (&json!("rejected"), &json!("invalid_value")));
    assert_eq!(value(&program, "n"), 99);
    // Each in its own way.
    for (op, code) in [
        (json!({ "type": "decrement" }), "unknown_operation"),
        (json!({ "type": "increment", "colour": "red" }), "malformed_operation"),
        (json!(7), "malformed_operation"),
        (json!({ "type": "increment", "value": -1 }), "invalid_value"),
        (json!({ "type": "increment", "value": "18446744073709551615" }), "overflow"),
        (json!({ "type": "merge", "value": { "other#1": 3 } }), "foreign_events"),
        (json!({ "type": "merge", "value": [] }), "malformed_state"),
        (json!({ "type": "increment", "op_id": "" }), "invalid_op_id"),
    ] {
        let answer = upload(&program, "d", "n", "GCounter", &json!([op]));
        assert_eq!(answer["results"][0]["code"], code, "{answer}");
    }
    let other = upload(&program, "d", "n", "PNCounter", &json!([{ "type": "increment" }]));
    assert_eq!(other["results"][0]["code"], "type_mismatch");
    // A value may be replaced by another as large; two of them are too large.
    let large = |kind: &str, op: &str, fill: &str| {
        let ops = json!([{ "type": op, "value": fill.repeat(600_000) }]);
        upload(&program, "d", kind, kind, &ops)["results"][0].clone()
    };
    for (kind, op, expected) in [("LWWRegister", "set", "applied"), ("GSet", "add", "rejected")] {
        assert_eq!(large(kind, op, "x")["status"], "applied");
        assert_eq!(large(kind, op, "y")["status"], expected, "{kind}");
    }
    assert_eq!(large("GSet", "add", "z")["code"], "entity_too_large");
    assert_eq!(value(&program, "GSet").as_array().unwrap().len(), 1);
    assert_eq!(value(&program, "n"), 99);
}

fn an_operation_is_counted_once_by_its_id(place: &Place) {
    let program = place.start();
    register(&program, "one", "ada");
    register(&program, "two", "ada");
    let ops = json!([{ "type": "increment", "op_id": "a" }, { "type": "increment", "op_id": "b" }]);
    upload(&program, "one", "n", "GCounter", &ops);
    let again = upload(&program, "two", "n", "GCounter", &ops);
    assert_eq!(again["results"][0]["status"], "duplicate");
    let mixed = json!([
        { "type": "increment", "op_id": "c" },
        { "type": "increment", "value": 5, "op_id": "a" },
        { "type": "increment", "op_id": "c" },
        { "type": "increment", "op_id": "d" },
    ]);
    let answer = upload(&program, "two", "n", "GCounter", &mixed);
    let status: Vec<&Value> =
        answer["results"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(status, ["applied", "rejected", "duplicate", "applied"]);
    let reused = &answer["results"][1];
    assert_eq!((&reused["code"], &reused["status_code"]), (&json!("op_id_reused"), &json!(409)));
    assert_eq!(value(&program, "n"), 4);
    // Without ids nobody can tell, and the answer says so.
    let plain = json!([{ "type": "increment" }]);
    let first = upload(&program, "one", "m", "GCounter", &plain);
    assert_eq!(first["identity"], "none");
    assert!(first["note"].as_str().unwrap().contains("op_id"));
    upload(&program, "one", "m", "GCounter", &plain);
    assert_eq!(value(&program, "m"), 2);
    // A write is known by its instant and value.
    let set = json!([{ "type": "set", "value": 1, "timestamp": "2024-01-01T10:00:00Z" }]);
    upload(&program, "one", "r", "LWWRegister", &set);
    let again = upload(&program, "one", "r", "LWWRegister", &set);
    assert_eq!(again["results"][0]["status"], "duplicate");
}

fn a_batch_is_answered_once(place: &Place) {
    let mut program = place.start();
    register(&program, "d", "ada");
    let mut batch = operations("d", "n", "GCounter", &json!([{ "type": "increment" }]));
    batch["batch_id"] = json!("b1");
    let first = post(&program, "/sync/upload", &batch);
    assert_eq!(first.status, 200, "{}", first.body);
    // Also after a restart, and byte for byte.
    program.kill();
    let program = place.start();
    assert_eq!(post(&program, "/sync/upload", &batch).body, first.body);
    batch["changes"][0]["operations"][0]["value"] = json!(2);
    post(&program, "/sync/upload", &batch).problem(409, "batch_id_reused");
    let plain = operations("d", "n", "GCounter", &json!([{ "type": "increment" }]));
    let path = format!("{API}/sync/upload");
    let one = program.post_once(&path, "k", &plain);
    assert_eq!(program.post_once(&path, "k", &plain).body, one.body);
    program.post_once(&path, "k", &batch_without_id(&batch)).problem(422, "idempotency_key_reused");
    assert_eq!(value(&program, "n"), 2);
}

fn batch_without_id(batch: &Value) -> Value {
    let mut batch = batch.clone();
    batch.as_object_mut().unwrap().remove("batch_id");
    batch
}

/// Two processes on one database, and several threads on each: the compare-and-swap is all there is
/// between them.
fn two_uploads_of_one_user_at_once_lose_nothing(place: &Place) {
    let programs = [place.start(), place.start()];
    for device in ["d0", "d1", "d2", "d3"] {
        register(&programs[0], device, "ada");
    }
    thread::scope(|scope| {
        for (at, device) in ["d0", "d1", "d2", "d3"].into_iter().enumerate() {
            let program = &programs[at % 2];
            scope.spawn(move || {
                for _ in 0..15 {
                    let ops = json!([{ "type": "increment" }]);
                    let body = operations(device, "n", "PNCounter", &ops);
                    // Too many at once is said before anything is done.
                    while post(program, "/sync/upload", &body).status == 503 {}
                }
            });
        }
    });
    assert_eq!(value(&programs[0], "n"), 60);
    let page = programs[1].get(&format!("{API}/sync/status/d0")).of(200);
    assert_eq!(page["head"], 60, "one number for each change, without gaps");
}

fn a_copied_device_goes_on_as_another_incarnation(place: &Place) {
    let program = place.start();
    let port = Port::of(&program);
    let mut phone = Local::new("phone", "ada");
    act(&mut phone, "n", Kind::PnCounter, "increment", json!(1));
    meet(&mut phone, &port).unwrap();
    // A lost answer is no copy.
    act(&mut phone, "n", Kind::PnCounter, "increment", json!(2));
    port.loses_answer.store(true, Ordering::Relaxed);
    meet(&mut phone, &port).unwrap_err();
    let backup = copy(&phone);
    assert_eq!(meet(&mut phone, &port).unwrap().reborn, None);
    act(&mut phone, "n", Kind::PnCounter, "increment", json!(10));
    meet(&mut phone, &port).unwrap();
    // Restored from before: its frozen batch is the one that the server has.
    let mut restored = copy(&backup);
    assert_eq!(meet(&mut restored, &port).unwrap().reborn, None);
    act(&mut restored, "n", Kind::PnCounter, "increment", json!(100));
    let synced = meet(&mut restored, &port).unwrap();
    assert_eq!(synced.reborn.as_deref(), Some("stale_incarnation"));
    assert_eq!(restored.meta.incarnation, 2);
    act(&mut phone, "n", Kind::PnCounter, "increment", json!(1000));
    for at in [0, 1, 0] {
        let device = [&mut phone, &mut restored].into_iter().nth(at).unwrap();
        let synced = meet_at_last(device, &port);
        assert_eq!(synced.reborn, None, "both live on");
    }
    assert_eq!((shown(&phone, "n"), shown(&restored, "n")), (json!(1113), json!(1113)));
    assert_eq!(value(&program, "n"), 1113);
}
