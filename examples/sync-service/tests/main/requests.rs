//! The published requests, registration, tokens, visibility, and bad input.

use examples_test_support::commands;
use serde_json::{Value, json};

use crate::place::{API, Place, get, operations, post, register, upload, value};

crate::on_every_store! {
    the_published_requests_work;
    a_device_is_registered_once;
    users_do_not_see_each_other;
    vector_clocks_count_and_compare;
    what_a_store_can_not_keep_is_refused_before;
}

fn the_published_requests_work(place: &Place) {
    let program = place.start();
    let registered = register(&program, "device-123", "user-456");
    assert_eq!(registered["incarnation"], 1);
    let set = json!([{ "type": "set", "value": "hello", "timestamp": "2024-01-01T10:00:00Z" }]);
    let uploaded = upload(&program, "device-123", "doc-1", "LWWRegister", &set);
    assert_eq!(uploaded["results"][0]["status"], "applied");
    let page = get(&program, "/sync/download?device_id=device-123").of(200);
    assert_eq!(page["changes"][0]["entity_id"], "doc-1");
    assert_eq!(page["changes"][0]["delta"]["store"][0]["value"]["value"], "hello");
    assert_eq!(page["has_more"], false);
    for path in ["document/doc-1", "LWWRegister/doc-1"] {
        let state = get(&program, &format!("/crdt/state/{path}")).of(200);
        assert_eq!(state["value"], "hello");
        assert_eq!(state["timestamp"], "2024-01-01T10:00:00Z");
        assert_eq!(state["node_id"], "device-123");
    }
    let one = json!({ "value": "Hello from Device 1", "timestamp": "2024-01-01T10:00:00Z", "node_id": "device1" });
    let two = json!({ "value": "Hello from Device 2", "timestamp": "2024-01-01T11:00:00Z", "node_id": "device2" });
    for (local, remote) in [(&one, &two), (&two, &one)] {
        let body =
            json!({ "crdt_type": "LWWRegister", "local_state": local, "remote_state": remote });
        let merged = post(&program, "/crdt/merge", &body).of(200);
        assert_eq!(merged["value"], "Hello from Device 2");
        assert_eq!(merged["timestamp"], "2024-01-01T11:00:00Z");
    }
}

fn a_device_is_registered_once(place: &Place) {
    let program = place.start();
    let body = json!({ "device_id": "d", "user_id": "ada" });
    let first = post(&program, "/sync/register-device", &body).of(201);
    let again = post(&program, "/sync/register-device", &body).of(200);
    for same in ["token", "incarnation", "epoch"] {
        assert_eq!(first[same], again[same]);
    }
    let other = json!({ "device_id": "d", "user_id": "bob" });
    post(&program, "/sync/register-device", &other).problem(409, "device_of_other_user");
    let reissue = json!({ "device_id": "d", "user_id": "ada", "reissue": true });
    let path = format!("{API}/sync/register-device");
    let second = program.post_once(&path, "k1", &reissue).of(201);
    assert_eq!(second["incarnation"], 2);
    assert_eq!(program.post_once(&path, "k1", &reissue).of(200), second);
    program.post_once(&path, "k1", &body).problem(422, "idempotency_key_reused");
    for bad in ["", &"x".repeat(129), "a\nb"] {
        let body = json!({ "device_id": bad, "user_id": "ada" });
        post(&program, "/sync/register-device", &body).problem(422, "invalid_id");
    }
    get(&program, "/sync/download?device_id=nobody").problem(404, "unknown_device");
}

