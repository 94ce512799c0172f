//! The requests of the README and of the published texts, and those that are refused.

use std::time::Duration;

use examples_test_support::commands;
use serde_json::{Value, json};

use crate::Service;

const README: &str = include_str!("../../README.md");

#[test]
fn the_readme_is_true() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let mut sent = 0;
    let mut id = None;
    loop {
        // The id is only known after the first request.
        let text = README.replace("{test_id}", id.as_deref().unwrap_or("{test_id}"));
        let all = commands(&text);
        let Some(command) = all.get(sent) else { break };
        let answer = command.send(&service);
        assert_eq!(answer.status, command.status, "{command:?}: {}", answer.body);
        sent += 1;
        if sent == 1 {
            id = Some(answer.json()["test_id"].as_str().unwrap().to_owned());
        }
        if sent == 2 {
            let result = service.result(id.as_deref().unwrap());
            assert_eq!(result["verdict"], "valid", "{result}");
            assert_eq!(result["unverified_faults"], json!([]), "{result}");
            assert!(result["faults"].as_u64().unwrap() > 0, "{result}");
        }
    }
    assert_eq!(sent, 20);
    // What the answers say, beside their status.
    let id = id.unwrap();
    let logs = service.get(&format!("/api/v1/tests/{id}/logs?limit=500")).of(200);
    assert!(logs["logs"].to_string().contains("bytes were seen held"), "{logs}");
    let page = service.send("GET", &format!("/api/v1/history/{id}/visualize"), &[], "").unwrap();
    assert!(page.body.to_lowercase().starts_with("<!doctype html>"), "{}", &page.body[..100]);
    assert!(page.body.contains("bank_test"));
    let export = format!("/api/v1/history/{id}/export");
    let edn = service.post(&export, &json!({"format": "edn"}));
    assert!(edn.body.starts_with("{:process "), "{}", &edn.body[..100]);
    let events = service.get(&format!("/api/v1/history/{id}?limit=500")).of(200);
    assert_eq!(events["events"].as_array().unwrap().len(), 500);
    let rates = service.get("/api/v1/performance/throughput").of(200);
    assert!(rates["ok_per_second"].as_f64().unwrap() > 0.0, "{rates}");
    let figures = service.get("/api/v1/performance/metrics").of(200);
    assert_eq!(figures["verdicts"]["valid"], 1, "{figures}");
    let topology = service.get("/api/v1/cluster/topology").of(200);
    let all = topology["links"].as_array().unwrap();
    assert!(all.iter().all(|link| link["connected"] == true), "{topology}");
    assert_eq!(
        service.send("DELETE", &format!("/api/v1/tests/{id}"), &[], "").unwrap().status,
        204
    );
    service.get(&format!("/api/v1/results/{id}")).problem(404, "test_not_found");
}

/// As they stand in the published texts.
#[test]
fn the_published_requests_work_as_printed() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let headers = ["Content-Type: application/json"];
    let post = |path: &str, body: &str| service.send("POST", path, &headers, body).unwrap();
    let bank = r#"{
    "name": "bank_test",
    "workload": "bank",
    "nemesis": "network_partition",
    "duration": "5m",
    "client_count": 10
  }"#;
    let bank = post("/api/v1/tests", bank).of(202)["test_id"].as_str().unwrap().to_owned();
    let simple = r#"{
    "name": "simple_test",
    "workload": "register",
    "nemesis": "process_killer",
    "duration": "30s",
    "client_count": 2
  }"#;
    let simple = post("/api/v1/tests", simple).of(202)["test_id"].as_str().unwrap().to_owned();
    service.wait(&bank, &["running"]);
    let running = service.get(&format!("/api/v1/results/{bank}")).of(200);
    assert_eq!(running["verdict"], Value::Null, "there is none yet");
    assert_eq!(running["duration"], "5m");
    assert_eq!(running["duration_ms"], 300_000);
    let partition = r#"{"nodes": ["postgres-primary", "postgres-replica"]}"#;
    let partitioned = post("/api/v1/nemesis/network/partition", partition).of(200);
    assert_eq!(partitioned["verified"], true, "{partitioned}");
    // Nobody waits five minutes: what was seen until now is checked.
    std::thread::sleep(Duration::from_millis(500));
    post(&format!("/api/v1/tests/{bank}/stop"), "").of(200);
    service.wait(&bank, &["cancelled"]);
    let stopped = service.get(&format!("/api/v1/results/{bank}")).of(200);
    assert_ne!(stopped["verdict"], "valid", "a part is no proof: {stopped}");
    assert_ne!(stopped["verdict"], "invalid", "{stopped}");
    post(&format!("/api/v1/tests/{bank}/stop"), "").problem(409, "already_ended");

    service.wait(&simple, &["running"]);
    let killed = post("/api/v1/nemesis/process/kill", r#"{"process": "postgres"}"#).of(200);
    assert_eq!(killed["nodes"], json!(["postgres-primary"]));
    let result = service.result(&simple);
    assert_ne!(result["verdict"], "invalid", "{result}");
    let results = service.get("/api/v1/results").of(200);
    assert_eq!(results["total"], 2);
    assert_eq!(results["results"][0]["test_id"], simple.as_str());
}

