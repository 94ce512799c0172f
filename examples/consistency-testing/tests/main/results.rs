//! What comes out: violations where the system has them, none where it keeps its promise.

use std::process::Command;

use serde_json::{Value, json};

use crate::Service;

#[test]
fn a_stale_replica_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(folder.path(), &[]);
    let id = service.create(&json!({
        "name": "replica reads", "workload": "register", "nemesis": "network_delay",
        "duration": "5s", "client_count": 6, "reads": "replica", "seed": 1,
    }));
    let result = service.result(&id);
    assert_eq!(result["verdict"], "invalid", "{result}");
    assert_eq!(result["passed"], false);
    let found = service.get(&format!("/api/v1/results/{id}/violations")).of(200);
    assert_eq!(found["violations"][0]["anomaly"], "nonlinearizable", "{found}");
    assert!(!found["violations"][0]["operations"].as_array().unwrap().is_empty());
    // Stale is not out of order.
    let path = format!("/api/v1/results/{id}/analyze");
    let again = service.post(&path, &json!({})).of(200);
    assert_eq!(again["verdict"], "invalid", "the same history, the same verdict: {again}");
    let by_id = json!({"test_id": id, "model": "register"});
    let by_id = service.post("/api/v1/consistency/linearizability", &by_id).of(200);
    assert_eq!(by_id["consistent"], false, "{by_id}");

    // Results are there after a restart.
    service.stop();
    let service = Service::start(folder.path(), &[]);
    let after = service.get(&format!("/api/v1/results/{id}")).of(200);
    assert_eq!(after, result);
    service.get(&format!("/api/v1/results/{id}/timeline")).of(200);
}

#[test]
fn a_reader_that_trusts_positions_is_caught_skipping() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    // Whether a reader looks just when a lower position is still open is up to the machine.
    for seed in 0..20 {
        let id = service.create(&json!({
            "name": "naive readers", "workload": "event-store-naive", "nemesis": "network_delay",
            "duration": "4s", "client_count": 8, "op_timeout": "30s", "seed": seed,
        }));
        let result = service.result(&id);
        if result["verdict"] == "valid" {
            continue;
        }
        assert_eq!(result["verdict"], "invalid", "{result}");
        assert_eq!(result["passed"], false);
        assert_eq!(result["violations"], json!(["skipped"]), "{result}");
        let found = service.get(&format!("/api/v1/results/{id}/violations")).of(200);
        let example = &found["violations"][0];
        assert_eq!(example["anomaly"], "skipped", "{found}");
        // In words: the poll that got the event, and the one of another reader that went past it.
        assert_eq!(example["operations"].as_array().unwrap().len(), 2, "{found}");
        assert!(example["message"].as_str().unwrap().contains("and never got event"), "{found}");
        let page =
            service.send("GET", &format!("/api/v1/history/{id}/visualize"), &[], "").unwrap();
        assert!(page.body.contains("skipped"), "{}", &page.body[..1000]);
        return;
    }
    panic!("20 tests, and the naive reader skipped nothing");
}

#[test]
fn a_fault_that_was_not_seen_leaves_the_result_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    // Single statements send no COMMIT, so no answer of one can be lost.
    let id = service.create(&json!({
        "name": "nothing to lose", "workload": "register", "nemesis": "lost_answers",
        "duration": "2s", "client_count": 2, "rate": 100,
    }));
    let result = service.result(&id);
    assert_eq!(result["verdict"], "unknown", "{result}");
    assert_eq!(result["passed"], Value::Null, "neither passed nor failed: {result}");
    let why = result["why"].as_str().unwrap();
    assert!(why.contains("a request that did not come"), "{result}");
    assert!(!result["unverified_faults"].as_array().unwrap().is_empty(), "{result}");
    let listed = service.get("/api/v1/results?verdict=unknown").of(200);
    assert_eq!(listed["total"], 1, "{listed}");
    let timeline = service.get(&format!("/api/v1/results/{id}/timeline")).of(200);
    let marks = timeline["faults"].as_array().unwrap();
    assert!(marks.iter().any(|mark| mark["verified"] == false), "{timeline}");
    // Without the faults the same history is valid.
    let again = service.post(&format!("/api/v1/results/{id}/analyze"), &json!({})).of(200);
    assert_eq!(again["verdict"], "valid", "{again}");

    // Somebody kills the servers by hand: the nemesis finds nobody to kill.
    let id = service.create(&json!({
        "name": "dead already", "workload": "register", "nemesis": "process_killer",
        "duration": "4s", "client_count": 2, "rate": 100, "op_timeout": "1s",
    }));
    service.wait(&id, &["running"]);
    for process in ["postgres-replica", "postgres-primary"] {
        let killed = service.post("/api/v1/nemesis/process/kill", &json!({"process": process}));
        assert_eq!(killed.of(200)["status"], "killed");
    }
    let result = service.result(&id);
    assert_eq!(result["verdict"], "unknown", "{result}");
    assert!(result["why"].as_str().unwrap().contains("did not run"), "{result}");
}