#[test]
fn a_token_is_of_one_device_and_needed_where_others_can_reach_it() {
    let place = Place::sqlite();
    let program = place.start_with(&[("SYNC_TOKENS", "required")]);
    let one = register(&program, "one", "ada");
    let two = register(&program, "two", "ada");
    let ask = |device: &str, token: Option<&str>| {
        let header = token.map(|token| format!("authorization: Bearer {token}"));
        let headers: Vec<&str> = header.iter().map(String::as_str).collect();
        let path = format!("{API}/sync/download?device_id={device}");
        program.send("GET", &path, &headers, "").unwrap()
    };
    let token = |device: &Value| device["token"].as_str().unwrap().to_owned();
    ask("one", None).problem(401, "missing_token");
    ask("one", Some(&token(&two))).problem(401, "invalid_token");
    ask("one", Some("nonsense")).problem(401, "invalid_token");
    ask("one", Some(&token(&one))).of(200);
    get(&program, "/conflicts").problem(422, "missing_device");
    get(&program, "/conflicts?device_id=one").problem(401, "missing_token");
    // Where tokens are optional, a wrong one is still wrong.
    drop(program);
    let program = place.start();
    let bearer = format!("authorization: Bearer {}", token(&two));
    let path = format!("{API}/sync/status/one");
    program.send("GET", &path, &[&bearer], "").unwrap().problem(401, "invalid_token");
    get(&program, "/sync/status/one").of(200);
}

fn users_do_not_see_each_other(place: &Place) {
    let program = place.start();
    register(&program, "a", "ada");
    register(&program, "b", "bob");
    let one = json!([{ "type": "increment", "op_id": "same" }]);
    upload(&program, "a", "n", "GCounter", &one);
    let theirs = upload(&program, "b", "n", "GCounter", &one);
    assert_eq!(theirs["results"][0]["status"], "applied", "an op_id is the user's own");
    get(&program, "/crdt/state/document/n").problem(409, "ambiguous_entity");
    let other = json!([{ "type": "set", "value": "secret" }]);
    upload(&program, "a", "mine", "LWWRegister", &other);
    let page = get(&program, "/sync/download?device_id=b").of(200);
    assert_eq!(page["changes"].as_array().unwrap().len(), 1);
    get(&program, "/crdt/state/document/mine?device_id=b").problem(404, "entity_not_found");
    assert_eq!(get(&program, "/crdt/state/document/mine?device_id=a").of(200)["value"], "secret");
    let mine = get(&program, "/sync/download?device_id=a").of(200);
    let cursor = mine["next_cursor"].as_str().unwrap();
    get(&program, &format!("/sync/download?device_id=b&cursor={cursor}"))
        .problem(400, "invalid_cursor");
}

fn vector_clocks_count_and_compare(place: &Place) {
    let program = place.start();
    register(&program, "phone", "ada");
    assert_eq!(get(&program, "/vector-clock/phone").of(200)["vector_clock"], json!({}));
    let path = format!("{API}/vector-clock/phone/increment");
    let counted = program.send("POST", &path, &[], "").unwrap().of(200);
    assert_eq!(counted["vector_clock"], json!({ "phone": 1 }));
    let observed = json!({ "observed": { "tablet": 3 } });
    let once = program.post_once(&path, "key", &observed).of(200);
    assert_eq!(once["vector_clock"], json!({ "phone": 2, "tablet": 3 }));
    assert_eq!(once["observed_is"], "concurrent");
    assert_eq!(program.post_once(&path, "key", &observed).of(200), once);
    program.post_once(&path, "key", &json!({})).problem(422, "idempotency_key_reused");
    upload(&program, "phone", "n", "GCounter", &json!([{ "type": "increment" }]));
    let now = get(&program, "/vector-clock/phone").of(200);
    assert_eq!(now["vector_clock"], json!({ "phone": 3, "tablet": 3 }));
}

