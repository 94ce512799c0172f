//! The service is killed in the middle of a partition.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{DEADLINE, Service};

fn pids(service: &Service) -> Vec<u64> {
    let status = service.get("/api/v1/cluster/status").of(200);
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes.filter_map(|node| node["pid"].as_u64()).collect()
}

fn lives(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn wait_until(what: &str, seen: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !seen() {
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn fault_in_effect(service: &Service, id: &str) -> bool {
    let progress = service.get(&format!("/api/v1/tests/{id}/progress")).of(200);
    progress["active_faults"].as_array().is_some_and(|faults| !faults.is_empty())
}

#[test]
fn after_kill_9_nothing_is_left_and_the_queue_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(folder.path(), &[]);
    let body = |name: &str, nemesis: &str, duration: &str| json!({"name": name, "workload": "bank", "nemesis": nemesis, "duration": duration});
    let killed = service.create(&body("killed", "process_pause", "5m"));
    let waits = service.create(&body("waits", "network_partition", "2s"));
    service.wait(&killed, &["running"]);
    wait_until("a fault in effect", || fault_in_effect(&service, &killed));
    let partition = json!({"nodes": ["postgres-primary", "postgres-replica"]});
    service.post("/api/v1/nemesis/network/partition", &partition).of(200);
    let servers = pids(&service);
    assert_eq!(servers.len(), 2);

    service.0.kill();
    // Nobody could stop them: they are the next start's.
    assert!(servers.iter().any(|pid| lives(*pid)));
    let mut service = Service::start(folder.path(), &[]);
    wait_until("the end of the old servers", || !servers.iter().any(|pid| lives(*pid)));
    let interrupted = service.get(&format!("/api/v1/tests/{killed}")).of(200);
    assert_eq!(interrupted["status"], "interrupted", "{interrupted}");
    // Its history was written down as it happened.
    let events = service.get(&format!("/api/v1/history/{killed}")).of(200);
    assert!(events["total"].as_u64().unwrap() > 0);
    let again = service.post(&format!("/api/v1/results/{killed}/analyze"), &json!({})).of(200);
    assert_ne!(again["verdict"], "invalid", "{again}");
    assert_eq!(service.result(&waits)["verdict"], "valid");

    let servers = pids(&service);
    service.stop();
    assert!(!servers.iter().any(|pid| lives(*pid)), "it stops what it started");
}

/// SIGTERM, and Ctrl-C in a terminal.
#[test]
fn a_signal_in_the_middle_of_a_fault_heals_and_stops() {
    for (signal, nemesis) in [("TERM", "mixed"), ("INT", "network_partition")] {
        ends_in_order(signal, nemesis);
    }
}

fn ends_in_order(signal: &str, nemesis: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(folder.path(), &[]);
    let body = json!({"name": "t", "workload": "counter", "nemesis": nemesis, "duration": "5m"});
    let id = service.create(&body);
    service.wait(&id, &["running"]);
    wait_until("a fault in effect", || fault_in_effect(&service, &id));
    let servers = pids(&service);
    service.0.signal(signal);
    assert!(service.0.ended().success());
    assert!(!servers.iter().any(|pid| lives(*pid)));
    let service = Service::start(folder.path(), &[]);
    let test: Value = service.get(&format!("/api/v1/tests/{id}")).of(200);
    assert_eq!(test["status"], "cancelled", "{test}");
    let listed = service.get("/api/v1/nemesis").of(200);
    assert_eq!(listed["in_effect"], json!([]), "{listed}");
}

/// Processes that have this text among their arguments.
fn processes_with(text: &str) -> Vec<u64> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mentions = |pid: &u64| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(text)
    };
    pids.filter(mentions).collect()
}

#[test]
fn ctrl_c_in_the_demo_leaves_no_server() {
    // The servers' user has to get there.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut child = Command::new(examples_test_support::program(crate::NAME))
        .arg("demo")
        .env("TMPDIR", folder.path())
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let partition = lines.by_ref().any(|line| line.contains(": bytes were seen held"));
    assert!(partition, "it makes no partition");
    // It goes on to tell its story, and somebody must listen.
    let listens = std::thread::spawn(move || lines.for_each(drop));
    let place = folder.path().to_str().unwrap();
    assert!(processes_with(place).len() > 1, "its servers run");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    listens.join().unwrap();
    wait_until("the end of its servers", || processes_with(place).is_empty());
    let left = std::fs::read_dir(folder.path()).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    let data = left.iter().any(|name| name.to_string_lossy().starts_with("potter-demo"));
    assert!(!data, "the servers' data is deleted: {left:?}");
}