#[test]
fn bad_requests_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let post = |path: &str, body: Value| service.post(path, &body);
    let test = |more: Value| {
        let mut body = json!({"name": "t", "workload": "bank", "start": false});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service.post("/api/v1/tests", &body)
    };
    for (field, value) in [
        ("name", json!(" ")),
        ("workload", json!("chess")),
        ("nemesis", json!("earthquake")),
        ("nemesis", json!("orchestrator_crash")),
        ("duration", json!("2h")),
        ("duration", json!("1ms")),
        ("client_count", json!(0)),
        ("client_count", json!(1000)),
        ("isolation", json!("perfect")),
        ("reads", json!("tea-leaves")),
        ("keys", json!(0)),
        ("rate", json!(0)),
    ] {
        let detail = test(json!({field: value})).problem(422, "invalid_test");
        assert!(detail.starts_with(field), "{field}: {detail}");
    }
    let detail = test(json!({"workload": "chess", "nemesis": "rain"})).problem(422, "invalid_test");
    assert!(detail.contains("chess") && detail.contains("rain") && detail.contains("long-fork"));
    for wrong in [json!("five minutes"), json!(-1), json!(1e300), json!("1e9s"), json!([5])] {
        let detail = test(json!({"duration": wrong})).problem(422, "invalid_body");
        assert!(detail.contains("write it as \"30s\""), "{detail}");
    }
    test(json!({"duration": "99999h"})).problem(422, "invalid_test");
    for wrong in [1e308, -1.0] {
        test(json!({"rate": wrong})).problem(422, "invalid_test");
    }
    // What is null is left out.
    let nulls = json!({"duration": null, "nemesis": null, "rate": null, "op_timeout": null});
    test(nulls).of(202);
    test(json!({"colour": "red"})).problem(422, "invalid_body");

    // The same key, the same test; another request with it is refused.
    let body = json!({"name": "t", "workload": "set", "start": false});
    let first = service.post_once("/api/v1/tests", "k", &body).of(202);
    assert_eq!(service.post_once("/api/v1/tests", "k", &body).of(202), first);
    let other = json!({"name": "u", "workload": "set", "start": false});
    service.post_once("/api/v1/tests", "k", &other).problem(422, "idempotency_key_reused");
    let id = first["test_id"].as_str().unwrap();
    assert_eq!(service.status(id), "created");

    let heal = || service.post_once("/api/v1/nemesis/network/heal", "h", &json!({}));
    assert_eq!(heal().of(200), heal().of(200));
    let reused = service.post_once("/api/v1/nemesis/clock/reset", "h", &json!({}));
    reused.problem(422, "idempotency_key_reused");

    for path in ["tests/x", "tests/x/status", "tests/x/progress", "tests/x/logs", "results/x"] {
        service.get(&format!("/api/v1/{path}")).problem(404, "test_not_found");
    }
    for path in ["results/x/timeline", "results/x/violations", "history/x", "history/..%2F..%2Fx"] {
        service.get(&format!("/api/v1/{path}")).problem(404, "test_not_found");
    }
    service.get(&format!("/api/v1/history/{id}")).problem(409, "no_history");
    post(&format!("/api/v1/history/{id}/visualize"), json!({})).problem(409, "no_report");
    service.get("/api/v1/tests?limit=501").problem(400, "invalid_query");
    service.get("/api/v1/tests?status=tired").problem(400, "invalid_query");
    service.get("/api/v1/workloads/chess").problem(404, "workload_not_found");
    assert_eq!(service.get("/api/v1/workloads/long_fork").of(200)["name"], "long-fork");
    service.get("/api/v1/performance/latency").problem(404, "no_figures");
    post("/api/v1/consistency/linearizability", json!({})).problem(422, "invalid_body");
    let chess = json!({"model": "chess", "history": []});
    post("/api/v1/consistency/linearizability", chess).problem(422, "invalid_model");
    let torn = json!({"history": "{:process 0 :type"});
    post("/api/v1/consistency/sequential", torn).problem(422, "invalid_history");
    let empty = post("/api/v1/consistency/linearizability", json!({"history": []})).of(200);
    assert_eq!(empty["verdict"], "unknown", "nothing proves nothing: {empty}");
    assert_eq!(empty["consistent"], Value::Null);
    post("/api/v1/nemesis/network/partition", json!({"nodes": []})).problem(422, "invalid_fault");
    post("/api/v1/nemesis/clock/skew", json!({})).problem(422, "invalid_fault");

    // These start the servers first.
    let unknown = json!({"nodes": ["postgres-primary", "moon"]});
    let detail = post("/api/v1/nemesis/network/partition", unknown).problem(422, "invalid_fault");
    assert!(detail.contains("moon") && detail.contains("postgres-replica"), "{detail}");
    let detail = post("/api/v1/nemesis/process/kill", json!({"process": "init"}));
    let detail = detail.problem(403, "process_not_owned");
    assert!(detail.contains("postgres-primary, postgres-replica"), "{detail}");
    let status = service.get("/api/v1/cluster/status").of(200);
    assert_eq!(status["status"], "running", "{status}");
}

