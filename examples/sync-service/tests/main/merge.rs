//! Every type, built by its operations: the merge is the same for swapped arguments, and deltas add up
//! to the state.

use example_sync_service::document::{Author, Document, Kind, Operation};
use example_sync_service::merge::merge;
use potter_crdt::{SkewGuard, Timestamp};
use serde_json::{Value, json};

use crate::place::{Place, get, post, register, upload};

/// Operations of a type, with all that it has.
fn operations(kind: Kind, salt: u64) -> Vec<Value> {
    let at = format!("2024-01-01T10:00:0{salt}Z");
    match kind {
        Kind::LwwRegister | Kind::MvRegister => {
            vec![json!({ "type": "set", "value": { "n": salt }, "timestamp": at })]
        }
        Kind::GCounter => vec![json!({ "type": "increment", "value": salt + 1 })],
        Kind::PnCounter => {
            vec![json!({ "type": "increment" }), json!({ "type": "decrement", "value": salt + 2 })]
        }
        Kind::ResettableCounter => vec![
            json!({ "type": "increment", "value": 7 }),
            json!({ "type": "reset" }),
            json!({ "type": "increment", "value": salt }),
        ],
        Kind::BoundedCounter => vec![
            json!({ "type": "increment", "value": 5 }),
            json!({ "type": "transfer", "value": 2, "to": "other" }),
            json!({ "type": "decrement", "value": 1 }),
        ],
        Kind::GSet => vec![json!({ "type": "add", "value": salt })],
        Kind::TwoPhaseSet | Kind::OrSet => vec![
            json!({ "type": "add", "value": "both" }),
            json!({ "type": "add", "value": salt }),
            json!({ "type": "remove", "value": if salt == 1 { json!("both") } else { json!(9) } }),
        ],
        Kind::LwwMap => vec![
            json!({ "type": "set", "key": "k", "value": salt, "timestamp": at }),
            json!({ "type": "set", "key": "gone", "value": salt, "timestamp": at }),
            json!({ "type": "delete", "key": "gone", "timestamp": at }),
        ],
        Kind::OrMap => vec![
            json!({ "type": "set", "key": "k", "value": salt, "timestamp": at }),
            json!({ "type": "set", "key": "gone", "value": salt, "timestamp": at }),
            json!({ "type": "remove", "key": "gone" }),
        ],
        Kind::EwFlag => {
            let last = if salt == 1 { "disable" } else { "enable" };
            vec![json!({ "type": "enable" }), json!({ "type": last })]
        }
        Kind::Rga => vec![
            json!({ "type": "insert", "index": 0, "value": format!("Grüße {salt}") }),
            json!({ "type": "delete", "index": 1, "count": 2 }),
        ],
    }
}

fn build(kind: Kind, device: &str, salt: u64) -> Document {
    let mut document = Document::new(kind);
    let mut guard = SkewGuard::default();
    for op in operations(kind, salt) {
        let op: Operation = serde_json::from_value(op).unwrap();
        let now = Timestamp::parse("2024-01-02T00:00:00Z").unwrap();
        let mut author = Author { device, incarnation: 1, epoch: "e", now, guard: &mut guard };
        let before = document.clone();
        document.apply(&op, &mut author).unwrap();
        // A delta is what the one before lacks, also twice.
        let delta = document.delta_against(&before).unwrap();
        let mut joined = before;
        joined.join(&delta).unwrap();
        joined.join(&delta).unwrap();
        assert_eq!(joined.to_bytes(), document.to_bytes(), "{kind:?}");
    }
    let again = Document::from_bytes(kind, &document.to_bytes()).unwrap();
    assert_eq!(again.to_json(), document.to_json(), "{kind:?}");
    document
}

#[test]
fn the_merge_of_every_type_is_the_same_for_swapped_arguments() {
    assert_eq!(Kind::ALL.len(), 13);
    for kind in Kind::ALL.iter().copied() {
        let (one, two) = (build(kind, "a", 1).to_json(), build(kind, "b", 2).to_json());
        let merged = merge(kind, &one, &two).unwrap();
        assert_eq!(merged, merge(kind, &two, &one).unwrap(), "{kind:?}");
        // And joined again with either, the same.
        let state = &merged["state"];
        assert_eq!(&merge(kind, state, &one).unwrap()["state"], state, "{kind:?}");
        let envelope = json!({ "type": kind.name(), "version": 1, "state": two });
        assert_eq!(merge(kind, &one, &envelope).unwrap(), merged, "{kind:?}");
        assert!(merge(kind, &one, &json!("nonsense")).is_err(), "{kind:?}");
    }
}

#[test]
fn equal_instants_do_not_tie() {
    let at = "2024-01-01T10:00:00Z";
    let one = json!({ "value": "x", "timestamp": at, "node_id": "same" });
    let two = json!({ "value": "y", "timestamp": at, "node_id": "same" });
    let merged = merge(Kind::LwwRegister, &one, &two).unwrap();
    assert_eq!(merged, merge(Kind::LwwRegister, &two, &one).unwrap());
    assert_eq!(merged["value"], "y");
    let missing = json!({ "value": "x", "timestamp": at });
    let problem = merge(Kind::LwwRegister, &missing, &two).unwrap_err();
    assert_eq!(problem.errors[0].field, "local_state.node_id");
    // Two histories of one actor are refused, in both orders.
    let (a, b) = (json!({ "x": [2, 0] }), json!({ "x": [0, 2] }));
    for (local, remote) in [(&a, &b), (&b, &a)] {
        let problem = merge(Kind::PnCounter, local, remote).unwrap_err();
        assert_eq!((problem.status, &*problem.code), (409, "actor_reused"));
    }
}

#[test]
fn what_a_device_downloads_is_what_the_server_has() {
    let place = Place::sqlite();
    let program = place.start();
    for device in ["a", "b"] {
        register(&program, device, "ada");
    }
    let start = get(&program, "/sync/download?device_id=a").of(200);
    for kind in Kind::ALL.iter().copied() {
        for (device, salt) in [("a", 1), ("b", 2)] {
            let ops = json!(operations(kind, salt));
            let answer = upload(&program, device, kind.name(), kind.name(), &ops);
            assert_eq!(answer["rejected"], 0, "{kind:?} {answer}");
        }
    }
    let cursor = start["next_cursor"].as_str().unwrap();
    let path = format!("/sync/download?device_id=a&limit=500&cursor={cursor}");
    let page = get(&program, &path).of(200);
    for kind in Kind::ALL.iter().copied() {
        let mut mine = Document::new(kind);
        let deltas = page["changes"].as_array().unwrap();
        for change in deltas.iter().rev().filter(|one| one["entity_id"] == kind.name()) {
            mine.join(&Document::from_json(kind, &change["delta"]).unwrap()).unwrap();
        }
        let name = kind.name();
        let server = get(&program, &format!("/crdt/state/document/{name}")).of(200);
        assert_eq!(mine.to_json(), server["state"], "{kind:?}: in reverse order, too");
        assert_eq!(mine.value(), server["value"], "{kind:?}");
        let body = json!({ "crdt_type": name, "local_state": server["state"], "remote_state": server["state"] });
        assert_eq!(post(&program, "/crdt/merge", &body).of(200)["state"], server["state"]);
    }
}