#[test]
fn sagas_survive_the_kill_of_the_processes_that_run_them() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let create = |nemesis: &str, duration: &str| {
        service.create(&json!({
            "name": nemesis, "workload": "saga", "nemesis": nemesis, "duration": duration,
            "client_count": 3, "rate": 15, "op_timeout": "20s",
        }))
    };
    let killed = create("orchestrator_crash", "6s");
    service.wait(&killed, &["running"]);
    // They are processes of this service, and its alone: one more dies by hand.
    let by_hand = json!({"process": "saga-orchestrator-2"});
    let by_hand = service.post("/api/v1/nemesis/process/kill", &by_hand).of(200);
    assert_eq!(by_hand["nodes"], json!(["saga-orchestrator-2"]), "{by_hand}");
    service.wait(&killed, &["completed"]);
    let logs = service.get(&format!("/api/v1/tests/{killed}/logs?limit=500")).of(200).to_string();
    assert!(logs.contains("is killed: pids") && logs.contains("runs again as pid"), "{logs}");
    assert!(logs.contains("by hand: kill"), "{logs}");
    let timeline = service.get(&format!("/api/v1/results/{killed}/timeline")).of(200).to_string();
    assert!(timeline.contains("saga-orchestrator-2"), "{timeline}");
    let result = service.result(&killed);
    // By hand one may have been dead when the nemesis came to kill it: then it proves nothing.
    assert_ne!(result["verdict"], "invalid", "{result}");

    // Servers too, and frozen ones that wake up when others have their sagas.
    for (nemesis, duration) in [("orchestrator_crash", "5s"), ("process_pause", "24s")] {
        let id = create(nemesis, duration);
        let result = service.result(&id);
        assert_eq!(result["verdict"], "valid", "{nemesis}: {result}");
        assert!(result["faults"].as_u64().unwrap() > 0, "{nemesis}: {result}");
        let again = service.post(&format!("/api/v1/results/{id}/analyze"), &json!({})).of(200);
        assert_eq!(again["verdict"], "valid", "{again}");
    }
    let detail = service.post("/api/v1/nemesis/process/kill", &json!({"process": "init"}));
    let detail = detail.problem(403, "process_not_owned");
    assert!(!detail.contains("orchestrator"), "they ended with their test: {detail}");
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let listed = service.get("/api/v1/nemesis").of(200);
    let listed = listed["nemesis"].as_array().unwrap().iter().find(|it| it["name"] == "disk_full");
    let id = service.create(&json!({
        "name": "no room", "workload": "set", "nemesis": "full-disk", "duration": "6s",
        "client_count": 4, "op_timeout": "2s", "rate": 300,
    }));
    if listed.unwrap()["available"] == false {
        // Only root can mount the disk.
        service.wait(&id, &["failed"]);
        return;
    }
    let result = service.result(&id);
    assert_eq!(result["verdict"], "valid", "{result}");
    assert!(result["faults"].as_u64().unwrap() > 0, "{result}");
    let logs = service.get(&format!("/api/v1/tests/{id}/logs?limit=500")).of(200).to_string();
    assert!(logs.contains("ENOSPC") && logs.contains("has room"), "{logs}");
    // It is small, so servers without it take the place of these.
    let id = service.create(&json!({
        "name": "room", "workload": "set", "nemesis": "none", "duration": "1s", "rate": 100,
    }));
    assert_eq!(service.result(&id)["verdict"], "valid");
}

#[test]
fn every_workload_is_kept_under_faults() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let nemeses = ["connection_reset", "process_pause", "network_loss", "process_restart"];
    let workloads = service.get("/api/v1/workloads").of(200);
    let names = workloads["workloads"].as_array().unwrap().iter();
    let names = names.map(|it| it["name"].as_str().unwrap()).filter(|name| !name.contains("naive"));
    let tests: Vec<_> = names
        .zip(nemeses.iter().cycle())
        .map(|(workload, nemesis)| {
            let nemesis = if workload == "saga" { &"orchestrator_crash" } else { nemesis };
            // Each saga is some twenty transactions.
            let rate = if workload == "saga" { 15 } else { 200 };
            let name = format!("{workload} under {nemesis}");
            let body = json!({
                "name": name, "workload": workload, "nemesis": nemesis,
                "duration": "3s", "client_count": 4, "op_timeout": "2s", "rate": rate,
            });
            (name, service.create(&body))
        })
        .collect();
    assert_eq!(tests.len(), 12);
    for (name, id) in tests {
        let result = service.result(&id);
        assert_eq!(result["verdict"], "valid", "{name}: {result}");
    }
}

#[test]
fn the_demo_tells_its_story_and_leaves_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(examples_test_support::program(crate::NAME))
        .arg("demo")
        .env("TMPDIR", "/tmp")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    for words in [
        "postgres-primary and postgres-replica",
        "partition: bytes were seen held",
        "kill: postgres-primary is killed",
        "bank: VALID",
        "0 were not verified",
        "report.html",
    ] {
        assert!(told.contains(words), "{words} is missing: {told}");
    }
    let report = told.lines().find_map(|line| line.strip_prefix("The report: ")).unwrap();
    assert!(std::fs::read_to_string(report).unwrap().contains("bank under partitions"));
    std::fs::remove_dir_all(std::path::Path::new(report).ancestors().nth(2).unwrap()).unwrap();
}