/// NUL in texts, and numbers that no store counts to. One bad operation stops no other.
fn what_a_store_can_not_keep_is_refused_before(place: &Place) {
    let program = place.start();
    for device in ["one", "two"] {
        register(&program, device, "ada");
        for kind in ["LWWMap", "ORMap"] {
            let ops = json!([
                { "type": "set", "key": "a\u{0}b", "value": 1 },
                { "type": "set", "key": "a", "value": device },
                { "type": "set", "key": "b", "value": "x\u{0}y", "op_id": format!("{device} {kind}\u{0}") },
            ]);
            let answer = upload(&program, device, kind, kind, &ops);
            assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(1)));
            assert_eq!(answer["results"][0]["code"], "invalid_key");
        }
    }
    for path in ["/crdt/state/document/%00", "/crdt/state/%00/n", "/sync/status/%00"] {
        get(&program, path).problem(422, "invalid_id");
    }
    get(&program, "/conflicts/%00").problem(404, "conflict_not_found");
    let all = get(&program, "/conflicts?offset=18446744073709551615").of(200);
    assert_eq!((&all["conflicts"], &all["total"]), (&json!([]), &json!(2)));
    let increment = |observed: Value| {
        post(&program, "/vector-clock/one/increment", &json!({ "observed": observed }))
    };
    let many: serde_json::Map<_, _> = (0..1_000).map(|n| (format!("d{n}"), json!(1))).collect();
    increment(json!(many)).problem(422, "invalid_vector_clock");
    increment(json!({ "one": u64::MAX })).problem(422, "invalid_vector_clock");
    increment(json!({ "a\u{0}": 1 })).problem(422, "invalid_id");
    assert_eq!(get(&program, "/vector-clock/one").of(200)["vector_clock"], json!({ "one": 2 }));
}

#[test]
fn bad_input_is_named() {
    let place = Place::sqlite();
    let program = place.start();
    register(&program, "d", "ada");
    let one = json!([{ "type": "increment" }]);
    let detail = post(&program, "/sync/upload", &operations("d", "n", "Counter", &one))
        .problem(422, "unknown_crdt_type");
    for name in ["LWWRegister", "MVRegister", "GCounter", "PNCounter", "ORSet", "RGA", "EWFlag"] {
        assert!(detail.contains(name), "{detail}");
    }
    let merge = json!({ "crdt_type": "Tree", "local_state": {}, "remote_state": {} });
    post(&program, "/crdt/merge", &merge).problem(422, "unknown_crdt_type");
    let many = json!(vec![json!({ "type": "increment" }); 1001]);
    post(&program, "/sync/upload", &operations("d", "n", "GCounter", &many))
        .problem(413, "too_many_operations");
    let mut zero = operations("d", "n", "GCounter", &one);
    zero["sequence"] = json!(0);
    post(&program, "/sync/upload", &zero).problem(422, "invalid_sequence");
    let mut unknown = operations("d", "n", "GCounter", &one);
    unknown["colour"] = json!("red");
    post(&program, "/sync/upload", &unknown).problem(422, "invalid_body");
    post(&program, "/sync/upload", &operations("d", "", "GCounter", &one))
        .problem(422, "invalid_id");
    for limit in ["0", "501"] {
        get(&program, &format!("/sync/download?device_id=d&limit={limit}"))
            .problem(422, "invalid_limit");
    }
    for cursor in ["x", "a.b", "."] {
        get(&program, &format!("/sync/download?device_id=d&cursor={cursor}"))
            .problem(400, "invalid_cursor");
    }
    get(&program, "/crdt/state/document/none").problem(404, "entity_not_found");
    get(&program, "/conflicts/none").problem(404, "conflict_not_found");
    get(&program, "/conflicts?status=odd").problem(422, "invalid_status");
    let openapi = program.get("/openapi.json").of(200);
    assert!(openapi["paths"]["/api/v1/crdt/merge"]["post"].is_object());
    assert_eq!(program.get("/health").of(200)["service"], "sync-service");
    upload(&program, "d", "ok", "GCounter", &one);
    assert_eq!(value(&program, "ok"), 1);
}

#[test]
fn the_requests_of_the_readme_work() {
    let place = Place::sqlite();
    let program = place.start();
    let requests = commands(include_str!("../../README.md"));
    assert!(requests.len() >= 12, "{}", requests.len());
    let mut conflict = String::new();
    for command in requests {
        let command = command.with("CONFLICT", &conflict);
        let answer = command.send(&program);
        assert_eq!(answer.status, command.status, "{command:?}: {}", answer.body);
        if let Some(id) = answer.json()["conflicts"][0]["id"].as_str() {
            id.clone_into(&mut conflict);
        }
    }
}