#[test]
fn only_so_many_tests_may_wait() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let waits = json!({"name": "t", "workload": "bank", "start": false});
    let first = service.post_once("/api/v1/tests", "first", &waits).of(202);
    for _ in 1..100 {
        service.create(&waits);
    }
    let detail = service.post("/api/v1/tests", &waits).problem(429, "queue_full");
    assert!(detail.contains("100 tests wait"), "{detail}");
    // The answer to a request that was sent before is still given.
    assert_eq!(service.post_once("/api/v1/tests", "first", &waits).of(202), first);
    let path = format!("/api/v1/tests/{}", first["test_id"].as_str().unwrap());
    assert_eq!(service.send("DELETE", &path, &[], "").unwrap().status, 204);
    service.create(&waits);
}

#[test]
fn what_is_too_large_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let ten_megabytes = "x".repeat(10 << 20);
    let named = json!({"name": ten_megabytes, "workload": "bank"});
    service.post("/api/v1/tests", &named).problem(413, "body_too_large");
    let process = json!({"process": ten_megabytes});
    service.post("/api/v1/nemesis/process/kill", &process).problem(413, "body_too_large");
    // Histories may be large.
    let event = json!({"process": 0, "type": "info", "f": "write", "value": "x".repeat(1000)});
    let history = json!({"history": vec![event; 10_000]});
    let checked = service.post("/api/v1/consistency/linearizability", &history).of(200);
    assert_eq!(checked["verdict"], "unknown", "{checked}");
}

#[test]
fn clocks_are_skewed_by_hand_and_reset() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let skewed = service.post("/api/v1/nemesis/clock/skew", &json!({"skew": "-5m"})).of(200);
    assert_eq!(skewed["verified"], true, "{skewed}");
    assert!(skewed["detail"].as_str().unwrap().contains("-300 s"), "{skewed}");
    let listed = service.get("/api/v1/nemesis").of(200);
    assert!(listed["in_effect"].to_string().contains(".clock"), "{listed}");
    let reset = service.post("/api/v1/nemesis/clock/reset", &json!({})).of(200);
    assert_eq!((&reset["status"], &reset["verified"]), (&json!("healed"), &json!(true)));
    let listed = service.get("/api/v1/nemesis").of(200);
    assert!(!listed["in_effect"].to_string().contains(".clock"), "{listed}");
}
