//! Servers that somebody else runs.

use std::process::Command;

use serde_json::json;

use crate::Service;

#[test]
fn other_servers_are_tested_and_never_touched() {
    let url = std::env::var("POTTER_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!("POTTER_TEST_POSTGRES_URL is not set: eval \"$(scripts/services up)\"")
    });
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[("PRIMARY_DATABASE_URL", &url)]);
    let status = service.get("/api/v1/cluster/status").of(200);
    assert_eq!(status["kind"], "external");
    let body = json!({
        "name": "theirs", "workload": "cas", "nemesis": "network_partition", "duration": "3s",
        "rate": 200, "op_timeout": "1s",
    });
    let id = service.create(&body);
    let result = service.result(&id);
    assert_eq!(result["verdict"], "valid", "{result}");
    assert_eq!(result["unverified_faults"], json!([]));
    assert!(result["faults"].as_u64().unwrap() > 0);

    let killer = json!({"name": "k", "workload": "bank", "nemesis": "process_killer"});
    let detail = service.post("/api/v1/tests", &killer).problem(422, "nemesis_unavailable");
    assert!(detail.contains("PRIMARY_DATABASE_URL"), "{detail}");
    let kill = service.post("/api/v1/nemesis/process/kill", &json!({"process": "postgres"}));
    let detail = kill.problem(403, "process_not_owned");
    assert!(detail.contains("It owns: none"), "{detail}");
    let skew = service.post("/api/v1/nemesis/clock/skew", &json!({"seconds": 5}));
    skew.problem(422, "nemesis_unavailable");
    // No password is in any file or answer.
    let manifest = folder.path().join(format!("data/consistency-testing/tests/{id}/manifest.json"));
    assert!(!std::fs::read_to_string(manifest).unwrap().contains("postgres://"));
}

fn psql(url: &str, statement: &str) {
    let mut command = Command::new("psql");
    let output = command.args(["-XAtqc", statement, url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn without_rights_a_test_fails_and_says_why() {
    let url = std::env::var("POTTER_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!("POTTER_TEST_POSTGRES_URL is not set: eval \"$(scripts/services up)\"")
    });
    let role = format!("jepsen_reader_{}", std::process::id());
    psql(&url, &format!("CREATE ROLE {role} LOGIN PASSWORD 'sesame'"));
    let place = url.rsplit_once('@').unwrap().1;
    let theirs = format!("postgres://{role}:sesame@{place}");
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[("PRIMARY_DATABASE_URL", &theirs)]);
    for workload in ["bank", "saga", "event-store"] {
        let id = service.create(&json!({"name": "t", "workload": workload, "duration": "1s"}));
        service.wait(&id, &["failed"]);
        let test = service.get(&format!("/api/v1/tests/{id}")).of(200);
        let error = test["error"].as_str().unwrap();
        assert!(error.contains("can't be prepared") && error.contains("permission"), "{error}");
        assert!(!test.to_string().contains("sesame"), "{test}");
        assert_eq!(test["verdict"], serde_json::Value::Null, "{test}");
    }
    drop(service);
    psql(&url, &format!("DROP ROLE {role}"));
}

#[test]
fn a_server_that_does_not_answer_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for (variable, value) in [
        ("PRIMARY_DATABASE_URL", "postgres://me:secret@127.0.0.1:1/x"),
        ("PRIMARY_DATABASE_URL", "mysql://me:secret@db/x"),
        ("PRIMARY_DATABASE_URL", "postgres://me:secret@no.such.host.invalid/x"),
        ("PRIMARY_DATABASE_URL", "secret"),
        ("REPLICA_DATABASE_URLS", "postgres://me:secret@127.0.0.1:1/x"),
        ("DATA_DIR", "/proc/nothing"),
    ] {
        let output = Command::new(examples_test_support::program(crate::NAME))
            .current_dir(folder.path())
            .env("PORT", "0")
            .env_remove("DATABASE_URL")
            .env(variable, value)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{variable}: {said}");
        assert!(said.contains(variable), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}
