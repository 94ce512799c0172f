//! Values side by side: found, listed, ended.

use example_sync_service::client::Local;
use example_sync_service::document::Kind;
use examples_test_support::Program;
use serde_json::{Value, json};

use crate::devices::{Port, act_at, meet, shown, wall};
use crate::place::{API, Place, get, post, register, upload, value};

crate::on_every_store! {
    a_conflict_is_listed_and_ended_by_hand;
    a_conflict_is_ended_by_a_policy;
    a_later_write_ends_a_conflict;
}

/// Two devices write without having seen each other.
fn disagree(program: &Program, entity: &str, kind: &str, one: &Value, two: &Value) -> String {
    for (device, value, at) in [("one", one, "10:00"), ("two", two, "11:00")] {
        register(program, device, "ada");
        let mut op =
            json!({ "type": "set", "value": value, "timestamp": format!("2024-01-01T{at}:00Z") });
        if kind.ends_with("Map") {
            op["key"] = json!("k");
        }
        upload(program, device, entity, kind, &json!([op]));
    }
    let list = get(program, "/conflicts?status=open&device_id=one").of(200);
    let found = list["conflicts"].as_array().unwrap();
    let found = found.iter().find(|one| one["entity_id"] == entity).unwrap();
    found["id"].as_str().unwrap().to_owned()
}

fn a_conflict_is_listed_and_ended_by_hand(place: &Place) {
    let program = place.start();
    let id = disagree(&program, "title", "LWWRegister", &json!("mine"), &json!("yours"));
    assert_eq!(value(&program, "title"), "yours", "the last writer wins");
    let conflict = get(&program, &format!("/conflicts/{id}")).of(200);
    let values: Vec<&Value> =
        conflict["values"].as_array().unwrap().iter().map(|one| &one["value"]).collect();
    assert_eq!(values, ["yours", "mine"], "what the register dropped is there");
    assert_eq!(conflict["values"][0]["shown"], true);
    register(&program, "stranger", "bob");
    get(&program, &format!("/conflicts/{id}?device_id=stranger"))
        .problem(404, "conflict_not_found");
    let path = format!("{API}/conflicts/{id}/resolve");
    program.post(&path, &json!({})).problem(422, "invalid_resolution");
    program.post(&path, &json!({ "choose": 7 })).problem(422, "invalid_resolution");
    let resolved = program.post_once(&path, "k", &json!({ "choose": 1 })).of(200);
    assert_eq!(resolved["value"], "mine");
    assert_eq!(program.post_once(&path, "k", &json!({ "choose": 1 })).of(200), resolved);
    program.post_once(&path, "k", &json!({ "choose": 0 })).problem(422, "idempotency_key_reused");
    program.post(&path, &json!({ "value": "x" })).problem(409, "conflict_ended");
    assert_eq!(value(&program, "title"), "mine");
    let ended = get(&program, &format!("/conflicts/{id}")).of(200);
    assert_eq!((&ended["status"], &ended["resolution"]), (&json!("resolved"), &json!("manual")));
    // The devices get it as any other change, and a value of one's own is taken too.
    let page = get(&program, "/sync/download?device_id=one").of(200);
    let entity = page["changes"].as_array().unwrap().iter().find(|c| c["entity_id"] == "title");
    assert_eq!(entity.unwrap()["delta"]["store"].as_array().unwrap().len(), 1);
    let id = disagree(&program, "note", "MVRegister", &json!(1), &json!(2));
    assert_eq!(value(&program, "note"), json!([2, 1]));
    let path = format!("/conflicts/{id}/resolve");
    post(&program, &path, &json!({ "value": null, "device_id": "one" })).of(200);
    assert_eq!(value(&program, "note"), json!([null]));
}

fn a_conflict_is_ended_by_a_policy(place: &Place) {
    let program = place.start();
    let (one, two) = (json!(5), json!(3));
    for (at, (kind, policy, expected)) in [
        ("LWWRegister", json!({}), json!(3)),
        ("LWWRegister", json!({ "policy": "first_writer_wins" }), json!(5)),
        ("LWWMap", json!({ "policy": "max" }), json!({ "k": 5 })),
        ("ORMap", json!({ "policy": "min" }), json!({ "k": [3] })),
        ("MVRegister", json!({ "policy": "prefer_device", "device_id": "one" }), json!([5])),
    ]
    .into_iter()
    .enumerate()
    {
        let entity = format!("e{at}");
        let id = disagree(&program, &entity, kind, &one, &two);
        let path = format!("{API}/conflicts/{id}/auto-resolve");
        let answer = program.post(&path, &policy).of(200);
        assert_eq!(answer["status"], "resolved");
        assert_eq!(value(&program, &entity), expected, "{kind} {policy}");
    }
    let id = disagree(&program, "tags", "LWWRegister", &json!(["a", "b"]), &json!(["b", "c"]));
    let path = format!("{API}/conflicts/{id}/auto-resolve");
    program.post(&path, &json!({ "policy": "max" })).problem(422, "policy_does_not_fit");
    program.post(&path, &json!({ "policy": "odd" })).problem(422, "invalid_body");
    program.post(&path, &json!({ "policy": "union" })).of(200);
    assert_eq!(value(&program, "tags"), json!(["a", "b", "c"]));
    // The body may be missing altogether.
    let id = disagree(&program, "last", "LWWRegister", &one, &two);
    let path = format!("{API}/conflicts/{id}/auto-resolve");
    assert_eq!(program.send("POST", &path, &[], "").unwrap().of(200)["value"], 3);
    assert_eq!(get(&program, "/conflicts?status=open").of(200)["total"], 0);
    assert_eq!(get(&program, "/conflicts?status=resolved&limit=2").of(200)["total"], 7);
}

fn a_later_write_ends_a_conflict(place: &Place) {
    let program = place.start();
    let port = Port::of(&program);
    let mut one = Local::new("phone", "ada");
    let mut two = Local::new("tablet", "ada");
    act_at(&mut one, "r", Kind::MvRegister, "set", json!("a"), wall(-9));
    act_at(&mut two, "r", Kind::MvRegister, "set", json!("b"), wall(-8));
    meet(&mut one, &port).unwrap();
    meet(&mut two, &port).unwrap();
    assert_eq!(shown(&two, "r"), json!(["b", "a"]));
    assert_eq!(get(&program, "/conflicts?status=open").of(200)["total"], 1);
    act_at(&mut two, "r", Kind::MvRegister, "set", json!("both"), wall(-7));
    meet(&mut two, &port).unwrap();
    meet(&mut one, &port).unwrap();
    assert_eq!(shown(&one, "r"), json!(["both"]));
    let ended = get(&program, "/conflicts").of(200);
    assert_eq!(ended["conflicts"][0]["status"], "superseded");
    // At the same place again.
    act_at(&mut one, "r", Kind::MvRegister, "set", json!("c"), wall(-6));
    act_at(&mut two, "r", Kind::MvRegister, "set", json!("d"), wall(-5));
    meet(&mut one, &port).unwrap();
    meet(&mut two, &port).unwrap();
    assert_eq!(get(&program, "/conflicts?status=open").of(200)["total"], 1);
}
