//! Devices whose clocks are wrong.

use example_sync_service::client::Local;
use example_sync_service::document::Kind;
use serde_json::{Value, json};

use crate::devices::{Port, act_at, meet, shown, wall};
use crate::place::{Place, get, register, upload, value};

crate::on_every_store! {
    the_past_is_accepted_and_the_far_future_set_back;
    who_reads_and_then_writes_wins;
}

fn set(value: &str, timestamp: &str) -> Value {
    json!([{ "type": "set", "value": value, "timestamp": timestamp }])
}

fn the_past_is_accepted_and_the_far_future_set_back(place: &Place) {
    let program = place.start();
    register(&program, "wild", "ada");
    register(&program, "sane", "ada");
    let past = upload(&program, "wild", "p", "LWWRegister", &set("old", "1999-01-01T00:00:00Z"));
    assert_eq!(past["results"][0]["status"], "applied");
    assert_eq!(value(&program, "p"), "old");
    // In its own order, within a batch and across batches and restarts.
    let two = json!([
        { "type": "set", "value": "first", "timestamp": "9999-01-01T00:00:00Z" },
        { "type": "set", "value": "second", "timestamp": "9999-01-01T00:00:01Z" },
    ]);
    let clamped = upload(&program, "wild", "r", "LWWRegister", &two);
    for result in clamped["results"].as_array().unwrap() {
        assert_eq!(result["status"], "clamped");
        assert!(result["clamped_by_ms"].as_u64().unwrap() > 1_000_000);
        assert!(result["effective_timestamp"].as_str().unwrap() < "2200");
    }
    assert!(clamped["server_time"].as_str().unwrap() < "2200");
    assert_eq!(value(&program, "r"), "second");
    drop(program);
    let program = place.start();
    upload(&program, "wild", "r", "LWWRegister", &set("third", "9999-01-01T00:00:02Z"));
    assert_eq!(value(&program, "r"), "third");
    // A write of a minute from now is within bounds, and one after the clamped ones wins over them.
    let soon = wall(30).to_string();
    let honest = upload(&program, "sane", "r", "LWWRegister", &set("honest", &soon));
    assert_eq!(honest["results"][0]["status"], "applied", "the server's clock did not follow");
    assert_eq!(value(&program, "r"), "honest");
    // Instants are compared, not texts.
    upload(&program, "sane", "t", "LWWRegister", &set("noon", "2024-01-01T12:00:00+02:00"));
    upload(&program, "sane", "t", "LWWRegister", &set("later", "2024-01-01T10:00:00.5Z"));
    assert_eq!(value(&program, "t"), "later");
    let bad = upload(&program, "sane", "t", "LWWRegister", &set("x", "yesterday"));
    assert_eq!(bad["results"][0]["code"], "invalid_timestamp");
}

fn who_reads_and_then_writes_wins(place: &Place) {
    let program = place.start();
    let port = Port::of(&program);
    let mut fast = Local::new("fast", "ada");
    let mut slow = Local::new("slow", "ada");
    // 40 s ahead: within bounds, so nothing is set back. An hour behind: it reads, and wins.
    act_at(&mut fast, "r", Kind::LwwRegister, "set", json!("fast"), wall(40));
    meet(&mut fast, &port).unwrap();
    meet(&mut slow, &port).unwrap();
    act_at(&mut slow, "r", Kind::LwwRegister, "set", json!("slow"), wall(-3600));
    assert_eq!(shown(&slow, "r"), "slow", "also before it is sent");
    meet(&mut slow, &port).unwrap();
    meet(&mut fast, &port).unwrap();
    assert_eq!((shown(&fast, "r"), value(&program, "r")), (json!("slow"), json!("slow")));
    // A device far ahead of all that reads what it wrote itself, after it was set back.
    let mut wild = Local::new("wild", "ada");
    for n in 0..3 {
        act_at(&mut wild, "w", Kind::LwwRegister, "set", json!(n), wall(1_000_000 + n));
        let synced = meet(&mut wild, &port).unwrap();
        assert_eq!(synced.clamped, 1);
        assert_eq!(value(&program, "w"), n);
    }
    // And one that reads it then.
    meet(&mut slow, &port).unwrap();
    act_at(&mut slow, "w", Kind::LwwRegister, "set", json!("slow"), wall(-3600));
    meet(&mut slow, &port).unwrap();
    assert_eq!(value(&program, "w"), "slow");
    assert_eq!(get(&program, "/conflicts?status=open").of(200)["total"], 0);
}
