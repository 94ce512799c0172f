//! What comes out: violations where the system has them, none where it keeps its promise.

use std::process::Command;

use serde_json::json;

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
