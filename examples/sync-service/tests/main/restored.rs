//! A server that was restored from an older backup.

use std::sync::atomic::Ordering;

use example_sync_service::client::Local;
use example_sync_service::document::Kind;
use serde_json::json;

use crate::devices::{Port, act, meet, shown};
use crate::place::{Place, get, operations, post, register, value};

/// The database's file, and what SQLite keeps beside it.
const FILES: [&str; 2] = ["", "-wal"];

/// A backup, taken while nobody writes.
fn backup(place: &Place) {
    let folder = place.folder.path();
    for end in FILES {
        let _ = std::fs::copy(
            folder.join(format!("sync.db{end}")),
            folder.join(format!("backup.db{end}")),
        );
    }
}

fn restore(place: &Place) {
    let folder = place.folder.path();
    let _ = std::fs::remove_file(folder.join("sync.db-shm"));
    for end in FILES {
        let _ = std::fs::remove_file(folder.join(format!("sync.db{end}")));
        let _ = std::fs::copy(
            folder.join(format!("backup.db{end}")),
            folder.join(format!("sync.db{end}")),
        );
    }
}

/// Stops it in order.
fn stop(mut program: examples_test_support::Program) {
    program.signal("TERM");
    assert!(program.ended().success());
}

#[test]
fn devices_send_again_what_a_restored_server_lost() {
    let place = Place::sqlite();
    let program = place.start();
    let mut phone = Local::new("phone", "ada");
    let mut tablet = Local::new("tablet", "ada");
    {
        let port = Port::of(&program);
        act(&mut phone, "n", Kind::PnCounter, "increment", json!(1));
        act(&mut phone, "title", Kind::LwwRegister, "set", json!("old"));
        meet(&mut phone, &port).unwrap();
        meet(&mut tablet, &port).unwrap();
    }
    stop(program);
    backup(&place);
    let program = place.start();
    {
        let port = Port::of(&program);
        act(&mut phone, "n", Kind::PnCounter, "increment", json!(10));
        act(&mut phone, "title", Kind::LwwRegister, "set", json!("new"));
        act(&mut tablet, "list", Kind::OrSet, "add", json!("milk"));
        meet(&mut phone, &port).unwrap();
        meet(&mut tablet, &port).unwrap();
        meet(&mut phone, &port).unwrap();
    }
    stop(program);
    restore(&place);

    let program = place.start();
    let port = Port::of(&program);
    // Others go on meanwhile: the log has the same numbers again, of other changes.
    register(&program, "third", "ada");
    for n in 0..8 {
        let ops = json!([{ "type": "increment", "op_id": format!("third-{n}") }]);
        post(&program, "/sync/upload", &operations("third", "n", "PNCounter", &ops)).of(200);
    }
    assert_eq!(value(&program, "n"), 9);
    // The phone only reads: the mark of its cursor is not the one of that number here.
    let synced = meet(&mut phone, &port).unwrap();
    assert_eq!(synced.reborn.as_deref(), Some("epoch_changed"));
    assert_eq!((synced.sent, synced.known), (4, 2), "what the backup had is known");
    // The tablet writes, and learns of it by the epoch.
    act(&mut tablet, "n", Kind::PnCounter, "increment", json!(100));
    let synced = meet(&mut tablet, &port).unwrap();
    assert_eq!(synced.reborn.as_deref(), Some("epoch_changed"));
    meet(&mut phone, &port).unwrap();
    for device in [&phone, &tablet] {
        assert_eq!(shown(device, "n"), 119, "1 + 10 + 8 + 100, each once");
        assert_eq!(shown(device, "title"), "new");
        assert_eq!(shown(device, "list"), json!(["milk"]));
    }
    assert_eq!(value(&program, "n"), 119);
    // Once is enough.
    assert_eq!(meet(&mut phone, &port).unwrap().reborn, None);
    assert_eq!(meet(&mut tablet, &port).unwrap().reborn, None);
}

#[test]
fn a_gap_in_the_uploads_shows_what_was_lost() {
    let place = Place::sqlite();
    let program = place.start();
    let mut phone = Local::new("phone", "ada");
    act(&mut phone, "n", Kind::PnCounter, "increment", json!(1));
    meet(&mut phone, &Port::of(&program)).unwrap();
    stop(program);
    backup(&place);
    let program = place.start();
    for _ in 0..2 {
        act(&mut phone, "n", Kind::PnCounter, "increment", json!(10));
        // The upload is in, the answer is lost: the phone never reads.
        let port = Port::of(&program);
        port.loses_answer.store(true, Ordering::Relaxed);
        meet(&mut phone, &port).unwrap_err();
        meet(&mut phone, &port).unwrap();
    }
    stop(program);
    restore(&place);
    let program = place.start();
    act(&mut phone, "n", Kind::PnCounter, "increment", json!(100));
    let epoch = phone.meta.epoch.clone();
    let synced = meet(&mut phone, &Port::of(&program)).unwrap();
    assert_eq!(synced.reborn.as_deref(), Some("epoch_changed"));
    assert_ne!(phone.meta.epoch, epoch);
    assert_eq!((shown(&phone, "n"), value(&program, "n")), (json!(121), json!(121)));
    assert_eq!(get(&program, "/sync/status/phone").of(200)["epoch"], phone.meta.epoch);
}

#[test]
fn a_restored_server_that_is_only_read_is_noticed_by_a_cursor_ahead() {
    let place = Place::sqlite();
    let program = place.start();
    register(&program, "d", "ada");
    stop(program);
    backup(&place);
    let program = place.start();
    let ops = json!([{ "type": "increment" }]);
    post(&program, "/sync/upload", &operations("d", "n", "GCounter", &ops)).of(200);
    let page = get(&program, "/sync/download?device_id=d").of(200);
    stop(program);
    restore(&place);
    let program = place.start();
    let cursor = page["next_cursor"].as_str().unwrap();
    let path = format!("/sync/download?device_id=d&cursor={cursor}");
    get(&program, &path).problem(409, "epoch_changed");
    let now = get(&program, "/sync/download?device_id=d").of(200);
    assert_ne!(now["epoch"], page["epoch"]);
    get(&program, &path).problem(409, "epoch_changed");
}
