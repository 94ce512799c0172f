//! Pages: safe to repeat, nothing lost, whatever is written meanwhile.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use examples_test_support::exchange;
use serde_json::{Value, json};

use crate::place::{API, Place, get, register, upload};

crate::on_every_store! {
    a_page_may_come_again_and_only_a_cursor_that_comes_back_moves;
    writers_during_paging_lose_nothing;
    a_snapshot_is_paged_while_entities_change;
}

fn page(program: &examples_test_support::Program, device: &str, more: &str) -> Value {
    get(program, &format!("/sync/download?device_id={device}{more}")).of(200)
}

fn cursor(page: &Value) -> String {
    format!("&cursor={}", page["next_cursor"].as_str().unwrap())
}

fn a_page_may_come_again_and_only_a_cursor_that_comes_back_moves(place: &Place) {
    let program = place.start();
    register(&program, "d", "ada");
    register(&program, "e", "ada");
    let start = page(&program, "d", "");
    assert_eq!(start["changes"], json!([]));
    for n in 0..5 {
        let set = json!([{ "type": "set", "value": n, "timestamp": "2024-01-01T10:00:00Z" }]);
        upload(&program, "e", &format!("r{n}"), "LWWRegister", &set);
    }
    let first = page(&program, "d", &format!("{}&limit=2", cursor(&start)));
    let again = page(&program, "d", &format!("{}&limit=2", cursor(&start)));
    assert_eq!(first["changes"], again["changes"]);
    assert_eq!(first["has_more"], true);
    let lag = |expected: u64| {
        let status = get(&program, "/sync/status/d").of(200);
        assert_eq!(status["lag"], expected, "{status}");
    };
    lag(5);
    let second = page(&program, "d", &format!("{}&limit=2", cursor(&first)));
    lag(3);
    let last = page(&program, "d", &format!("{}&limit=2", cursor(&second)));
    assert_eq!(last["has_more"], false);
    let empty = page(&program, "d", &cursor(&last));
    assert_eq!(empty["changes"], json!([]));
    lag(0);
    assert_eq!(get(&program, "/sync/status/d").of(200)["status"], "synced");
    let seqs: Vec<_> = [&first, &second, &last]
        .iter()
        .flat_map(|page| page["changes"].as_array().unwrap())
        .map(|change| change["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    // An old cursor is no step back.
    page(&program, "d", &cursor(&first));
    lag(0);
    // What a device wrote itself can be left out.
    let own = page(&program, "e", &format!("{}&include_own=false", cursor(&start)));
    assert_eq!((&own["changes"], &own["seq"]), (&json!([]), &json!(5)));
    // A wait ends when something comes.
    thread::scope(|scope| {
        let waiting = cursor(&last);
        let program = &program;
        let waiter = scope.spawn(move || page(program, "d", &format!("{waiting}&wait_ms=30000")));
        upload(program, "e", "late", "GCounter", &json!([{ "type": "increment" }]));
        assert_eq!(waiter.join().unwrap()["changes"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn a_wait_ends_with_the_program() {
    let place = Place::sqlite();
    let mut program = place.start();
    register(&program, "d", "ada");
    let start = page(&program, "d", "");
    let path = format!("{API}/sync/download?device_id=d{}&wait_ms=30000", cursor(&start));
    let address = program.address().to_owned();
    let waiter = thread::spawn(move || exchange(&address, "GET", &path, &[], ""));
    // The one who waits, and the one who asks for this.
    let waits = |metrics: &str| {
        let line = metrics.lines().find(|line| line.starts_with("http_requests_in_flight"));
        line.is_some_and(|line| line.ends_with(" 2"))
    };
    while !waits(&program.get("/metrics").body) {
        thread::sleep(std::time::Duration::from_millis(5));
    }
    program.signal("TERM");
    let answer = waiter.join().unwrap().unwrap().of(200);
    assert_eq!(answer["changes"], json!([]));
    assert_eq!(answer["has_more"], false);
    assert!(program.ended().success());
}

fn writers_during_paging_lose_nothing(place: &Place) {
    const WRITERS: usize = 4;
    const EACH: usize = 12;
    let program = place.start();
    register(&program, "reader", "ada");
    for writer in 0..WRITERS {
        register(&program, &format!("w{writer}"), "ada");
    }
    let mut at = cursor(&page(&program, "reader", ""));
    let done = AtomicBool::new(false);
    let mut seen: Vec<u64> = Vec::new();
    let mut entities = BTreeSet::new();
    thread::scope(|scope| {
        let (program, done) = (&program, &done);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    for n in 0..EACH {
                        let ops = json!([{ "type": "increment" }]);
                        upload(
                            program,
                            &format!("w{writer}"),
                            &format!("e{writer}-{n}"),
                            "GCounter",
                            &ops,
                        );
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        loop {
            let finished = done.load(Ordering::SeqCst);
            let page = page(program, "reader", &format!("{at}&limit=3"));
            for change in page["changes"].as_array().unwrap() {
                seen.push(change["seq"].as_u64().unwrap());
                entities.insert(change["entity_id"].as_str().unwrap().to_owned());
            }
            at = cursor(&page);
            if finished && page["has_more"] == false {
                break;
            }
        }
    });
    let all: Vec<u64> = (1..=(WRITERS * EACH) as u64).collect();
    assert_eq!(seen, all, "in order, without gaps, each once");
    assert_eq!(entities.len(), WRITERS * EACH);
}

fn a_snapshot_is_paged_while_entities_change(place: &Place) {
    let program = place.start();
    register(&program, "w", "ada");
    for n in 0..7 {
        upload(&program, "w", &format!("e{n}"), "GCounter", &json!([{ "type": "increment" }]));
    }
    register(&program, "new", "ada");
    let first = page(&program, "new", "&limit=3");
    assert_eq!((&first["snapshot"], &first["has_more"]), (&json!(true), &json!(true)));
    // Before the place where the snapshot is, behind it, and a new one before it.
    for entity in ["e0", "e6", "a-new-one"] {
        upload(&program, "w", entity, "GCounter", &json!([{ "type": "increment" }]));
    }
    let mut all = first["changes"].as_array().unwrap().clone();
    let (mut at, mut more) = (cursor(&first), true);
    while more {
        let page = page(&program, "new", &format!("{at}&limit=3"));
        all.extend(page["changes"].as_array().unwrap().clone());
        (at, more) = (cursor(&page), page["has_more"] == true);
    }
    let mut counters = std::collections::BTreeMap::new();
    for change in &all {
        let row = change["delta"].as_object().unwrap().values().next().unwrap().as_u64().unwrap();
        let counter = counters.entry(change["entity_id"].as_str().unwrap()).or_insert(0);
        *counter = row.max(*counter);
    }
    let twos: Vec<_> = counters.iter().filter(|(_, n)| **n == 2).map(|(e, _)| *e).collect();
    assert_eq!((counters.len(), twos), (8, vec!["e0", "e6"]));
}
